#include "transport/shm/waiter.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>
#include <thread>

namespace bluefog::shm {
namespace {

constexpr std::chrono::milliseconds kLongestSleep{20};
constexpr std::chrono::microseconds kPausing{30};

}  // namespace

Waiter::Waiter(Doorbell* bell, int spin_us, int ranks)
    : bell_(bell),
      spin_(spin_us),
      pausing_(static_cast<unsigned>(ranks) <= std::thread::hardware_concurrency()
                   ? kPausing
                   : std::chrono::microseconds(0)) {}

void Waiter::give_way() { std::this_thread::yield(); }

// Some tens of nanoseconds in which this core leaves the memory bus and its sibling alone.
void Waiter::pause() {
  for (int i = 0; i < 2; ++i) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
  }
}

void Waiter::sleep(std::uint32_t seen, const Deadline& deadline) {
  const auto left = std::min<std::chrono::nanoseconds>(deadline.left(), kLongestSleep);
  const timespec timeout{0, static_cast<long>(left.count())};
  // Not FUTEX_PRIVATE: the word is shared with other processes. EAGAIN, EINTR and ETIMEDOUT all
  // mean "look again".
  ::syscall(SYS_futex, &bell_->rings, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

void Waiter::ring(Doorbell& bell, int from) {
  std::int32_t awaited = bell.awaits.load(std::memory_order_relaxed);
  const bool meant =
      from == kAnybody ? awaited != Doorbell::kNobody : awaited == from || awaited == kAnybody;
  // Who takes the place of the awaited wakes it: others need not do so again.
  if (meant &&
      bell.awaits.compare_exchange_strong(awaited, Doorbell::kNobody, std::memory_order_relaxed)) {
    bell.rings.fetch_add(1, std::memory_order_relaxed);
    ::syscall(SYS_futex, &bell.rings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
}

}  // namespace bluefog::shm
