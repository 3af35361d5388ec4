// An inner backend that writes down what it is told, and carries tensors between ranks that are
// threads.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <vector>

namespace bluefog::fake {

/// What ranks have sent each other and not yet received.
class Hub {
 public:
  void put(int from, int to, const at::Tensor& tensor);

  /// Waits for the next of an edge's tensors, up to a minute; fails the test where none comes or
  /// its bytes do not fit.
  void take(int from, int to, const at::Tensor& into);

  bool empty();

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<int, int>, std::deque<std::string>> edges_;
};

/// Its calls go to the log of fake_device.h: "start", "send 4 bytes to 1", "receive 4 bytes from
/// 2", "end", "allreduce 1"; waiting for a Work "ordered on 7". As NCCL's, a group is carried out
/// at its end; sends and receives outside of one throw.
class RecordingBackend : public c10d::Backend {
 public:
  RecordingBackend(int rank, int size, std::shared_ptr<Hub> hub)
      : Backend(rank, size), hub_(std::move(hub)) {}

  /// The n-th call from now on throws; 0 is the next.
  void fail_at(int call) { fails_in_ = call; }
  bool group_is_open() const { return open_; }

  const std::string getBackendName() const override { return "recording"; }
  void startCoalescing() override;
  c10::intrusive_ptr<c10d::Work> endCoalescing() override;
  c10::intrusive_ptr<c10d::Work> send(std::vector<at::Tensor>& tensors, int peer, int) override;
  c10::intrusive_ptr<c10d::Work> recv(std::vector<at::Tensor>& tensors, int peer, int) override;
  c10::intrusive_ptr<c10d::Work> allreduce(std::vector<at::Tensor>& tensors,
                                           const c10d::AllreduceOptions&) override;

 private:
  void write_down(const std::string& call);

  const std::shared_ptr<Hub> hub_;
  int fails_in_ = -1;
  bool open_ = false;
  std::vector<std::function<void()>> sends_, receives_;
};

}  // namespace bluefog::fake
