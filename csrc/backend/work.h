// The handle of a neighbor operation in c10d's terms.
#pragma once

#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace bluefog {

/// Completed by the executor's thread. wait(), isCompleted() and exception() are c10d::Work's own.
class NeighborWork : public c10d::Work {
 public:
  /// `title` appears in torch.profiler; `inputs` are recorded with it.
  /// `outputs` is filled by the time of complete().
  NeighborWork(int rank, const char* title, const std::vector<at::Tensor>& inputs,
               std::shared_ptr<const std::vector<at::Tensor>> outputs);

  /// The output tensors; of an allgather they exist once it is complete.
  std::vector<at::Tensor> result() override;

  /// A Future of List[Tensor], as DDP's communication hooks expect.
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;

  void complete(std::exception_ptr error);

 private:
  const std::shared_ptr<const std::vector<at::Tensor>> outputs_;
  c10::intrusive_ptr<c10::ivalue::Future> future_;
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
