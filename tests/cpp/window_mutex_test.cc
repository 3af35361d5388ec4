// The mutex between two ranks.
#include <gtest/gtest.h>

#include <string>
#include <thread>

#include "ranks.h"
#include "window/mutexes.h"

namespace bluefog::test {
namespace {

using window::Mutexes;
using window::PairMutex;
using window::Side;

const auto kNo = [] { return false; };

TEST(WindowMutexTest, TwoSidesExcludeEachOther) {
  PairMutex mutex{};
  std::int64_t count = 0;  // no atomic: the mutex protects it
  auto work = [&](Side side) {
    for (int round = 0; round < 20'000; ++round) {
      ASSERT_EQ(mutex.lock(side, Deadline::in(kPlenty), kNo, kNo), PairMutex::Outcome::kTaken);
      ++count;
      mutex.unlock(side);
    }
  };
  std::thread owner(work, Side::kOwner), writer(work, Side::kWriter);
  owner.join();
  writer.join();
  EXPECT_EQ(count, 40'000);
}

// Who lets go and comes again at once finds that the other one is first.
TEST(WindowMutexTest, NobodyIsOvertakenTwice) {
  PairMutex mutex{};
  for (int round = 0; round < 200; ++round) {
    std::string order;  // under the mutex
    mutex.lock(Side::kOwner, Deadline::in(kPlenty), kNo, kNo);
    std::thread writer([&] {
      mutex.lock(Side::kWriter, Deadline::in(kPlenty), kNo, kNo);
      order += "w";
      mutex.unlock(Side::kWriter);
    });
    while (mutex.wants[1] == 0 || mutex.first != 0) std::this_thread::yield();
    order += "o";
    mutex.unlock(Side::kOwner);
    mutex.lock(Side::kOwner, Deadline::in(kPlenty), kNo, kNo);
    order += "o";
    mutex.unlock(Side::kOwner);
    writer.join();
    ASSERT_EQ(order, "owo");
  }
}

/// The mutexes of ranks 0 and 1 with each other.
struct Pair {
  PairMutex at[2]{};
  bool gone = false;
  Mutexes of(int rank) {
    return {rank,
            "x",
            {[this, rank](auto key, auto& deadline, auto& give_up) {
               const auto other_is_gone = [this] { return gone; };
               return at[key.first].lock(side(rank, key), deadline, other_is_gone, give_up);
             },
             [this, rank](auto key) { at[key.first].unlock(side(rank, key)); }}};
  }
  static Side side(int rank, Mutexes::Key key) {
    return key.first == rank ? Side::kOwner : Side::kWriter;
  }
  Mutexes zero = of(0), one = of(1);
};

TEST(WindowMutexTest, WhoIsLateLearnsWhoHoldsIt) {
  Pair pair;
  pair.zero.lock({{1, 0}}, Deadline::in(kPlenty));
  const Caught caught = catch_error([&] { pair.one.lock({{0, 1}, {1, 0}}, Deadline::in(kShort)); });
  EXPECT_EQ(caught.code, ErrorCode::kTimeout);
  for (const char* part :
       {"rank 1 waited 0.3 s", "rank 0's mailbox at rank 1", "window 'x'", "which rank 0 holds"}) {
    EXPECT_NE(caught.what.find(part), std::string::npos) << caught.what;
  }
  EXPECT_EQ(pair.at[0].wants[1], 0u) << "all or none";
  EXPECT_GE(pair.one.waited(), kShort);
  pair.zero.unlock({{1, 0}});
  pair.one.lock({{1, 0}}, Deadline::in(kPlenty));
}

TEST(WindowMutexTest, OneThreadCannotTakeItTwiceAndAnotherWaits) {
  Pair pair;
  pair.zero.lock({{1, 0}}, Deadline::in(kPlenty));
  EXPECT_EQ(catch_error([&] { pair.zero.lock({{1, 0}}, Deadline::in(kPlenty)); }).code,
            ErrorCode::kUsage);
  Caught caught;
  std::thread([&] {
    caught = catch_error([&] { pair.zero.lock({{1, 0}}, Deadline::in(kShort)); });
  }).join();
  EXPECT_EQ(caught.code, ErrorCode::kTimeout);
  EXPECT_NE(caught.what.find("another thread of rank 0 holds"), std::string::npos) << caught.what;
}

TEST(WindowMutexTest, AClosedWindowEndsWaitsAndGivesBack) {
  Pair pair;
  pair.zero.lock({{1, 0}}, Deadline::in(kPlenty));
  Caught caught;
  std::thread waiter(
      [&] { caught = catch_error([&] { pair.one.lock({{1, 0}}, Deadline::in(kPlenty)); }); });
  while (pair.at[1].wants[0] == 0 || pair.at[1].wants[1] == 0) std::this_thread::yield();
  pair.one.close();
  waiter.join();
  EXPECT_EQ(caught.code, ErrorCode::kAborted) << caught.what;
  pair.zero.close();
  EXPECT_EQ(pair.at[1].wants[0], 0u);
  EXPECT_EQ(pair.at[1].wants[1], 0u);
}

TEST(WindowMutexTest, TheLostHoldNothing) {
  Pair pair;
  pair.zero.lock({{1, 0}}, Deadline::in(kPlenty));
  pair.gone = true;
  pair.one.lock({{1, 0}}, Deadline::in(kPlenty));
}

}  // namespace
}  // namespace bluefog::test
