// Passes over values that windows have in common.
#pragma once

#include "base/error.h"
#include "kernels/combine.h"

namespace bluefog::window {

/// Larger results would not stay in the cache until somebody reads them.
constexpr std::size_t kLargestCached = 4 << 20;

inline Store store_for(std::size_t nbytes) {
  return nbytes > kLargestCached ? Store::kStreaming : Store::kCached;
}

/// y = weight * x
inline void scale(DType dtype, std::byte* y, const std::byte* x, double weight,
                  std::size_t nbytes) {
  const Term term{x, weight};
  combine(dtype, y, {&term, 1}, nbytes, store_for(nbytes));
}

}  // namespace bluefog::window
