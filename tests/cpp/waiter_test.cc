#include "transport/shm/waiter.h"

#include <gtest/gtest.h>

#include <array>
#include <thread>

#include "ranks.h"

namespace bluefog::test {
namespace {

using shm::Doorbell;
using shm::Waiter;

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr int kRounds = 20000;
#else
constexpr int kRounds = 200000;
#endif

constexpr milliseconds kPoll{20};  // how long a wake-up that is lost is missed

bool wakes(std::int32_t awaited, int from) {
  Doorbell bell;
  bell.awaits = awaited;
  Waiter::ring(bell, from);
  EXPECT_EQ(bell.awaits, bell.rings > 0 ? Doorbell::kNobody : awaited);
  return bell.rings > 0;
}

// Until the owner of `bell` sleeps, or is about to: from here on a ring reaches it.
void await_sleeper(const Doorbell& bell, std::int32_t awaited) {
  while (bell.awaits != awaited) std::this_thread::yield();
}

TEST(WaiterTest, OnlyWhoIsAwaitedWakes) {
  EXPECT_TRUE(wakes(3, 3));
  EXPECT_TRUE(wakes(0, 0));
  EXPECT_TRUE(wakes(3, Waiter::kAnybody));
  EXPECT_FALSE(wakes(3, 2));
  EXPECT_FALSE(wakes(3, Waiter::kRoom));
  for (int from : {0, 3, Waiter::kRoom, Waiter::kAnybody}) {
    EXPECT_TRUE(wakes(Waiter::kAnybody, from)) << from;
    EXPECT_FALSE(wakes(Doorbell::kNobody, from)) << from << " has nobody to wake";
  }
}

TEST(WaiterTest, WhatIsReadyIsNotWaitedFor) {
  Doorbell bell;
  for (int spin_us : {0, 1000}) {
    Waiter waiter(&bell, spin_us, 1);
    EXPECT_TRUE(waiter.wait(
        Deadline::in(milliseconds(0)), [] { return true; },
        [] {
          ADD_FAILURE() << "goes to sleep";
          return 0;
        }));
  }
  EXPECT_EQ(bell.rings, 0u);
}

TEST(WaiterTest, EndsAtTheDeadline) {
  Doorbell bell;
  for (int spin_us : {0, 1000, 1000000}) {
    Waiter waiter(&bell, spin_us, 1);
    const auto start = Deadline::Clock::now();
    const bool in_time =
        waiter.wait(Deadline::in(milliseconds(50)), [] { return false; }, [] { return 0; });
    const auto took = Deadline::Clock::now() - start;
    EXPECT_FALSE(in_time);
    EXPECT_GE(took, milliseconds(50));
    EXPECT_LT(took, milliseconds(900)) << "spin " << spin_us << ": polls longer than it may";
    EXPECT_EQ(bell.awaits, Doorbell::kNobody);
  }
}

// As when a peer dies: nothing rings.
TEST(WaiterTest, LooksAgainWithoutABell) {
  Doorbell bell;
  Waiter waiter(&bell, 0, 1);
  int looks = 0;
  const auto start = Deadline::Clock::now();
  EXPECT_TRUE(waiter.wait(Deadline::in(kPlenty), [&] { return ++looks > 20; }, [] { return 0; }));
  EXPECT_LT(Deadline::Clock::now() - start, std::chrono::seconds(5));
}

TEST(WaiterTest, SleepsThroughWhatOthersPublish) {
  Doorbell bell;
  std::array<std::atomic<bool>, 3> published{};
  std::thread sleeper([&] {
    Waiter waiter(&bell, 0, 1);
    const auto missing = [&] {
      return static_cast<int>(std::find(published.begin(), published.end(), false) -
                              published.begin());
    };
    EXPECT_TRUE(waiter.wait(Deadline::in(kPlenty), [&] { return missing() == 3; }, missing));
  });
  const auto publish = [&](int rank) {
    published[rank] = true;
    Waiter::before_rings();
    Waiter::ring(bell, rank);
  };
  await_sleeper(bell, 0);
  publish(1);
  EXPECT_EQ(bell.rings, 0u) << "rank 0 is still missing";
  publish(0);
  EXPECT_EQ(bell.rings, 1u);
  await_sleeper(bell, 2);  // and not 1, which has come already
  publish(2);
  sleeper.join();
  EXPECT_EQ(bell.rings, 2u);
}

// Two threads hand a number to and fro, and sleep in between.
class Court {
 public:
  explicit Court(int spin_us) : spin_us_(spin_us) {}

  void play(int self) {
    Waiter waiter(&bells_[self], spin_us_, 2);
    for (int turn = self; turn < kRounds; turn += 2) {
      const auto start = Deadline::Clock::now();
      ASSERT_TRUE(waiter.wait(
          Deadline::in(kPlenty), [&] { return ball_.load(std::memory_order_acquire) == turn; },
          [&] { return turn % 4 < 2 ? 1 - self : Waiter::kAnybody; }));
      if (Deadline::Clock::now() - start >= kPoll) ++slow_;
      ball_.store(turn + 1, std::memory_order_release);
      Waiter::before_rings();
      Waiter::ring(bells_[1 - self], (turn + 1) % 4 < 2 ? self : Waiter::kRoom);
    }
  }

  int slow() const { return slow_; }

 private:
  const int spin_us_;
  std::array<Doorbell, 2> bells_;
  std::atomic<int> ball_{0};
  std::atomic<int> slow_{0};
};

void expect_no_wake_up_is_lost(int spin_us) {
  Court court(spin_us);
  const auto start = Deadline::Clock::now();
  run_ranks(2, [&](int self) { court.play(self); });
  const std::chrono::duration<double> took = Deadline::Clock::now() - start;
  // A busy machine keeps a thread from its core now and then.
  EXPECT_LE(court.slow(), kRounds / 2000);
  EXPECT_LT(took.count(), kRounds * std::chrono::duration<double>(kPoll).count() / 100);
}

TEST(WaiterTest, NoWakeUpIsLostInSleep) { expect_no_wake_up_is_lost(0); }
TEST(WaiterTest, NoWakeUpIsLostOnTheWayToSleep) { expect_no_wake_up_is_lost(3); }

}  // namespace
}  // namespace bluefog::test
