// A point on the monotonic clock by which something must be done. The wall clock is never used: it
// jumps.
#pragma once

#include <algorithm>
#include <chrono>

namespace bluefog {

class Deadline {
 public:
  using Clock = std::chrono::steady_clock;

  static Deadline in(std::chrono::milliseconds timeout) { return Deadline(timeout); }

  /// For what follows on something that was waited for: as long again from now, and a little longer
  /// (as long once more, at most 5 s). A party that waits for a third one until its own deadline
  /// then still has the time to serve the others.
  Deadline renewed() const {
    return in(timeout() + std::min<std::chrono::milliseconds>(timeout(), std::chrono::seconds(5)));
  }

  bool passed() const { return Clock::now() >= end_; }

  /// Time left, never negative.
  std::chrono::nanoseconds left() const {
    return std::max(Clock::duration::zero(), end_ - Clock::now());
  }

  /// The same in whole milliseconds, rounded up: who has waited that long finds it passed.
  std::chrono::milliseconds left_in_ms() const {
    return std::chrono::ceil<std::chrono::milliseconds>(left());
  }

  /// From its setting to its end.
  std::chrono::milliseconds timeout() const {
    return std::chrono::duration_cast<std::chrono::milliseconds>(end_ - start_);
  }

  /// The same in seconds, for messages.
  double timeout_seconds() const { return std::chrono::duration<double>(end_ - start_).count(); }

  /// Seconds since this deadline was set, for messages.
  double elapsed_seconds() const {
    return std::chrono::duration<double>(Clock::now() - start_).count();
  }

 private:
  explicit Deadline(std::chrono::milliseconds timeout)
      : start_(Clock::now()),
        // A timeout of years must not overflow the clock.
        end_(start_ + std::min(timeout, std::chrono::milliseconds(std::chrono::hours(24 * 365)))) {}

  Clock::time_point start_;
  Clock::time_point end_;
};

}  // namespace bluefog
