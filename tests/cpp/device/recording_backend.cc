#include "device/recording_backend.h"

#include <gtest/gtest.h>

#include <cstring>
#include <stdexcept>
#include <utility>

#include "base/error.h"
#include "device/fake_device.h"

namespace bluefog::fake {
namespace {

class OrderingWork : public c10d::Work {
 public:
  bool isCompleted() override { return true; }
  bool wait(std::chrono::milliseconds) override {
    synchronize();
    return true;
  }
  void synchronize() override { log().push_back(concat("ordered on ", current_stream())); }
};

}  // namespace

void Hub::put(int from, int to, const at::Tensor& tensor) {
  std::lock_guard lock(mutex_);
  edges_[{from, to}].emplace_back(static_cast<const char*>(tensor.const_data_ptr()),
                                  tensor.nbytes());
  changed_.notify_all();
}

void Hub::take(int from, int to, const at::Tensor& into) {
  std::unique_lock lock(mutex_);
  auto& queue = edges_[{from, to}];
  ASSERT_TRUE(changed_.wait_for(lock, std::chrono::minutes(1), [&] { return !queue.empty(); }))
      << "rank " << to << " waits for rank " << from;
  const std::string bytes = std::move(queue.front());
  queue.pop_front();
  ASSERT_EQ(bytes.size(), into.nbytes()) << "from rank " << from << " to rank " << to;
  std::memcpy(into.mutable_data_ptr(), bytes.data(), bytes.size());
}

bool Hub::empty() {
  std::lock_guard lock(mutex_);
  for (const auto& [edge, queue] : edges_) {
    if (!queue.empty()) return false;
  }
  return true;
}

void RecordingBackend::write_down(const std::string& call) {
  if (fails_in_ >= 0 && fails_in_-- == 0) throw std::runtime_error("refused: " + call);
  log().push_back(call);
}

void RecordingBackend::startCoalescing() {
  write_down("start");
  open_ = true;
}

c10::intrusive_ptr<c10d::Work> RecordingBackend::endCoalescing() {
  open_ = false;
  const auto sends = std::exchange(sends_, {}), receives = std::exchange(receives_, {});
  write_down("end");
  for (const auto& send : sends) send();
  for (const auto& receive : receives) receive();
  return c10::make_intrusive<OrderingWork>();
}

c10::intrusive_ptr<c10d::Work> RecordingBackend::send(std::vector<at::Tensor>& tensors, int peer,
                                                      int) {
  if (!open_) throw std::logic_error("a send outside of a group");
  write_down(concat("send ", tensors[0].nbytes(), " bytes to ", peer));
  sends_.push_back([this, peer, tensor = tensors[0]] { hub_->put(getRank(), peer, tensor); });
  return nullptr;
}

c10::intrusive_ptr<c10d::Work> RecordingBackend::recv(std::vector<at::Tensor>& tensors, int peer,
                                                      int) {
  if (!open_) throw std::logic_error("a receive outside of a group");
  write_down(concat("receive ", tensors[0].nbytes(), " bytes from ", peer));
  receives_.push_back([this, peer, tensor = tensors[0]] { hub_->take(peer, getRank(), tensor); });
  return nullptr;
}

c10::intrusive_ptr<c10d::Work> RecordingBackend::allreduce(std::vector<at::Tensor>& tensors,
                                                           const c10d::AllreduceOptions&) {
  write_down(concat("allreduce ", tensors[0].numel()));
  return c10::make_intrusive<OrderingWork>();
}

}  // namespace bluefog::fake
