// The handle of an operation of the executor in c10d's terms.
#pragma once

#include <mutex>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace bluefog {

/// Ended and completed by the executor's threads. wait(), isCompleted() and exception() are
/// c10d::Work's own.
class OperationWork : public c10d::Work {
 public:
  /// `title` appears in torch.profiler; `inputs` are recorded with it.
  /// `outputs` is filled by the time of end().
  OperationWork(int rank, c10d::OpType type, const char* title,
                const std::vector<at::Tensor>& inputs,
                std::shared_ptr<const std::vector<at::Tensor>> outputs);

  /// The output tensors; of an allgather they exist once it is complete.
  std::vector<at::Tensor> result() override;

  /// A Future of List[Tensor], as DDP's communication hooks expect. Its callbacks may start
  /// operations of the group and wait for them.
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;

  /// The operation is over. Who waits for it goes on, unless somebody has asked for the future:
  /// then only after complete(), which runs the callbacks.
  void end(std::exception_ptr error);
  void complete();

 private:
  void settle(c10::ivalue::Future& future) const;

  const std::shared_ptr<const std::vector<at::Tensor>> outputs_;
  std::mutex future_mutex_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;  // under future_mutex_; null until asked for
  bool ended_ = false;                              // under future_mutex_
  bool finished_ = false;                           // by end(); touched by the executor only
  std::exception_ptr error_;                        // set by end()
};

/// Several operations as one: what endCoalescing() returns.
class CoalescedWork : public c10d::Work {
 public:
  explicit CoalescedWork(std::vector<c10::intrusive_ptr<c10d::Work>> works);

  bool isCompleted() override;
  bool isSuccess() const override;
  std::exception_ptr exception() const override;
  bool wait(std::chrono::milliseconds timeout) override;
  void synchronize() override;
  std::vector<at::Tensor> result() override;

 private:
  std::vector<c10::intrusive_ptr<c10d::Work>> works_;
};

}  // namespace bluefog
