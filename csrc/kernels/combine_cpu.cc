// Compiled without contraction of a * b + c into one rounding (-ffp-contract=off, see
// CMakeLists.txt).
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

#include "kernels/combine.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bluefog {
namespace {

// Elements that are accumulated at a time: the accumulators stay in the first-level cache while
// every term is read once.
constexpr std::size_t kBlock = 1024;

#define BLUEFOG_INLINE inline __attribute__((always_inline))

// Each struct says how n elements are widened to the accumulator's type, into `scratch` or in
// place, and narrowed back.
template <typename T>
struct Plain {
  using Element = T;
  using Accumulator = T;
  static BLUEFOG_INLINE const T* widen(const T* from, T*, std::size_t) { return from; }
  static BLUEFOG_INLINE void narrow(const T* from, T* to, std::size_t n) {
    std::copy_n(from, n, to);
  }
};

struct BrainFloat {
  using Element = std::uint16_t;
  using Accumulator = float;
  static BLUEFOG_INLINE const float* widen(const std::uint16_t* from, float* scratch,
                                           std::size_t n) {
    for (std::size_t i = 0; i < n; ++i)
      scratch[i] = std::bit_cast<float>(static_cast<std::uint32_t>(from[i]) << 16);
    return scratch;
  }
  static BLUEFOG_INLINE void narrow(const float* from, std::uint16_t* to, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) {
      const auto bits = std::bit_cast<std::uint32_t>(from[i]);
      const std::uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
      to[i] = static_cast<std::uint16_t>((bits & 0x7fffffff) > 0x7f800000 ? 0x7fc0 : rounded);
    }
  }
};

struct HalfFloat {
  using Element = std::uint16_t;
  using Accumulator = float;
  static BLUEFOG_INLINE const float* widen(const std::uint16_t* from, float* scratch,
                                           std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) scratch[i] = c10::detail::fp16_ieee_to_fp32_value(from[i]);
    return scratch;
  }
  static BLUEFOG_INLINE void narrow(const float* from, std::uint16_t* to, std::size_t n) {
    for (std::size_t i = 0; i < n; ++i) to[i] = c10::detail::fp16_ieee_from_fp32_value(from[i]);
  }
};

template <typename Type>
BLUEFOG_INLINE void combine_blocks(std::byte* y, std::span<const Term> terms, std::size_t nbytes) {
  using Element = typename Type::Element;
  using Accumulator = typename Type::Accumulator;
  const std::size_t count = nbytes / sizeof(Element);
  std::array<Accumulator, kBlock> sum;
  std::array<Accumulator, kBlock> scratch;
  for (std::size_t begin = 0; begin < count; begin += kBlock) {
    const std::size_t n = std::min(kBlock, count - begin);
    if (terms.empty()) {
      std::fill_n(sum.data(), n, Accumulator(0));
    }
    for (std::size_t k = 0; k < terms.size(); ++k) {
      const auto weight = static_cast<Accumulator>(terms[k].weight);
      const auto* from = reinterpret_cast<const Element*>(terms[k].data) + begin;
      const Accumulator* wide = Type::widen(from, scratch.data(), n);
      if (k == 0) {
        for (std::size_t i = 0; i < n; ++i) sum[i] = weight * wide[i];
      } else {
        for (std::size_t i = 0; i < n; ++i) sum[i] += weight * wide[i];
      }
    }
    Type::narrow(sum.data(), reinterpret_cast<Element*>(y) + begin, n);
  }
}

template <typename Half>
BLUEFOG_INLINE void combine_any(DType dtype, std::byte* y, std::span<const Term> terms,
                                std::size_t nbytes) {
  switch (dtype) {
    case DType::kFloat16:
      return combine_blocks<Half>(y, terms, nbytes);
    case DType::kBFloat16:
      return combine_blocks<BrainFloat>(y, terms, nbytes);
    case DType::kFloat32:
      return combine_blocks<Plain<float>>(y, terms, nbytes);
    case DType::kFloat64:
      return combine_blocks<Plain<double>>(y, terms, nbytes);
  }
}

#if defined(__x86_64__)

#define BLUEFOG_AVX2 __attribute__((target("avx2,f16c")))

// Not inline: a function for AVX2 cannot be inlined into a template that is also compiled for less.
// One call a block.
struct HalfFloatF16c {
  using Element = std::uint16_t;
  using Accumulator = float;
  BLUEFOG_AVX2 static const float* widen(const std::uint16_t* from, float* scratch, std::size_t n) {
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
      _mm256_storeu_ps(
          scratch + i,
          _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i))));
    }
    HalfFloat::widen(from + i, scratch + i, n - i);
    return scratch;
  }
  BLUEFOG_AVX2 static void narrow(const float* from, std::uint16_t* to, std::size_t n) {
    std::size_t i = 0;
    for (; i + 8 <= n; i += 8) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(to + i),
                       _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT));
    }
    HalfFloat::narrow(from + i, to + i, n - i);
  }
};

BLUEFOG_AVX2 void combine_avx2(DType dtype, std::byte* y, std::span<const Term> terms,
                               std::size_t nbytes) {
  combine_any<HalfFloatF16c>(dtype, y, terms, nbytes);
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

#endif

}  // namespace

void combine(DType dtype, std::byte* y, std::span<const Term> terms, std::size_t nbytes) {
#if defined(__x86_64__)
  if (has_avx2()) {
    return combine_avx2(dtype, y, terms, nbytes);
  }
#endif
  combine_any<HalfFloat>(dtype, y, terms, nbytes);
}

}  // namespace bluefog
