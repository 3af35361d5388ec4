#include "window/pair_mutex.h"

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <climits>
#include <ctime>
#include <thread>

namespace bluefog::window {
namespace {

constexpr std::chrono::milliseconds kLongestSleep{20};
constexpr int kSpins = 100;

void ring(std::atomic<std::uint32_t>& bell) {
  bell.fetch_add(1);
  ::syscall(SYS_futex, &bell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void sleep(std::atomic<std::uint32_t>& bell, std::uint32_t seen, const Deadline& deadline) {
  const auto left = std::min<std::chrono::nanoseconds>(deadline.left(), kLongestSleep);
  const timespec timeout{0, static_cast<long>(left.count())};
  ::syscall(SYS_futex, &bell, FUTEX_WAIT, seen, &timeout, nullptr, 0);
}

}  // namespace

// Sequentially consistent throughout, as Peterson's algorithm asks.
void PairMutex::ask(Side side) {
  const auto self = static_cast<std::uint32_t>(side);
  const std::uint32_t other = 1 - self;
  wants[self] = 1;
  first = other;
  if (wants[other] != 0) ring(bell);  // it may be asleep, and may go now
}

bool PairMutex::may_enter(Side side) const {
  const auto self = static_cast<std::uint32_t>(side);
  return wants[1 - self] == 0 || first == self;
}

PairMutex::Outcome PairMutex::lock(Side side, const Deadline& deadline,
                                   const std::function<bool()>& gone,
                                   const std::function<bool()>& give_up) {
  ask(side);
  for (int spin = 0; spin < kSpins; ++spin) {
    if (may_enter(side)) return Outcome::kTaken;
    std::this_thread::yield();
  }
  while (true) {
    const std::uint32_t seen = bell;
    if (may_enter(side) || gone()) return Outcome::kTaken;
    const bool given_up = give_up();
    if (given_up || deadline.passed()) {
      unlock(side);
      return given_up ? Outcome::kGivenUp : Outcome::kLate;
    }
    sleep(bell, seen, deadline);
  }
}

void PairMutex::unlock(Side side) {
  const auto self = static_cast<std::uint32_t>(side);
  wants[self] = 0;
  if (wants[1 - self] != 0) ring(bell);
}

}  // namespace bluefog::window
