// Waiting for other ranks of the host: poll, then give way to others and poll, then sleep on one's
// own doorbell.
//
// Ranks may outnumber cores. One that pauses while its neighbour has no core to run on delays what
// it waits for, and one that sleeps lets the core go idle, from where it takes long to wake. Giving
// way does neither.
#pragma once

#include <algorithm>
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

  /// Waits until ready() is true; false when the deadline passed first. While it sleeps only whom()
  /// wakes it, a rank or kAnybody: a rank that waits for three others is not woken by the first.
  /// ready() is called at least every 20 ms, so that it can also look for what rings no bell: the
  /// death of a peer.
  template <typename Ready, typename Whom>
  bool wait(const Deadline& deadline, Ready&& ready, Whom&& whom);

  /// Comes between publishing and ring(): one fence for any number of bells.
  static void before_rings() {
    std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the fence in wait()
  }

  /// Wakes the owner of `bell` if it sleeps and waits for rank `from` or for anybody; kRoom wakes
  /// it only if it waits for anybody, kAnybody in any case. The caller has published (with release
  /// order) what the owner may wait for.
  static void ring(Doorbell& bell, int from);

  static constexpr int kAnybody = -2;
  static constexpr int kRoom = -3;

 private:
  static constexpr int kLooks = 16;  // between two looks at the clock

  static void pause();
  static void give_way();
  void sleep(std::uint32_t seen, const Deadline& deadline);

  Doorbell* bell_;
  const std::chrono::microseconds spin_;     // how long to poll
  const std::chrono::microseconds pausing_;  // how much of it without giving way
};

template <typename Ready, typename Whom>
bool Waiter::wait(const Deadline& deadline, Ready&& ready, Whom&& whom) {
  if (ready()) {
    return true;
  }
  const auto start = Deadline::Clock::now();
  const auto end = start + std::min<std::chrono::nanoseconds>(spin_, deadline.left());
  for (auto now = start; now < end; now = Deadline::Clock::now()) {
    if (now >= start + pausing_) {
      give_way();
      if (ready()) return true;
      continue;
    }
    for (int look = 0; look < kLooks; ++look) {
      pause();
      if (ready()) return true;
    }
  }
  while (!deadline.passed()) {
    const std::uint32_t seen = bell_->rings.load(std::memory_order_relaxed);
    bell_->awaits.store(whom(), std::memory_order_relaxed);
    // Pairs with the fence in before_rings(): either this thread sees what was published, or ring()
    // sees `awaits`.
    std::atomic_thread_fence(std::memory_order_seq_cst);
    const bool done = ready();
    if (!done) {
      sleep(seen, deadline);
    }
    bell_->awaits.store(Doorbell::kNobody, std::memory_order_relaxed);
    if (done || ready()) {
      return true;
    }
  }
  return ready();
}

}  // namespace bluefog::shm
