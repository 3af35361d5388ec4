// How results are written to memory.
#pragma once

#include <cstddef>

namespace bluefog {

/// Where a result goes: to the cache, or past it to memory, which is faster for results so large
/// that they would not stay there.
enum class Store { kCached, kStreaming };

/// The better one for a result of `nbytes`.
constexpr Store store_for(std::size_t nbytes) {
  return nbytes > 4 << 20 ? Store::kStreaming : Store::kCached;
}

}  // namespace bluefog
