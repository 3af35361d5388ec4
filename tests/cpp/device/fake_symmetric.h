// torch's symmetric memory among threads of this process, for tensors of the CPU: each thread is a
// rank, and what a device would do in the order of a stream it does at once. A signal that cannot
// be put or is not there blocks the thread, so a wrong order deadlocks here as it would on devices;
// with a deadline, after which it throws.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <deque>
#include <exception>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <torch/csrc/distributed/c10d/symm_mem/SymmetricMemory.hpp>
#include <tuple>
#include <vector>

namespace bluefog::test {

namespace symm = c10d::symmetric_memory;

/// What the ranks of one group have in common.
class FakeHost {
 public:
  explicit FakeHost(int size) : log(size), gathered_(size) {}

  int size() const { return static_cast<int>(log.size()); }

  // Set before the ranks start.
  std::set<int> without_memory;   // whose allocations fail
  std::set<int> without_mapping;  // whose rendezvous fails
  std::set<int> without_access;   // who get a mapping, but not of all

  /// Where the next allocation of a rank is placed, if not where malloc has room.
  std::map<int, void*> next_place;

  /// By rank, what its "stream" was given: "put ready 1" with the channel's number for "ready".
  std::vector<std::vector<std::string>> log;

  bool all_agree(int rank, bool yes) {
    for (void* vote : gather(rank, yes ? this : nullptr)) {
      if (!vote) return false;
    }
    return true;
  }

  /// Signals that were put and not awaited, over all pads.
  std::size_t signals_up() {
    std::lock_guard lock(mutex_);
    std::size_t up = 0;
    for (const Pad& pad : pads_) up += pad.size();
    return up;
  }

  /// Ends all waiting: a rank has failed.
  void give_up() {
    std::lock_guard lock(mutex_);
    given_up_ = true;
    changed_.notify_all();
  }

  /// Runs fn(rank) in a thread each and rethrows the first failure.
  void run(const std::function<void(int)>& fn) {
    std::exception_ptr first;
    std::vector<std::thread> threads;
    for (int rank = 0; rank < size(); ++rank) {
      threads.emplace_back([&, rank] {
        try {
          fn(rank);
        } catch (...) {
          {
            std::lock_guard lock(mutex_);
            if (!first) first = std::current_exception();
          }
          give_up();
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    if (first) std::rethrow_exception(first);
  }

 private:
  friend class FakeSymmetricMemory;
  friend class FakeAllocator;
  using Pad = std::set<std::tuple<int, int, int>>;  // sender, receiver, channel

  template <typename Condition>
  void wait(std::unique_lock<std::mutex>& lock, const std::string& what, Condition&& condition) {
    const bool came =
        changed_.wait_for(lock, std::chrono::seconds(20), [&] { return given_up_ || condition(); });
    if (!came || given_up_) throw std::runtime_error((came ? "given up: " : "deadlock: ") + what);
  }

  std::vector<void*> gather(int rank, void* value) {
    std::unique_lock lock(mutex_);
    wait(lock, "gather", [&] { return taken_ == 0; });
    gathered_[rank] = value;
    ++given_;
    changed_.notify_all();
    wait(lock, "gather", [&] { return given_ == size() || taken_ > 0; });
    if (++taken_ == size()) given_ = taken_ = 0;
    const auto result = gathered_;
    changed_.notify_all();
    return result;
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool given_up_ = false;  // these under mutex_
  std::vector<void*> gathered_;
  int given_ = 0, taken_ = 0;
  std::deque<Pad> pads_;  // one per allocation
};

class FakeSymmetricMemory : public symm::SymmetricMemory {
 public:
  FakeSymmetricMemory(FakeHost& host, int rank, FakeHost::Pad& pad, std::vector<void*> buffers,
                      std::size_t bytes)
      : host_(host), rank_(rank), pad_(pad), buffers_(std::move(buffers)), bytes_(bytes) {
    ++alive;
  }
  ~FakeSymmetricMemory() override { --alive; }

  inline static std::atomic<int> alive{0};

  std::vector<void*> get_buffer_ptrs() override { return buffers_; }
  std::vector<void*> get_signal_pad_ptrs() override { return buffers_; }
  void** get_buffer_ptrs_dev() override { throw std::logic_error("not of use here"); }
  void** get_signal_pad_ptrs_dev() override { throw std::logic_error("not of use here"); }
  std::size_t get_buffer_size() override { return bytes_; }
  std::size_t get_offset() override { return 0; }
  bool has_multicast_support() override { return false; }
  void* get_multicast_ptr() override { return nullptr; }
  int get_rank() override { return rank_; }
  int get_world_size() override { return host_.size(); }
  c10::Device get_device() override { return c10::kCPU; }
  bool world_within_direct_access() override { return !host_.without_access.contains(rank_); }

  void barrier(int, std::size_t) override { throw std::logic_error("not of use here"); }
  void put_signal(int to, int channel, std::size_t) override {
    std::unique_lock lock(host_.mutex_);
    const auto what = note("put", channel, to);
    host_.wait(lock, what, [&] { return !pad_.contains({rank_, to, channel}); });
    pad_.insert({rank_, to, channel});
    host_.changed_.notify_all();
  }
  void wait_signal(int from, int channel, std::size_t) override {
    std::unique_lock lock(host_.mutex_);
    const auto what = note("wait", channel, from);
    host_.wait(lock, what, [&] { return pad_.contains({from, rank_, channel}); });
    pad_.erase({from, rank_, channel});
    host_.changed_.notify_all();
  }

 private:
  std::string note(const char* verb, int channel, int peer) {
    host_.log[rank_].push_back(std::string(verb) + " " + std::to_string(channel) + " " +
                               std::to_string(peer));
    return "rank " + std::to_string(rank_) + " " + host_.log[rank_].back();
  }

  FakeHost& host_;
  const int rank_;
  FakeHost::Pad& pad_;
  const std::vector<void*> buffers_;
  const std::size_t bytes_;
};

/// torch's allocator of symmetric memory for the CPU. The ranks of a process have a group name
/// each.
class FakeAllocator : public symm::SymmetricMemoryAllocator {
 public:
  static FakeAllocator& instance() {
    static const auto allocator = [] {
      auto made = c10::make_intrusive<FakeAllocator>();
      symm::register_allocator(c10::kCPU, made);
      return made;
    }();
    return *allocator;
  }

  /// The name of the group for this rank.
  std::string introduce(FakeHost& host, int rank) {
    std::lock_guard lock(mutex_);
    const std::string name = "group " + std::to_string(members_.size());
    members_.emplace(name, std::pair(&host, rank));
    return name;
  }

  std::size_t blocks() {
    std::lock_guard lock(mutex_);
    return blocks_.size();
  }

  void* alloc(std::size_t bytes, int, const std::optional<std::string>& group) override {
    const auto [host, rank] = member(*group);
    if (host->without_memory.contains(rank)) throw std::runtime_error("out of memory");
    std::lock_guard lock(mutex_);
    const auto place = host->next_place.find(rank);
    const bool placed = place != host->next_place.end();
    void* block = placed ? place->second : std::malloc(bytes);
    blocks_[block] = {bytes, placed};
    return block;
  }
  void free(void* block) override {
    std::lock_guard lock(mutex_);
    if (!blocks_.at(block).placed) std::free(block);
    blocks_.erase(block);
  }
  std::size_t get_alloc_size(void* block) override {
    std::lock_guard lock(mutex_);
    return blocks_.at(block).bytes;
  }
  c10::intrusive_ptr<symm::SymmetricMemory> rendezvous(
      void* block, const std::optional<std::string>& group) override {
    const auto [host, rank] = member(*group);
    const auto buffers = host->gather(rank, block);
    FakeHost::Pad* pad = nullptr;
    if (rank == 0) {
      std::lock_guard lock(host->mutex_);
      pad = &host->pads_.emplace_back();
    }
    pad = static_cast<FakeHost::Pad*>(host->gather(rank, pad)[0]);
    if (host->without_mapping.contains(rank)) throw std::runtime_error("cannot map");
    return c10::make_intrusive<FakeSymmetricMemory>(*host, rank, *pad, buffers,
                                                    get_alloc_size(block));
  }
  bool has_multicast_support(int) override { return false; }
  c10::DeviceType supported_device_type() override { return c10::kCPU; }
  std::string name() override { return "fake"; }

 private:
  struct Block {
    std::size_t bytes;
    bool placed;  // by a test, whose memory it is
  };

  std::pair<FakeHost*, int> member(const std::string& group) {
    std::lock_guard lock(mutex_);
    return members_.at(group);
  }

  std::mutex mutex_;
  std::map<std::string, std::pair<FakeHost*, int>> members_;  // these under mutex_
  std::map<void*, Block> blocks_;
};

}  // namespace bluefog::test
