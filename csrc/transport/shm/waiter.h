// Waiting for other ranks of the host: poll briefly, then sleep on one's own doorbell.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>

#include "base/deadline.h"
#include "transport/shm/segment.h"

namespace bluefog::shm {

class Waiter {
 public:
  /// The doorbell belongs to this rank's segment. `spin_us` as in Env; `ranks` is the number of
  /// ranks of this host.
  Waiter(Doorbell* bell, int spin_us, int ranks);

  /// Waits until ready() is true; false when the deadline passed first. ready() is called at least
  /// every 20 ms, so that it can also look for what rings no bell: the death of a peer. Woken by
  /// ring().
  template <typename Ready>
  bool wait(const Deadline& deadline, Ready&& ready);

  /// Wakes the owner of `bell` if it sleeps. The caller has published (with release order) what the
  /// owner may wait for.
  static void ring(Doorbell& bell);

 private:
  static void pause();
  void sleep(std::uint32_t seen, const Deadline& deadline);

  Doorbell* bell_;
  std::chrono::microseconds spin_;
};

template <typename Ready>
bool Waiter::wait(const Deadline& deadline, Ready&& ready) {
  if (ready()) {
    return true;
  }
  for (const auto end = Deadline::Clock::now() + spin_; Deadline::Clock::now() < end;) {
    pause();
    if (ready()) {
      return true;
    }
  }
  while (!deadline.passed()) {
    const std::uint32_t seen = bell_->rings.load(std::memory_order_relaxed);
    bell_->sleeping.store(1, std::memory_order_relaxed);
    // Pairs with the fence in ring(): either this thread sees what was published, or ring() sees
    // `sleeping`.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const bool done = ready();
    if (!done) {
      sleep(seen, deadline);
    }
    bell_->sleeping.store(0, std::memory_order_relaxed);
    if (done || ready()) {
      return true;
    }
  }
  return ready();
}

}  // namespace bluefog::shm
