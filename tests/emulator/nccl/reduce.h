// The arithmetic of NCCL's reductions.
#pragma once

#include <cstddef>
#include <vector>

#include "nccl/api.h"

namespace emulator::nccl {

/// 0 for what is no type.
std::size_t size_of(ncclDataType_t type);

/// The elements of all inputs by `op`, one of NCCL's own, in the inputs' order. 16-bit and 8-bit
/// floating point is rounded once, at the end. `result` may be an input.
void reduce(void* result, const std::vector<const void*>& inputs, std::size_t count,
            ncclDataType_t type, ncclRedOp_t op);

/// `scalar` is of the same type.
void scale(void* result, const void* input, const void* scalar, std::size_t count,
           ncclDataType_t type);

}  // namespace emulator::nccl
