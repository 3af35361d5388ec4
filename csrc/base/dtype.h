// Element types that can be averaged. Operations that only move bytes do not need one.
#pragma once

#include <cstddef>
#include <cstdint>

namespace bluefog {

enum class DType : std::uint8_t { kFloat16, kBFloat16, kFloat32, kFloat64 };

constexpr std::size_t size_of(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
    case DType::kBFloat16:
      return 2;
    case DType::kFloat32:
      return 4;
    case DType::kFloat64:
      return 8;
  }
  return 0;
}

}  // namespace bluefog
