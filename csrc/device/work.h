// The handle of a neighbor operation on a device: it orders streams, and the host waits for
// nothing.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <memory>
#include <mutex>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace bluefog::device {

using Tensors = std::vector<at::Tensor>;
using WorkPtr = c10::intrusive_ptr<c10d::Work>;

/// What an operation has enqueued: where, and what must stay alive for it.
struct Enqueued {
  c10::Stream from;  // the caller's, where the memory was allocated
  c10::Stream on;    // where the results come into being
  c10::Event end;    // on `on`, behind the last of it
  WorkPtr moved;     // the exchange below; null where nothing was exchanged
  Tensors outputs;
  Tensors held;  // inputs, receive buffers and outputs
};

/// As ProcessGroupNCCL's: wait() makes the current stream wait for the end, and returns. It throws
/// where the exchange is known to have failed by then. Thread-safe.
class StreamWork : public c10d::Work {
 public:
  StreamWork(int rank, Enqueued enqueued);

  /// Memory that nobody has waited for is given to the allocator with a word on which stream still
  /// uses it.
  ~StreamWork() override;

  /// Whether the device has finished. Not while a CUDA graph is captured.
  bool isCompleted() override;
  bool isSuccess() const override;
  std::exception_ptr exception() const override;

  /// With a timeout the exchange below decides what it means: ProcessGroupNCCL blocks the host
  /// then, and throws when it is over.
  bool wait(std::chrono::milliseconds timeout) override;
  void synchronize() override;
  std::vector<at::Tensor> result() override { return enqueued_.outputs; }

  /// Complete at once; its wait() and its callbacks' streams are ordered behind the end.
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;
  void abort() override;

 private:
  void let_go(bool ordered);

  Enqueued enqueued_;  // `held` under mutex_
  std::mutex mutex_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;  // under mutex_
};

/// Tells the allocator that `stream` uses the tensor's memory, which another stream allocated.
void record_use(const at::Tensor& tensor, c10::Stream stream);

}  // namespace bluefog::device
