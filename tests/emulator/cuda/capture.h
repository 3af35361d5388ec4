// Stream capture: what is enqueued on captured streams becomes a graph's work, in the order of the
// calls, which is one of the orders that its edges allow.
#pragma once

#include <cuda_runtime_api.h>

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

namespace emulator {

using Work = std::function<void()>;

/// One capture, from cudaStreamBeginCapture to cudaStreamEndCapture.
struct Capture {
  unsigned long long id;
  cudaStreamCaptureMode mode;
  std::thread::id thread;
  cudaGraph_t graph;

  std::mutex mutex;
  std::vector<Work> work;
  std::atomic<bool> ended{false};
  std::atomic<bool> invalid{false};
};
using CapturePtr = std::shared_ptr<Capture>;

/// cudaErrorStreamCaptureUnsupported where the calling thread may not make a call that CUDA calls
/// potentially unsafe, because of a capture of its own or, in the global mode, of any thread; that
/// capture is then invalid.
cudaError_t check_unsafe_call();

/// The rest of what a capture forbids: to wait on the host for a stream or event that is in it.
cudaError_t check_not_capturing(cudaStream_t stream);

}  // namespace emulator
