// The handle of a round that OwnWire has enqueued.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <mutex>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace bluefog::nccl {

/// wait() makes the current stream of its thread wait for the end, never the host, whatever the
/// timeout. A stream that waits for a round which fails later goes on once it is aborted; the
/// work and the wire's next call tell of it. Thread-safe: the event is recorded before, and only
/// asked and waited for here.
///
/// Holds the tensors until somebody waits: from then on that stream is behind the round, and they
/// are the caller's to keep as with any other use. Where nobody has waited, the allocator is told
/// at the end that `on` uses their memory: as a rule for all of them that would keep memory from
/// being used again for longer.
class OwnWork final : public c10d::Work {
 public:
  /// `end` is recorded on `on`. The end of a captured round is never asked for: to the host it is
  /// complete at once.
  OwnWork(int rank, c10::Stream on, c10::Event end, std::vector<at::Tensor> tensors,
          std::uint64_t sequence, bool captured);
  ~OwnWork() override;

  bool isCompleted() override;
  bool isSuccess() const override;
  bool wait(std::chrono::milliseconds timeout = kNoTimeout) override;
  void synchronize() override;
  std::uint64_t getSequencenumber() const override { return sequence_; }

  /// Whether the device is done, whatever the work has been told.
  bool reached() const { return end_.query(); }

  /// The first call counts; `error` is null where all went well.
  void end(std::exception_ptr error);

 private:
  const c10::Stream on_;
  const c10::Event end_;
  const std::uint64_t sequence_;
  std::once_flag ended_;
  std::vector<at::Tensor> tensors_;  // under Work's mutex_
};

}  // namespace bluefog::nccl
