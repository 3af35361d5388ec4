// What a frame says of tensors.
#pragma once

#include <ATen/ATen.h>

#include <vector>

#include "transport/frame.h"

namespace bluefog {

/// A frame for exchanging `tensors` as one. An allgather leaves the first dimension out of the
/// digest and states it as `rows`; a 0-d tensor counts as one row.
Frame make_frame(Operation operation, const std::vector<at::Tensor>& tensors, int64_t round);

/// "float32", as Python spells it.
std::string dtype_name(at::ScalarType type);

}  // namespace bluefog
