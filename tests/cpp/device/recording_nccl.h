// An NcclApi that writes down its calls, fails on demand, and notices misuse: calls on a
// communicator that is gone, sends outside of a group, a group, a communicator or memory left
// behind. Puts write at once into the windows of other ranks, where these use the same recorder.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <functional>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "base/error.h"
#include "transport/nccl/api.h"

namespace bluefog::fake {

/// Thread-safe, but for the knobs: set them while no call is under way.
class RecordingNccl : public nccl::NcclApi {
 public:
  using Result = nccl::Result;
  using Comm = nccl::Comm;
  using Window = nccl::Window;

  ~RecordingNccl() override {
    for (const auto& [memory, bytes] : memory_) delete[] memory;
  }

  // Knobs.
  int version_number = 23007;
  int fail_at = 0;  // the call, counted from 1, that returns fail_with; 0 for none
  Result fail_with = Result::kSystemError;
  bool no_windows = false;                // whether registering one gives none
  int polls = 0;                          // times that a call's result is in progress; -1 for ever
  Result async_state = Result::kSuccess;  // and then this
  std::function<void(const std::string&)> also;  // told of every call
  std::function<void()> on_poll;                 // called in comm_get_async_error

  // What happened.
  std::vector<std::string> log() const {
    std::lock_guard lock(mutex_);
    return log_;
  }
  int count(const std::string& prefix) const {
    const auto lines = log();
    return std::ranges::count_if(lines, [&](const auto& line) { return line.starts_with(prefix); });
  }
  bool injected() const { return injected_; }
  std::vector<nccl::UniqueId> ids;
  std::vector<nccl::Config> configs;

  /// Signals raised and not waited for.
  int signals_left() const {
    std::lock_guard lock(mutex_);
    int left = 0;
    for (const auto& [edge, raised] : signals_) left += raised;
    return left;
  }

  int made() const { return static_cast<int>(ended_.size()); }

  /// Empty where every communicator has ended once, no group is open and all memory is free.
  std::vector<std::string> misuse() const {
    std::lock_guard lock(mutex_);
    auto all = misuse_;
    if (depth_ != 0) all.push_back("a group is open");
    if (!memory_.empty()) all.push_back("memory is left");
    for (std::size_t i = 0; i < ended_.size(); ++i) {
      if (ended_[i] != 1) all.push_back(concat("communicator ", i + 1, " ended ", ended_[i], "x"));
    }
    return all;
  }

  int version() const override { return version_number; }
  bool has_max_p2p_peers() const override { return version_number >= 23000; }
  bool has_put_signal() const override { return version_number >= 22900; }

  Result get_unique_id(nccl::UniqueId& id) override {
    std::lock_guard lock(mutex_);
    const Result result = call("id");
    for (std::size_t i = 0; i < id.bytes.size(); ++i) id.bytes[i] = static_cast<char>(i * 7 + 1);
    return result;
  }
  Result comm_init_rank(Comm& comm, int size, const nccl::UniqueId& id, int rank,
                        const nccl::Config& config) override {
    std::lock_guard lock(mutex_);
    const Result result = call(concat("init ", rank, " of ", size));
    ids.push_back(id);
    configs.push_back(config);
    if (result == Result::kSuccess) comm = make(rank);
    return later(result);
  }
  Result comm_split(Comm parent, int color, int key, Comm& child,
                    const nccl::Config& config) override {
    std::lock_guard lock(mutex_);
    use(parent);
    const Result result = call(concat("split ", number(parent), " color ", color, " key ", key));
    configs.push_back(config);
    if (result != Result::kSuccess) return result;
    child_ = &child;
    child_rank_ = key;
    if (polls == 0) deliver();
    return later(result);
  }
  Result comm_get_async_error(Comm comm, Result& state) override {
    if (on_poll) on_poll();
    std::lock_guard lock(mutex_);
    use(comm);
    const Result result = call(concat("poll ", number(comm)));
    state = polls_left_ == 0 ? async_state : Result::kInProgress;
    if (polls_left_ == 0) deliver();
    if (polls_left_ > 0) --polls_left_;
    return result;
  }
  Result comm_finalize(Comm comm) override {
    std::lock_guard lock(mutex_);
    use(comm);
    return later(call(concat("finalize ", number(comm))));
  }
  Result comm_destroy(Comm comm) override { return end(comm, "destroy "); }
  Result comm_abort(Comm comm) override { return end(comm, "abort "); }

  Result send(const void* data, std::size_t bytes, int peer, Comm comm, void* stream) override {
    return message("send ", data, bytes, " to ", peer, comm, stream);
  }
  Result recv(void* data, std::size_t bytes, int peer, Comm comm, void* stream) override {
    return message("recv ", data, bytes, " from ", peer, comm, stream);
  }
  Result group_start() override {
    std::lock_guard lock(mutex_);
    const Result result = call("start");
    if (result == Result::kSuccess) ++depth_;
    return result;
  }
  Result group_end() override {
    std::lock_guard lock(mutex_);
    if (depth_ != 1) misuse_.push_back("end of a group that is not there");
    --depth_;
    return later(call("end"));
  }

  Result mem_alloc(void*& memory, std::size_t bytes) override {
    std::lock_guard lock(mutex_);
    const Result result = call(concat("alloc ", bytes));
    if (result != Result::kSuccess) return result;
    memory = new std::byte[bytes]();
    memory_[static_cast<std::byte*>(memory)] = bytes;
    return result;
  }
  Result mem_free(void* memory) override {
    std::lock_guard lock(mutex_);
    for (const auto& [comm, window] : windows_) {
      if (window == memory && ended_[number(comm) - 1] == 0) {
        misuse_.push_back("free of a window");
      }
    }
    if (memory_.erase(static_cast<std::byte*>(memory)) == 0) misuse_.push_back("free of nothing");
    delete[] static_cast<std::byte*>(memory);
    return call("free");
  }
  Result window_register(Comm comm, void* memory, std::size_t bytes, Window& window) override {
    std::lock_guard lock(mutex_);
    use(comm);
    const Result result = call(concat("register ", bytes, " with ", number(comm)));
    if (memory_.at(static_cast<std::byte*>(memory)) < bytes) misuse_.push_back("window of less");
    if (result != Result::kSuccess) return result;
    windows_[comm] = static_cast<std::byte*>(memory);
    window_ = no_windows ? nullptr : &window;
    registered_ = comm;
    if (polls == 0) deliver();
    return later(result);
  }
  Result window_deregister(Comm comm, Window window) override {
    std::lock_guard lock(mutex_);
    use(comm);
    if (window == nullptr || windows_.erase(comm) == 0) misuse_.push_back("window of nothing");
    return later(call(concat("deregister ", number(comm))));
  }
  Result put_signal(const void* data, std::size_t bytes, int peer, Window, std::size_t offset,
                    Comm comm, void* stream) override {
    std::lock_guard lock(mutex_);
    use(comm);
    const Result result = call(concat("put ", bytes, " to ", peer, " at ", offset, on(stream)));
    if (result != Result::kSuccess) return result;
    const auto from = static_cast<const std::byte*>(data);
    if (from < windows_[comm] || from + bytes > windows_[comm] + memory_[windows_[comm]]) {
      misuse_.push_back("put from outside of the window");
    }
    for (const auto& [other, window] : windows_) {
      if (ranks_[number(other) - 1] != peer) continue;
      if (offset + bytes > memory_[window]) misuse_.push_back("put beyond the window");
      std::memcpy(window + offset, data, bytes);
    }
    ++signals_[{ranks_[number(comm) - 1], peer}];
    return later(result);
  }
  Result signal(int peer, Comm comm, void* stream) override {
    std::lock_guard lock(mutex_);
    use(comm);
    ++signals_[{ranks_[number(comm) - 1], peer}];
    return later(call(concat("signal to ", peer, on(stream))));
  }
  Result wait_signal(int peer, Comm comm, void* stream) override {
    std::lock_guard lock(mutex_);
    use(comm);
    --signals_[{peer, ranks_[number(comm) - 1]}];
    return later(call(concat("wait for ", peer, on(stream))));
  }

  std::string error_string(Result result) override {
    return concat("result ", static_cast<int>(result));
  }
  std::string last_error(Comm) override { return "the last error"; }

 private:
  static int number(Comm comm) { return static_cast<int>(reinterpret_cast<std::intptr_t>(comm)); }

  Result call(const std::string& line) {
    log_.push_back(line);
    if (also) also(line);
    if (++calls_ != fail_at) return Result::kSuccess;
    injected_ = true;
    return fail_with;
  }
  Result later(Result result) {
    if (result != Result::kSuccess || polls == 0) return result;
    polls_left_ = polls;
    return Result::kInProgress;
  }
  Comm make(int rank) {
    ended_.push_back(0);
    ranks_.push_back(rank);
    return reinterpret_cast<Comm>(ended_.size());
  }
  void deliver() {
    if (child_ != nullptr) *child_ = make(child_rank_);
    child_ = nullptr;
    if (window_ != nullptr) *window_ = reinterpret_cast<Window>(registered_);
    window_ = nullptr;
  }
  void use(Comm comm) {
    if (comm == nullptr || ended_[number(comm) - 1] != 0) {
      misuse_.push_back(concat("use of communicator ", number(comm)));
    }
  }
  Result end(Comm comm, const char* how) {
    std::lock_guard lock(mutex_);
    use(comm);
    if (comm != nullptr) ++ended_[number(comm) - 1];
    child_ = nullptr;
    if (comm == registered_) window_ = nullptr;
    return call(concat(how, number(comm)));
  }
  Result message(const char* what, const void* data, std::size_t bytes, const char* direction,
                 int peer, Comm comm, void* stream) {
    std::lock_guard lock(mutex_);
    use(comm);
    if (depth_ != 1) misuse_.push_back("message outside of a group");
    if (data == nullptr || bytes == 0) misuse_.push_back("message of nothing");
    return call(concat(what, bytes, direction, peer, on(stream)));
  }
  static std::string on(void* stream) {
    return concat(" on ", reinterpret_cast<std::intptr_t>(stream));
  }

  mutable std::mutex mutex_;
  std::vector<std::string> log_, misuse_;
  std::vector<int> ended_;  // by communicator: how often
  std::vector<int> ranks_;  // by communicator
  Comm* child_ = nullptr;   // of a split under way
  int child_rank_ = 0;
  std::map<std::byte*, std::size_t> memory_;    // what mem_alloc() gave, and its size
  std::map<Comm, std::byte*> windows_;          // one a communicator
  Window* window_ = nullptr;                    // of a registration under way, and its
  Comm registered_ = nullptr;                   // communicator
  std::map<std::pair<int, int>, int> signals_;  // by edge: raised, less those waited for
  int calls_ = 0, depth_ = 0, polls_left_ = 0;
  bool injected_ = false;
};

/// The Error that fn() throws. Fails the test where it throws none.
inline Error thrown_by(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return error;
  }
  throw std::runtime_error("nothing was thrown");
}

}  // namespace bluefog::fake
