#include "transport/nccl/inner_wire.h"

#include <ATen/ops/zeros.h>

#include <exception>
#include <utility>

namespace bluefog::nccl {
namespace {

// Holds a coalescing block open, and closes it also where posting fails: the inner backend would
// take everything later for a part of it.
class Coalescing {
 public:
  explicit Coalescing(c10d::Backend& backend) : backend_(backend) { backend_.startCoalescing(); }
  ~Coalescing() {
    if (!open_) return;
    try {
      backend_.endCoalescing();
    } catch (const std::exception&) {  // the first failure is on its way to the caller
    }
  }
  Coalescing(const Coalescing&) = delete;
  Coalescing& operator=(const Coalescing&) = delete;

  c10::intrusive_ptr<c10d::Work> end() {
    open_ = false;
    return backend_.endCoalescing();
  }

 private:
  c10d::Backend& backend_;
  bool open_ = true;
};

}  // namespace

c10::intrusive_ptr<c10d::Work> InnerWire::exchange(const Round& round) {
  Coalescing group(*inner_);
  for (const Transfer& transfer : round.transfers) {
    std::vector<at::Tensor> tensors{transfer.tensor};
    if (transfer.direction == Transfer::kSend) {
      inner_->send(tensors, transfer.peer, 0);
    } else {
      inner_->recv(tensors, transfer.peer, 0);
    }
  }
  return group.end();
}

void InnerWire::connect(at::Device device) {
  std::vector<at::Tensor> number{at::zeros({1}, at::TensorOptions(device))};
  if (const auto work = inner_->allreduce(number)) work->wait();
}

}  // namespace bluefog::nccl
