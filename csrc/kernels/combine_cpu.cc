// Compiled without contraction of a * b + c into one rounding (-ffp-contract=off, see
// CMakeLists.txt).
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <type_traits>

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

// Integers wrap around, so they are added up as unsigned ones; -1 is their largest value.
template <typename Accumulator>
BLUEFOG_INLINE Accumulator weight_as(double weight) {
  if constexpr (std::is_unsigned_v<Accumulator>) {
    return static_cast<Accumulator>(static_cast<std::int64_t>(weight));
  } else {
    return static_cast<Accumulator>(weight);
  }
}

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
      const auto weight = weight_as<Accumulator>(terms[k].weight);
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
    case DType::kInt32:
      return combine_blocks<Plain<std::uint32_t>>(y, terms, nbytes);
    case DType::kInt64:
      return combine_blocks<Plain<std::uint64_t>>(y, terms, nbytes);
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

template <typename T>
struct Vector;

template <>
struct Vector<float> {
  using Type = __m256;
  BLUEFOG_AVX2 static Type fill(float x) { return _mm256_set1_ps(x); }
  BLUEFOG_AVX2 static Type load(const float* p) { return _mm256_loadu_ps(p); }
  BLUEFOG_AVX2 static void store(float* p, Type x) { _mm256_storeu_ps(p, x); }
  BLUEFOG_AVX2 static void stream(float* p, Type x) { _mm256_stream_ps(p, x); }
};

template <>
struct Vector<double> {
  using Type = __m256d;
  BLUEFOG_AVX2 static Type fill(double x) { return _mm256_set1_pd(x); }
  BLUEFOG_AVX2 static Type load(const double* p) { return _mm256_loadu_pd(p); }
  BLUEFOG_AVX2 static void store(double* p, Type x) { _mm256_storeu_pd(p, x); }
  BLUEFOG_AVX2 static void stream(double* p, Type x) { _mm256_stream_pd(p, x); }
};

constexpr std::size_t kLanes = 4;  // vectors at a time: one cache line is written as a whole

// Elements [begin, end) of y, one after the other: what comes before and after whole vectors.
template <typename T>
void combine_each(T* y, std::span<const Term> terms, std::size_t begin, std::size_t end) {
  for (std::size_t i = begin; i < end; ++i) {
    T sum = static_cast<T>(terms[0].weight) * reinterpret_cast<const T*>(terms[0].data)[i];
    for (const Term& term : terms.subspan(1)) {
      sum += static_cast<T>(term.weight) * reinterpret_cast<const T*>(term.data)[i];
    }
    y[i] = sum;
  }
}

// The sum stays in registers: every term is read once and y written once.
template <typename T, Store store>
BLUEFOG_AVX2 void combine_vectors(std::byte* to, std::span<const Term> terms, std::size_t nbytes) {
  using V = Vector<T>;
  constexpr std::size_t kStep = sizeof(typename V::Type) / sizeof(T);
  T* const y = reinterpret_cast<T*>(to);
  const std::size_t count = nbytes / sizeof(T);
  // A streaming store needs an aligned address.
  const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(y) / sizeof(T) % kStep;
  std::size_t i = std::min(count, (kStep - misaligned) % kStep);
  combine_each(y, terms, 0, i);
  for (; i + kLanes * kStep <= count; i += kLanes * kStep) {
    typename V::Type sum[kLanes];
    for (std::size_t k = 0; k < terms.size(); ++k) {
      const T* from = reinterpret_cast<const T*>(terms[k].data) + i;
      const auto weight = V::fill(static_cast<T>(terms[k].weight));
      for (std::size_t lane = 0; lane < kLanes; ++lane) {
        const auto product = weight * V::load(from + lane * kStep);
        sum[lane] = k == 0 ? product : sum[lane] + product;
      }
    }
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      if constexpr (store == Store::kStreaming) {
        V::stream(y + i + lane * kStep, sum[lane]);
      } else {
        V::store(y + i + lane * kStep, sum[lane]);
      }
    }
  }
  combine_each(y, terms, i, count);
  if constexpr (store == Store::kStreaming) {
    _mm_sfence();  // who is told that y is complete must see it
  }
}

template <typename T>
BLUEFOG_AVX2 void combine_plain(std::byte* y, std::span<const Term> terms, std::size_t nbytes,
                                Store store) {
  store == Store::kStreaming ? combine_vectors<T, Store::kStreaming>(y, terms, nbytes)
                             : combine_vectors<T, Store::kCached>(y, terms, nbytes);
}

BLUEFOG_AVX2 void combine_avx2(DType dtype, std::byte* y, std::span<const Term> terms,
                               std::size_t nbytes, Store store) {
  if (dtype == DType::kFloat32 && !terms.empty()) {
    return combine_plain<float>(y, terms, nbytes, store);
  }
  if (dtype == DType::kFloat64 && !terms.empty()) {
    return combine_plain<double>(y, terms, nbytes, store);
  }
  combine_any<HalfFloatF16c>(dtype, y, terms, nbytes);
}

bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c"); }

#endif

}  // namespace

void combine(DType dtype, std::byte* y, std::span<const Term> terms, std::size_t nbytes,
             [[maybe_unused]] Store store) {
#if defined(__x86_64__)
  if (has_avx2()) {
    return combine_avx2(dtype, y, terms, nbytes, store);
  }
#endif
  combine_any<HalfFloat>(dtype, y, terms, nbytes);
}

}  // namespace bluefog
