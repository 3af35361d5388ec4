// The mutexes of a window as one rank holds them, on behalf of its threads.
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "window/pair_mutex.h"

namespace bluefog::window {

/// Thread-safe.
class Mutexes {
 public:
  /// The mutex of `writer`'s mailbox at `owner`, one of which is this rank.
  using Key = std::pair<int, int>;  // (owner, writer)

  /// Where they are: as PairMutex::lock and unlock.
  struct Doors {
    using Outcome = PairMutex::Outcome;
    std::function<Outcome(Key, const Deadline&, const std::function<bool()>& give_up)> lock;
    std::function<void(Key)> unlock;
  };

  Mutexes(int rank, std::string window, Doors doors);

  /// Takes all of `keys` for the calling thread, or none. They are taken in ascending order, so
  /// that ranks that want several do not wait for each other in a circle. Throws Error(kUsage)
  /// where the thread holds one already, Error(kTimeout) naming who holds it, Error(kAborted).
  void lock(std::vector<Key> keys, const Deadline& deadline);

  /// Gives back what is still held.
  void unlock(const std::vector<Key>& keys);

  /// Ends all waits, and gives back all that is held.
  void close();

  /// Time that threads of this rank have waited for mutexes.
  std::chrono::nanoseconds waited() const;

 private:
  void take(Key key, const Deadline& deadline);
  void take_here(Key key, const Deadline& deadline);
  void give(Key key);
  [[noreturn]] void fail_late(Key key, const Deadline& deadline, int holder) const;

  const int rank_;
  const std::string window_;
  const Doors doors_;
  std::atomic<bool> closed_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::map<Key, std::thread::id> held_;  // under mutex_; also what is being waited for
  std::chrono::nanoseconds waited_{0};   // under mutex_
};

}  // namespace bluefog::window
