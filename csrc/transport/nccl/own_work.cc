#include "transport/nccl/own_work.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

namespace bluefog::nccl {

OwnWork::OwnWork(int rank, c10::Stream on, c10::Event end, std::vector<at::Tensor> tensors,
                 std::uint64_t sequence, bool captured)
    : Work(rank, c10d::OpType::COALESCED),
      on_(on),
      end_(std::move(end)),
      sequence_(sequence),
      tensors_(std::move(tensors)) {
  if (captured) this->end(nullptr);
}

OwnWork::~OwnWork() {
  try {
    const c10::impl::VirtualGuardImpl impl(on_.device_type());
    for (const at::Tensor& tensor : tensors_) {
      impl.recordDataPtrOnStream(tensor.storage().data_ptr(), on_);
    }
  } catch (...) {  // the device is lost, and its memory with it
  }
}

bool OwnWork::isCompleted() {
  if (Work::isCompleted()) return true;
  if (!reached()) return false;
  end(nullptr);
  return true;
}

bool OwnWork::isSuccess() const {
  std::lock_guard lock(mutex_);
  return completed_ && !exception_;
}

bool OwnWork::wait(std::chrono::milliseconds) {
  synchronize();
  return true;
}

void OwnWork::synchronize() {
  if (const auto error = exception()) std::rethrow_exception(error);
  const c10::impl::VirtualGuardImpl impl(on_.device_type());
  end_.block(impl.getStream(on_.device()));
  std::vector<at::Tensor> tensors;
  std::lock_guard lock(mutex_);
  tensors.swap(tensors_);
}

void OwnWork::end(std::exception_ptr error) {
  std::call_once(ended_, [&] { finish(error); });
}

}  // namespace bluefog::nccl
