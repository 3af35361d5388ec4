// What bluefog::combine asks of its arguments, and the combine by torch's own operations: on every
// device that torch has, with a pass over memory for each operation.
#pragma once

#include <ATen/core/Tensor.h>

namespace bluefog::device {

/// Whether what goes as `payload` can be added to tensors of the wider type `own`.
bool is_narrower(at::ScalarType payload, at::ScalarType own);

/// Throws c10::ValueError or c10::TypeError, naming the tensor, where the arguments are not as
/// combine_op.h says. Does not look for overlaps.
void check_combine(at::TensorList outputs, at::TensorList inputs, at::TensorList arrivals,
                   at::ArrayRef<double> weights);

/// combine() of combine_op.h, after check_combine.
void combine_by_aten(at::TensorList outputs, at::TensorList inputs, at::TensorList arrivals,
                     at::ArrayRef<double> weights);

}  // namespace bluefog::device
