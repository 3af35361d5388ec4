#include "nccl/reduce.h"

#include <algorithm>
#include <cstdint>
#include <type_traits>

namespace emulator::nccl {
namespace {

/// What elements are computed in. Integers wrap around as a GPU's do.
template <typename T>
using Computed = std::conditional_t<std::is_arithmetic_v<T>, T, float>;

template <typename T>
T sum(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<std::uint64_t>(a) + static_cast<std::uint64_t>(b));
  } else {
    return a + b;
  }
}

template <typename T>
T product(T a, T b) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<T>(static_cast<std::uint64_t>(a) * static_cast<std::uint64_t>(b));
  } else {
    return a * b;
  }
}

template <typename T>
T apply(ncclRedOp_t op, T a, T b) {
  switch (op) {
    case ncclProd:
      return product(a, b);
    case ncclMax:
      return std::max(a, b);
    case ncclMin:
      return std::min(a, b);
    default:
      return sum(a, b);
  }
}

/// Calls `work` with a value of the C++ type.
template <typename Work>
void with_type(ncclDataType_t type, Work&& work) {
  switch (type) {
    case ncclInt8:
      return work(std::int8_t{});
    case ncclUint8:
      return work(std::uint8_t{});
    case ncclInt32:
      return work(std::int32_t{});
    case ncclUint32:
      return work(std::uint32_t{});
    case ncclInt64:
      return work(std::int64_t{});
    case ncclUint64:
      return work(std::uint64_t{});
    case ncclFloat16:
      return work(__half{});
    case ncclFloat32:
      return work(float{});
    case ncclFloat64:
      return work(double{});
    case ncclBfloat16:
      return work(__nv_bfloat16{});
    case ncclFloat8e4m3:
      return work(__nv_fp8_e4m3{});
    case ncclFloat8e5m2:
      return work(__nv_fp8_e5m2{});
    default:
      return;
  }
}

}  // namespace

std::size_t size_of(ncclDataType_t type) {
  std::size_t size = 0;
  with_type(type, [&](auto example) { size = sizeof(example); });
  return size;
}

void reduce(void* result, const std::vector<const void*>& inputs, std::size_t count,
            ncclDataType_t type, ncclRedOp_t op) {
  with_type(type, [&](auto example) {
    using T = decltype(example);
    using C = Computed<T>;
    for (std::size_t i = 0; i < count; ++i) {
      C value = static_cast<C>(static_cast<const T*>(inputs[0])[i]);
      for (std::size_t input = 1; input < inputs.size(); ++input) {
        value = apply(op, value, static_cast<C>(static_cast<const T*>(inputs[input])[i]));
      }
      if (op == ncclAvg) value = static_cast<C>(value / static_cast<C>(inputs.size()));
      static_cast<T*>(result)[i] = static_cast<T>(value);
    }
  });
}

void scale(void* result, const void* input, const void* scalar, std::size_t count,
           ncclDataType_t type) {
  with_type(type, [&](auto example) {
    using T = decltype(example);
    using C = Computed<T>;
    const C factor = static_cast<C>(*static_cast<const T*>(scalar));
    for (std::size_t i = 0; i < count; ++i) {
      const C value = static_cast<C>(static_cast<const T*>(input)[i]);
      static_cast<T*>(result)[i] = static_cast<T>(product(value, factor));
    }
  });
}

}  // namespace emulator::nccl
