// The weighted combine: y = w0 * x0 + w1 * x1 + ... + wd * xd, in one pass over memory.
#pragma once

#include <cstddef>
#include <span>

#include "base/dtype.h"
#include "kernels/store.h"

namespace bluefog {

struct Term {
  const std::byte* data;
  double weight;
};

/// Writes the weighted sum of `terms` to `y`; each has `nbytes` bytes of `dtype`, aligned to its
/// elements.
///
/// Addition is in the order of the terms, without fused multiply-add, so that a result does not
/// depend on the machine, the transport or how a payload was cut into pieces. float16 and bfloat16
/// are accumulated in float32 and rounded once, to nearest even; weights are rounded to the type of
/// accumulation (float32, or float64 for float64). Integers wrap around, and weights lose their
/// fraction. `y` may be the data of a term, but must not
/// overlap one otherwise. No terms: zeros.
void combine(DType dtype, std::byte* y, std::span<const Term> terms, std::size_t nbytes,
             Store store = Store::kCached);

}  // namespace bluefog
