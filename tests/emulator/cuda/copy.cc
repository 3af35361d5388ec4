#include <cstddef>
#include <cstring>
#include <vector>

#include "cuda/device_memory.h"
#include "cuda/stream_state.h"

namespace {

using emulator::find_block;
using emulator::is_pinned;

// As CUDA has it, pageable memory of the host is read before the call returns, and written.
cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaStream_t stream) {
  if (bytes == 0) return cudaSuccess;
  const bool from_pageable = !find_block(from) && !is_pinned(from);
  const bool to_pageable = !find_block(to) && !is_pinned(to);
  if ((from_pageable || to_pageable) && emulator::is_capturing(stream)) {
    return emulator::returned(cudaErrorStreamCaptureUnsupported);
  }
  if (from_pageable) {
    const auto* begin = static_cast<const std::byte*>(from);
    emulator::enqueue(stream, [to, taken = std::vector<std::byte>(begin, begin + bytes)] {
      std::memcpy(to, taken.data(), taken.size());
    });
  } else {
    emulator::enqueue(stream, [=] { std::memmove(to, from, bytes); });
  }
  if (to_pageable) emulator::synchronize(stream);
  return cudaSuccess;
}

}  // namespace

extern "C" {

EMULATOR_API cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind,
                                         cudaStream_t stream) {
  return copy(to, from, bytes, stream);
}
EMULATOR_API cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                             cudaStream_t stream) {
  return copy(to, from, bytes, stream);
}
EMULATOR_API cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind) {
  const cudaError_t error = copy(to, from, bytes, nullptr);
  if (error == cudaSuccess) emulator::synchronize(nullptr);
  return error;
}
EMULATOR_API cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  emulator::enqueue(stream, [=] { std::memset(to, value, bytes); });
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return cudaMemsetAsync(to, value, bytes, nullptr);
}
}
