// A thread adds up vectors of 16 bytes in registers. Products and sums are rounded one by one
// (__fmul_rn and __fadd_rn are never contracted), in the order of the terms. All loads of a vector
// are issued before the first is used.
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include <atomic>
#include <type_traits>

#include "kernels/combine_cuda.h"

namespace bluefog {
namespace {

// 4 blocks of at most 64 registers a thread on a multiprocessor: all of a grid runs at once, and
// 1024 threads with 2 loads of 16 bytes under way are 32 KiB, which the longest memory needs.
constexpr int kBlocksPerMultiprocessor = 4;

// Terms after the own one that are loaded before they are added, where the number of terms is not
// known to the compiler. Single elements take more registers each than those of a vector.
constexpr __host__ __device__ int batch_of(int width) { return width == 1 ? 2 : 4; }

template <Element>
struct Traits;

template <>
struct Traits<Element::kFloat32> {
  using Storage = float;
  static __device__ float widen(float x) { return x; }
  static __device__ float narrow(float x) { return x; }
};

template <>
struct Traits<Element::kFloat64> {
  using Storage = double;
  static __device__ double widen(double x) { return x; }
  static __device__ double narrow(double x) { return x; }
};

template <>
struct Traits<Element::kFloat16> {
  using Storage = __half;
  static __device__ float widen(__half x) { return __half2float(x); }
  static __device__ __half narrow(float x) { return __float2half_rn(x); }
};

template <>
struct Traits<Element::kBFloat16> {
  using Storage = __nv_bfloat16;
  static __device__ float widen(__nv_bfloat16 x) { return __bfloat162float(x); }
  static __device__ __nv_bfloat16 narrow(float x) { return __float2bfloat16_rn(x); }
};

// Every value of both is one of float16.
template <__nv_fp8_interpretation_t format>
struct Float8 {
  using Storage = __nv_fp8_storage_t;
  static __device__ float widen(Storage x) {
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(x, format)));
  }
};
template <>
struct Traits<Element::kFloat8E4M3> : Float8<__NV_E4M3> {};
template <>
struct Traits<Element::kFloat8E5M2> : Float8<__NV_E5M2> {};

__device__ float multiply(float a, float b) { return __fmul_rn(a, b); }
__device__ double multiply(double a, double b) { return __dmul_rn(a, b); }
__device__ float add(float a, float b) { return __fadd_rn(a, b); }
__device__ double add(double a, double b) { return __dadd_rn(a, b); }

template <int bytes>
using Word = std::conditional_t<
    bytes == 16, uint4,
    std::conditional_t<
        bytes == 8, uint2,
        std::conditional_t<bytes == 4, unsigned,
                           std::conditional_t<bytes == 2, unsigned short, unsigned char>>>>;

// `width` elements that are loaded and stored at once.
template <Element element, int width>
struct alignas(width* size_of(element)) Pack {
  using Storage = typename Traits<element>::Storage;
  using Access = Word<width * size_of(element)>;
  Storage values[width];

  // Each value is read once: it may leave the cache first. Not by way of the read-only cache (ldg):
  // the result may be where the own values are.
  __device__ void load(const void* from, std::uint64_t index) {
    const auto word =
        __ldcs(reinterpret_cast<const Access*>(static_cast<const Storage*>(from) + index));
    memcpy(this, &word, sizeof word);
  }
  __device__ void store(void* to, std::uint64_t index, bool streaming) const {
    Access word;
    memcpy(&word, this, sizeof word);
    auto* place = reinterpret_cast<Access*>(static_cast<Storage*>(to) + index);
    streaming ? __stcs(place, word) : __stwb(place, word);
  }
};

template <typename Accumulator>
__device__ Accumulator weight(const CombineArguments& arguments, std::uint32_t k) {
  const std::uint64_t bits = arguments.weight_bits(k);
  if constexpr (std::is_same_v<Accumulator, double>) {
    return __longlong_as_double(static_cast<long long>(bits));
  } else {
    return __uint_as_float(static_cast<unsigned>(bits));
  }
}

// The elements of `range` that fall to this thread, `width` at a time and `unroll` times that
// before the first is written. kTerms: how many terms there are, or 0 for any number.
template <Element own, Element payload, int kTerms, int width, int unroll>
__device__ __forceinline__ void combine_range(const CombineArguments& arguments,
                                              std::uint32_t tensor, Range range) {
  using Accumulator = std::conditional_t<own == Element::kFloat64, double, float>;
  constexpr int batch = kTerms > 0 ? kTerms - 1 : batch_of(width);
  constexpr std::uint64_t step = kBlockThreads * width;
  const int terms = kTerms > 0 ? kTerms : static_cast<int>(arguments.terms);

  for (std::uint64_t i = range.begin + threadIdx.x * width; i < range.end; i += step * unroll) {
    Pack<own, width> mine[unroll];
    Pack<payload, width> arrived[batch][unroll];
    Accumulator sum[unroll][width];
    bool inside[unroll];
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
      inside[u] = i + u * step < range.end;
      if (inside[u]) mine[u].load(arguments.term(tensor, 0), i + u * step);
    }
#pragma unroll 1
    for (int k = 1; k == 1 || k < terms; k += batch) {
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        if (kTerms == 0 && k + b >= terms) break;
        const void* from = arguments.term(tensor, k + b);
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
          if (inside[u]) arrived[b][u].load(from, i + u * step);
        }
      }
      if (k == 1) {
        const auto w = weight<Accumulator>(arguments, 0);
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
#pragma unroll
          for (int e = 0; e < width; ++e) {
            sum[u][e] = multiply(w, Traits<own>::widen(mine[u].values[e]));
          }
        }
      }
#pragma unroll
      for (int b = 0; b < batch; ++b) {
        if (kTerms == 0 && k + b >= terms) break;
        const auto w = weight<Accumulator>(arguments, k + b);
#pragma unroll
        for (int u = 0; u < unroll; ++u) {
#pragma unroll
          for (int e = 0; e < width; ++e) {
            const Accumulator x = Traits<payload>::widen(arrived[b][u].values[e]);
            sum[u][e] = add(sum[u][e], multiply(w, x));
          }
        }
      }
    }
#pragma unroll
    for (int u = 0; u < unroll; ++u) {
      if (!inside[u]) continue;
#pragma unroll
      for (int e = 0; e < width; ++e) mine[u].values[e] = Traits<own>::narrow(sum[u][e]);
      mine[u].store(arguments.result(tensor), i + u * step, arguments.streaming != 0);
    }
  }
}

template <Element own, Element payload, int kTerms>
__global__ void __launch_bounds__(kBlockThreads, kBlocksPerMultiprocessor)
    combine_kernel(const __grid_constant__ CombineArguments arguments) {
  constexpr int width = static_cast<int>(vector_width(own));
  // By the registers that the loads take: 4 a vector.
  constexpr int unroll = kTerms > 0 && kTerms <= 3 ? 2 : 1;
  for (std::uint32_t tile = blockIdx.x; tile < arguments.tiles; tile += gridDim.x) {
    const std::uint32_t tensor = arguments.tensor_of(tile);
    const Division division = arguments.division(tensor);
    const std::uint32_t number = tile - division.first_tile;
    const Range tile_range = tile_of(division, number, arguments.tile_elements);
    Range loose{0, 0};  // elements that are combined one by one
    if (division.width == 1) {
      loose = tile_range;
    } else {
      combine_range<own, payload, kTerms, width, unroll>(arguments, tensor, tile_range);
      if (number == 0 && threadIdx.x < loose_of(division)) {
        const std::uint64_t element = loose_element(division, threadIdx.x);
        loose = {element - threadIdx.x, element + 1};  // this thread's own, no other
      }
    }
    combine_range<own, payload, 0, 1, size_of(own) == 8 ? 2 : 4>(arguments, tensor, loose);
  }
}

using Kernel = void (*)(CombineArguments);

// Made for 2 to 9 terms, and where arrivals are narrower for 2 to 5: each is a second of compiling.
template <Element own, Element payload>
Kernel kernel_for(std::size_t terms) {
  switch (terms) {
    case 2:
      return combine_kernel<own, payload, 2>;
    case 3:
      return combine_kernel<own, payload, 3>;
    case 4:
      return combine_kernel<own, payload, 4>;
    case 5:
      return combine_kernel<own, payload, 5>;
  }
  if constexpr (own == payload) {
    switch (terms) {
      case 6:
        return combine_kernel<own, payload, 6>;
      case 7:
        return combine_kernel<own, payload, 7>;
      case 8:
        return combine_kernel<own, payload, 8>;
      case 9:
        return combine_kernel<own, payload, 9>;
    }
  }
  return combine_kernel<own, payload, 0>;
}

// Null where is_served says no.
Kernel kernel_for(Element own, Element payload, std::size_t terms) {
  using enum Element;
  switch (own) {
    case kFloat16:
      if (payload == kFloat16) return kernel_for<kFloat16, kFloat16>(terms);
      if (payload == kFloat8E4M3) return kernel_for<kFloat16, kFloat8E4M3>(terms);
      if (payload == kFloat8E5M2) return kernel_for<kFloat16, kFloat8E5M2>(terms);
      return nullptr;
    case kBFloat16:
      if (payload == kBFloat16) return kernel_for<kBFloat16, kBFloat16>(terms);
      if (payload == kFloat8E4M3) return kernel_for<kBFloat16, kFloat8E4M3>(terms);
      if (payload == kFloat8E5M2) return kernel_for<kBFloat16, kFloat8E5M2>(terms);
      return nullptr;
    case kFloat32:
      if (payload == kFloat32) return kernel_for<kFloat32, kFloat32>(terms);
      if (payload == kBFloat16) return kernel_for<kFloat32, kBFloat16>(terms);
      if (payload == kFloat8E4M3) return kernel_for<kFloat32, kFloat8E4M3>(terms);
      if (payload == kFloat8E5M2) return kernel_for<kFloat32, kFloat8E5M2>(terms);
      return nullptr;
    case kFloat64:
      return payload == kFloat64 ? kernel_for<kFloat64, kFloat64>(terms) : nullptr;
    default:
      return nullptr;
  }
}

// What a launch needs to know of a device: asked once.
struct Device {
  std::atomic<int> multiprocessors{0};
  std::atomic<int> cache_bytes{0};  // of the second level
};

cudaError_t ask(std::atomic<int>& known, cudaDeviceAttr attribute, int device, int& answer) {
  answer = known.load(std::memory_order_relaxed);
  if (answer != 0) return cudaSuccess;
  const cudaError_t error = cudaDeviceGetAttribute(&answer, attribute, device);
  if (error == cudaSuccess) known.store(answer, std::memory_order_relaxed);
  return error;
}

}  // namespace

cudaError_t launch_combine(const CombineList& list, cudaStream_t stream) {
  static Device devices[64];
  const Kernel kernel = kernel_for(list.own, list.payload, list.weights.size());
  if (kernel == nullptr) return cudaErrorInvalidValue;
  int device = 0, multiprocessors = 0, cache_bytes = 0;
  cudaError_t error = cudaGetDevice(&device);
  Device unknown;
  Device& known = device < 64 ? devices[device] : unknown;
  if (error == cudaSuccess) {
    error = ask(known.multiprocessors, cudaDevAttrMultiProcessorCount, device, multiprocessors);
  }
  if (error == cudaSuccess) {
    error = ask(known.cache_bytes, cudaDevAttrL2CacheSize, device, cache_bytes);
  }
  if (error != cudaSuccess) return error;

  // Results that would not stay in the cache until somebody reads them do not push others out.
  std::size_t elements = 0;
  for (const std::size_t count : list.counts) elements += count;
  const bool streaming = elements * size_of(list.own) > static_cast<std::size_t>(cache_bytes) / 2;

  const auto most = static_cast<std::uint32_t>(multiprocessors * kBlocksPerMultiprocessor);
  CombineArguments arguments;
  for (std::size_t t = 0; t < list.outputs.size();) {
    t = fill(list, t, arguments);
    if (arguments.tiles == 0) continue;
    arguments.streaming = streaming;
    void* parameters[] = {&arguments};
    // Not <<<>>>: the tests compile this file for the CPU (tests/emulator/cuda/combine_kernel.cc).
    error = cudaLaunchKernel(reinterpret_cast<const void*>(kernel), std::min(arguments.tiles, most),
                             kBlockThreads, parameters, 0, stream);
    if (error != cudaSuccess) {
      cudaGetLastError();  // which keeps it for the next who asks
      return error;
    }
  }
  return cudaSuccess;
}

}  // namespace bluefog
