// The emulated GPU's streams, for those parts of it that enqueue work of their own: NCCL, kernels,
// torch's operators. A stream is a queue with a thread that does its work in order; what
// cudaLaunchKernel, cudaMemcpyAsync and the others enqueue goes the same way.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>

namespace emulator {

#define EMULATOR_API __attribute__((visibility("default")))

/// Puts `work` behind all that `stream` has been given, or into the graph that it is captured in.
/// Work may block, which then keeps what is behind it on this stream; it must not throw, and runs
/// again each time a graph that holds it is launched.
EMULATOR_API void enqueue(cudaStream_t stream, std::function<void()> work);

EMULATOR_API bool is_capturing(cudaStream_t stream);

EMULATOR_API int device_of(cudaStream_t stream);

/// Waits on the host until `stream` has done everything. Not while it is captured.
EMULATOR_API void synchronize(cudaStream_t stream);

}  // namespace emulator
