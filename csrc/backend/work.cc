#include "backend/work.h"

#include <ATen/core/jit_type.h>

#include <algorithm>
#include <utility>

namespace bluefog {

OperationWork::OperationWork(int rank, c10d::OpType type, const char* title,
                             const std::vector<at::Tensor>& inputs,
                             std::shared_ptr<const std::vector<at::Tensor>> outputs)
    : Work(rank, type, title, inputs), outputs_(std::move(outputs)) {}

std::vector<at::Tensor> OperationWork::result() { return *outputs_; }

c10::intrusive_ptr<c10::ivalue::Future> OperationWork::getFuture() {
  std::lock_guard lock(future_mutex_);
  if (!future_) {
    future_ =
        c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    if (ended_) settle(*future_);
  }
  return future_;
}

void OperationWork::end(std::exception_ptr error) {
  error_ = error;
  {
    std::lock_guard lock(future_mutex_);
    ended_ = true;
    finished_ = !future_;
  }
  if (finished_) finish(error_);
}

// The future first: who returns from wait() finds it done.
void OperationWork::complete() {
  if (finished_) return;
  settle(*future_);
  finish(error_);
}

void OperationWork::settle(c10::ivalue::Future& future) const {
  if (error_) {
    future.setError(error_);
  } else {
    future.markCompleted(at::IValue(*outputs_));
  }
}

CoalescedWork::CoalescedWork(std::vector<c10::intrusive_ptr<c10d::Work>> works)
    : Work(-1, c10d::OpType::COALESCED), works_(std::move(works)) {}

bool CoalescedWork::isCompleted() {
  return std::all_of(works_.begin(), works_.end(), [](auto& work) { return work->isCompleted(); });
}

bool CoalescedWork::isSuccess() const {
  return std::all_of(works_.begin(), works_.end(), [](auto& work) { return work->isSuccess(); });
}

std::exception_ptr CoalescedWork::exception() const {
  for (const auto& work : works_) {
    if (auto error = work->exception()) return error;
  }
  return nullptr;
}

bool CoalescedWork::wait(std::chrono::milliseconds timeout) {
  bool done = true;
  for (auto& work : works_) {
    done = work->wait(timeout) && done;
  }
  return done;
}

void CoalescedWork::synchronize() {
  for (auto& work : works_) {
    work->synchronize();
  }
}

std::vector<at::Tensor> CoalescedWork::result() {
  std::vector<at::Tensor> results;
  for (auto& work : works_) {
    const auto result = work->result();
    results.insert(results.end(), result.begin(), result.end());
  }
  return results;
}

}  // namespace bluefog
