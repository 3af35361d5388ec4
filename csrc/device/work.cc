#include "device/work.h"

#include <ATen/core/jit_type.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

namespace bluefog::device {

void record_use(const at::Tensor& tensor, c10::Stream stream) {
  if (!tensor.has_storage()) return;
  const c10::impl::VirtualGuardImpl guard(stream.device_type());
  guard.recordDataPtrOnStream(tensor.storage().data_ptr(), stream);
}

StreamWork::StreamWork(int rank, Enqueued enqueued)
    : Work(rank, c10d::OpType::UNKNOWN), enqueued_(std::move(enqueued)) {}

StreamWork::~StreamWork() { let_go(false); }

bool StreamWork::isCompleted() { return exception() || enqueued_.end.query(); }

bool StreamWork::isSuccess() const { return !exception() && enqueued_.end.query(); }

std::exception_ptr StreamWork::exception() const {
  return enqueued_.moved ? enqueued_.moved->exception() : nullptr;
}

bool StreamWork::wait(std::chrono::milliseconds timeout) {
  if (timeout != kNoTimeout && enqueued_.moved) enqueued_.moved->wait(timeout);
  synchronize();
  return true;
}

void StreamWork::synchronize() {
  if (const auto error = exception()) std::rethrow_exception(error);
  const auto current =
      c10::impl::VirtualGuardImpl(enqueued_.on.device_type()).getStream(enqueued_.on.device());
  enqueued_.end.block(current);
  let_go(current == enqueued_.from);
}

// The stream that allocated the memory takes it for free as soon as the host lets go of it.
void StreamWork::let_go(bool ordered) {
  Tensors held;
  {
    std::lock_guard lock(mutex_);
    held.swap(enqueued_.held);
  }
  if (ordered || enqueued_.on == enqueued_.from) return;
  for (const at::Tensor& tensor : held) record_use(tensor, enqueued_.on);
}

c10::intrusive_ptr<c10::ivalue::Future> StreamWork::getFuture() {
  std::lock_guard lock(mutex_);
  if (!future_) {
    future_ = c10::make_intrusive<c10::ivalue::Future>(
        c10::ListType::create(c10::TensorType::get()), std::vector{enqueued_.on.device()});
    const c10::StreamGuard guard(enqueued_.on);
    future_->markCompleted(at::IValue(enqueued_.outputs));
  }
  return future_;
}

void StreamWork::abort() {
  if (enqueued_.moved) enqueued_.moved->abort();
}

}  // namespace bluefog::device
