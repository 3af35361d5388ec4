// Deadlines for what is on a stream: nobody on the host waits for it, so somebody has to look.
//
// A thread looks at what is pending every `interval`. Where something is late, or the communicator
// has failed, all that is pending ends with that one Error, and only then the communicator is
// aborted: the abort makes events look as if all had gone well. Thread-safe.
#pragma once

#include <chrono>
#include <condition_variable>
#include <exception>
#include <functional>
#include <list>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "base/deadline.h"
#include "base/error.h"
#include "transport/nccl/flight_recorder.h"

namespace bluefog::nccl {

class Watchdog {
 public:
  static constexpr std::chrono::milliseconds kInterval{100};

  /// What belongs to an entry is let go of in watch() and in the destructor, never by the thread:
  /// the last reference to a tensor may want Python's lock, which the thread that joins this one
  /// may hold.
  struct Entry {
    std::function<bool()> done;  // asks the device; never waits. A throw is a failure
    /// Called once, with null where all went well. May not call the watchdog.
    std::function<void(std::exception_ptr)> end;
    Deadline deadline;
    Operation operation;
  };

  struct Options {
    int rank;
    std::function<std::optional<Error>()> error;   // of the communicator; none where all is well
    std::function<void()> abort;                   // of the communicator; called at most once
    std::function<void()> thread_start = nullptr;  // called first in the thread
    std::chrono::milliseconds interval = kInterval;
  };

  explicit Watchdog(Options options);

  /// What is still pending ends with Error(kAborted).
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  /// After a failure the entry ends at once with that.
  void watch(Entry entry);

  /// The first failure counts: later ones are ignored. On return everything that was pending has
  /// ended with it.
  void fail(const Error& error);

  /// The first failure, or null.
  std::exception_ptr failure() const;

  /// What the thread does once an interval.
  void poll_now();

 private:
  using Entries = std::list<Entry>;

  void run();
  void let_go_of_spent();
  std::optional<Error> keep_done(std::vector<Entries::iterator>& entries) const;
  std::optional<Error> communicator_error(const std::vector<Entries::iterator>& done);
  std::optional<Error> settle(const std::vector<Entries::iterator>& done);

  const Options options_;
  std::mutex poll_mutex_;  // held for all of a look, and to empty spent_; taken before mutex_
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  Entries pending_;             // under mutex_; a look erases none but under poll_mutex_
  Entries spent_;               // under mutex_; ended
  std::exception_ptr failure_;  // under mutex_
  bool stop_ = false;           // under mutex_
  std::thread thread_;
};

}  // namespace bluefog::nccl
