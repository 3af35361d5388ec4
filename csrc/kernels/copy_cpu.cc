#include <algorithm>
#include <cstdint>
#include <cstring>
#include <iterator>

#include "kernels/copy.h"

#if defined(__x86_64__)
#include <emmintrin.h>
#endif

namespace bluefog {
namespace {

#if defined(__x86_64__)

constexpr std::size_t kLine = 64;

void copy_streaming(std::byte* to, const std::byte* from, std::size_t nbytes) {
  // A streaming store needs an aligned address, and goes fastest in whole cache lines.
  const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(to) % kLine;
  std::size_t i = std::min(nbytes, (kLine - misaligned) % kLine);
  std::memcpy(to, from, i);
  for (; i + kLine <= nbytes; i += kLine) {
    const auto* source = reinterpret_cast<const __m128i*>(from + i);
    auto* const target = reinterpret_cast<__m128i*>(to + i);
    const __m128i line[] = {_mm_loadu_si128(source), _mm_loadu_si128(source + 1),
                            _mm_loadu_si128(source + 2), _mm_loadu_si128(source + 3)};
    for (std::size_t k = 0; k < std::size(line); ++k) _mm_stream_si128(target + k, line[k]);
  }
  std::memcpy(to + i, from + i, nbytes - i);
  _mm_sfence();  // who is told that the copy is complete must see it
}

#endif

}  // namespace

void copy(std::byte* to, const std::byte* from, std::size_t nbytes, [[maybe_unused]] Store store) {
  if (nbytes == 0) return;  // the pointers may be null
#if defined(__x86_64__)
  if (store == Store::kStreaming) return copy_streaming(to, from, nbytes);
#endif
  std::memcpy(to, from, nbytes);
}

}  // namespace bluefog
