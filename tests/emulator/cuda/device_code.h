// What nvcc gives to device code without an #include, for a kernel that is compiled for the CPU:
// included before the source of the kernel, by that one file only. Just what combine_cuda.cu uses.
// What includes it is compiled with -ffp-contract=off.
#pragma once

#include <cuda_runtime_api.h>

#include <bit>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>

// The other qualifiers are nothing already where nvcc does not compile.
#define __launch_bounds__(...)

namespace {

thread_local uint3 threadIdx;
thread_local uint3 blockIdx;
thread_local dim3 gridDim;

inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fadd_rn(float a, float b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __longlong_as_double(long long bits) { return std::bit_cast<double>(bits); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }

// A GPU loads and stores only what is aligned to its size, which a CPU does not check.
template <typename T>
inline void check_aligned(const T* pointer) {
  if (reinterpret_cast<std::uintptr_t>(pointer) % sizeof(T) == 0) return;
  std::fprintf(stderr, "emulated GPU: misaligned access of %zu bytes at %p\n", sizeof(T),
               static_cast<const void*>(pointer));
  std::abort();
}

// By memcpy: what is there has another type.
template <typename T>
inline T __ldcs(const T* from) {
  check_aligned(from);
  T value;
  std::memcpy(&value, static_cast<const void*>(from), sizeof value);
  return value;
}
template <typename T>
inline void __stcs(T* to, T value) {
  check_aligned(to);
  std::memcpy(static_cast<void*>(to), &value, sizeof value);
}
template <typename T>
inline void __stwb(T* to, T value) {
  __stcs(to, value);
}

}  // namespace
