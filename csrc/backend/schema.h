// What a frame says of tensors.
#pragma once

#include <ATen/ATen.h>

#include <optional>
#include <vector>

#include "transport/frame.h"

namespace bluefog {

/// A frame for exchanging `tensors` as one. An allgather states the first dimension as `rows`, and
/// on the CPU, where it may differ, leaves it out of the digest; a 0-d tensor counts as one row.
/// `payload`: a narrower type in which they are sent.
Frame make_frame(Operation operation, const std::vector<at::Tensor>& tensors, int64_t round,
                 std::optional<at::ScalarType> payload = {});

/// A frame for a collective on `numel` elements, whatever their shape. `how` is a few words that
/// are the same on all ranks, such as the way of reducing.
Frame make_flat_frame(Operation operation, at::ScalarType type, int64_t numel,
                      const char* how = "");

/// "float32", as Python spells it.
std::string dtype_name(at::ScalarType type);

}  // namespace bluefog
