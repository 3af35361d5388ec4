// What a caller of neighbor operations may bring. Each check throws ValueError that names the
// tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "backend/sink.h"

namespace bluefog {

/// A dense, plain tensor with data, on a device that is served.
void check_neighbor_tensor(const char* operation, const at::Tensor& tensor);

/// The place for an average: like its input, each element in a place of its own.
void check_output(const at::Tensor& input, const at::Tensor& output, std::size_t index);

/// The place for gathered rows, but for its shape.
void check_gathered(const at::Tensor& input, const at::Tensor& out);

/// An output may take the place of its own input, and of nothing else: other memory would be
/// overwritten before it is sent, or twice.
void check_aliases(const std::vector<CombineSink::Part>& parts);

}  // namespace bluefog
