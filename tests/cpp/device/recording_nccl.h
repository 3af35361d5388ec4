// An NcclApi that writes down its calls, fails on demand, and notices misuse: calls on a
// communicator that is gone, sends outside of a group, a group or a communicator left behind.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
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

  // Knobs.
  int version_number = 23007;
  int fail_at = 0;  // the call, counted from 1, that returns fail_with; 0 for none
  Result fail_with = Result::kSystemError;
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

  int made() const { return static_cast<int>(ended_.size()); }

  /// Empty where every communicator has ended once and no group is open.
  std::vector<std::string> misuse() const {
    std::lock_guard lock(mutex_);
    auto all = misuse_;
    if (depth_ != 0) all.push_back("a group is open");
    for (std::size_t i = 0; i < ended_.size(); ++i) {
      if (ended_[i] != 1) all.push_back(concat("communicator ", i + 1, " ended ", ended_[i], "x"));
    }
    return all;
  }

  int version() const override { return version_number; }
  bool has_max_p2p_peers() const override { return version_number >= 23000; }

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
    if (result == Result::kSuccess) comm = make();
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
  Comm make() {
    ended_.push_back(0);
    return reinterpret_cast<Comm>(ended_.size());
  }
  void deliver() {
    if (child_ != nullptr) *child_ = make();
    child_ = nullptr;
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
    return call(concat(how, number(comm)));
  }
  Result message(const char* what, const void* data, std::size_t bytes, const char* direction,
                 int peer, Comm comm, void* stream) {
    std::lock_guard lock(mutex_);
    use(comm);
    if (depth_ != 1) misuse_.push_back("message outside of a group");
    if (data == nullptr || bytes == 0) misuse_.push_back("message of nothing");
    return call(
        concat(what, bytes, direction, peer, " on ", reinterpret_cast<std::intptr_t>(stream)));
  }

  mutable std::mutex mutex_;
  std::vector<std::string> log_, misuse_;
  std::vector<int> ended_;  // by communicator: how often
  Comm* child_ = nullptr;   // of a split under way
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
