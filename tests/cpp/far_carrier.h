// What moves parcels between devices whose memory is far: NCCL, as it were.
#pragma once

#include <condition_variable>
#include <set>

#include "base/error.h"
#include "far_memory.h"
#include "window/carrier.h"

namespace bluefog::test {

/// What the ranks of a test have in common. Puts land at once, and are seen by those who await
/// them.
class FarNetwork {
 public:
  FarNetwork(FarMemory& memory, int size) : memory_(memory), outgoing_(size), landing_(size) {}

  std::shared_ptr<window::Carrier> carrier(int rank, const std::vector<int>& neighbors,
                                           std::size_t nbytes);

  /// Waits of this rank fail from now on.
  void cut_off(int rank) {
    const std::lock_guard lock(mutex_);
    cut_off_.insert(rank);
    changed_.notify_all();
  }

  /// What is put from now on lands nowhere.
  void lose_puts(bool lose) {
    const std::lock_guard lock(mutex_);
    loses_puts_ = lose;
  }

  /// Frees all memory; carriers can be used no more.
  void free() {
    for (auto* all : {&outgoing_, &landing_}) {
      for (auto& of_rank : *all) of_rank.clear();
    }
  }

 private:
  class Carrier;
  using Slots = std::vector<std::map<int, window::Bytes>>;  // by rank and peer

  FarMemory& memory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  Slots outgoing_, landing_;              // these under mutex_
  std::set<std::pair<int, int>> landed_;  // from, to
  std::set<int> cut_off_;
  bool loses_puts_ = false;
};

class FarNetwork::Carrier : public window::Carrier {
 public:
  Carrier(FarNetwork& network, int rank, std::size_t nbytes)
      : network_(network), rank_(rank), nbytes_(nbytes) {}

  std::byte* outgoing(int to) const override { return find(network_.outgoing_, rank_, to); }
  std::byte* landing(int from) const override { return find(network_.landing_, rank_, from); }

  void put(int to) override {
    const FarMemory& memory = network_.memory_;
    std::memcpy(memory.near(find(network_.landing_, to, rank_), nbytes_),
                memory.near(outgoing(to), nbytes_), nbytes_);
    const std::lock_guard lock(network_.mutex_);
    if (network_.loses_puts_) return;
    EXPECT_TRUE(network_.landed_.insert({rank_, to}).second) << "two puts on one edge at once";
    network_.changed_.notify_all();
  }

  void await(int from) override {
    std::unique_lock lock(network_.mutex_);
    const auto is_cut_off = [&] { return network_.cut_off_.contains(rank_); };
    network_.changed_.wait(lock, [&] {
      return stopped_ || is_cut_off() || network_.landed_.erase({from, rank_}) > 0;
    });
    if (is_cut_off()) fail(ErrorCode::kSystem, "rank ", rank_, " is cut off");
    if (stopped_) fail(ErrorCode::kAborted, "rank ", rank_, " has stopped");
  }

  void stop() noexcept override {
    const std::lock_guard lock(network_.mutex_);
    stopped_ = true;
    network_.changed_.notify_all();
  }

 private:
  std::byte* find(const Slots& all, int rank, int peer) const {
    const std::lock_guard lock(network_.mutex_);
    return all[rank].at(peer).get();
  }

  FarNetwork& network_;
  const int rank_;
  const std::size_t nbytes_;
  bool stopped_ = false;  // under the network's mutex
};

inline std::shared_ptr<window::Carrier> FarNetwork::carrier(int rank,
                                                            const std::vector<int>& neighbors,
                                                            std::size_t nbytes) {
  for (int peer : neighbors) {
    const std::lock_guard lock(mutex_);
    outgoing_[rank][peer] = memory_.allocate(nbytes);
    landing_[rank][peer] = memory_.allocate(nbytes);
  }
  return std::make_shared<Carrier>(*this, rank, nbytes);
}

}  // namespace bluefog::test
