#include "window/mutexes.h"

#include <algorithm>

#include "base/error.h"

namespace bluefog::window {

Mutexes::Mutexes(int rank, std::string window, Doors doors)
    : rank_(rank), window_(std::move(window)), doors_(std::move(doors)) {}

void Mutexes::lock(std::vector<Key> keys, const Deadline& deadline) {
  std::sort(keys.begin(), keys.end());
  std::vector<Key> taken;
  try {
    for (Key key : keys) {
      take(key, deadline);
      taken.push_back(key);
    }
  } catch (...) {
    unlock(taken);
    throw;
  }
}

void Mutexes::take(Key key, const Deadline& deadline) {
  take_here(key, deadline);
  const int other = key.first == rank_ ? key.second : key.first;
  const auto start = Deadline::Clock::now();
  const auto outcome = doors_.lock(key, deadline, [&] { return closed_.load(); });
  {
    const std::lock_guard lock(mutex_);
    waited_ += Deadline::Clock::now() - start;
    if (outcome != PairMutex::Outcome::kTaken) held_.erase(key);
  }
  changed_.notify_all();
  if (outcome == PairMutex::Outcome::kLate) fail_late(key, deadline, other);
  if (outcome == PairMutex::Outcome::kGivenUp) {
    fail(ErrorCode::kAborted, "rank ", rank_, "'s wait for a mutex of window '", window_,
         "' ended because the window was freed");
  }
}

// The first round is among the threads of this rank.
void Mutexes::take_here(Key key, const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  const auto held = held_.find(key);
  if (held != held_.end() && held->second == std::this_thread::get_id()) {
    fail(ErrorCode::kUsage, "rank ", rank_, " holds the mutex of rank ", key.second,
         "'s mailbox at rank ", key.first, " in window '", window_,
         "' already: inside `with win_mutex` leave out require_mutex");
  }
  const auto free = [&] { return closed_ || held_.count(key) == 0; };
  if (!changed_.wait_for(lock, deadline.left(), free)) fail_late(key, deadline, rank_);
  held_[key] = std::this_thread::get_id();
}

void Mutexes::fail_late(Key key, const Deadline& deadline, int holder) const {
  fail(ErrorCode::kTimeout, "rank ", rank_, " waited ", deadline.timeout_seconds(),
       " s for the mutex of rank ", key.second, "'s mailbox at rank ", key.first, " in window '",
       window_, "', which ", holder == rank_ ? "another thread of rank " : "rank ", holder,
       " holds");
}

void Mutexes::unlock(const std::vector<Key>& keys) {
  for (Key key : keys) give(key);
}

void Mutexes::give(Key key) {
  {
    const std::lock_guard lock(mutex_);
    if (held_.erase(key) == 0) return;
    doors_.unlock(key);
  }
  changed_.notify_all();
}

void Mutexes::close() {
  closed_ = true;
  const std::lock_guard lock(mutex_);
  for (const auto& [key, thread] : held_) doors_.unlock(key);
  held_.clear();
  changed_.notify_all();
}

std::chrono::nanoseconds Mutexes::waited() const {
  const std::lock_guard lock(mutex_);
  return waited_;
}

}  // namespace bluefog::window
