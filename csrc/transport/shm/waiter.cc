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
constexpr std::chrono::microseconds kDefaultSpin{30};

}  // namespace

Waiter::Waiter(Doorbell* bell, int spin_us, int ranks) : bell_(bell), spin_(spin_us) {
  if (spin_us < 0) {
    // A rank that polls while its neighbour has no core to run on delays what it waits for.
    const bool own_core = static_cast<unsigned>(ranks) <= std::thread::hardware_concurrency();
    spin_ = own_core ? kDefaultSpin : std::chrono::microseconds(0);
  }
}

// Some tens of nanoseconds in which this core leaves the memory bus and its sibling alone.
void Waiter::pause() {
  for (int i = 0; i < 32; ++i) {
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

void Waiter::ring(Doorbell& bell) {
  std::atomic_thread_fence(std::memory_order_seq_cst);  // pairs with the fence in wait()
  if (bell.sleeping.load(std::memory_order_relaxed) != 0) {
    bell.rings.fetch_add(1, std::memory_order_relaxed);
    ::syscall(SYS_futex, &bell.rings, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
  }
}

}  // namespace bluefog::shm
