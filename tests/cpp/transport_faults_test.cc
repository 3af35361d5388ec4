// What every transport must do when a rank is late, wrong or gone.
#include <gtest/gtest.h>

#include <future>
#include <latch>

#include "graphs.h"
#include "traffic.h"

namespace bluefog::test {
namespace {

class TransportFaultsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TransportFaultsTest, AbortWakesAPendingExchange) {
  Group group(GetParam(), 2);
  const Plan plan = complete(2).plan(0);
  const Bytes bytes = pattern(0, 1, 100);
  std::latch begun(1);
  auto waiting = std::async(std::launch::async, [&] {
    Conduct conduct;
    conduct.after_begin = [&] { begun.count_down(); };
    return catch_error([&] { exchange(group[0], plan, 1, bytes, conduct); });
  });
  begun.wait();
  const auto start = Deadline::Clock::now();
  group[0].abort();
  const Caught caught = waiting.get();
  EXPECT_LT(Deadline::Clock::now() - start, std::chrono::seconds(5));  // and not 30
  EXPECT_EQ(caught.code, ErrorCode::kAborted);
  EXPECT_NE(caught.what.find("neighbor_allreduce #1 on rank 0"), std::string::npos) << caught.what;

  const Caught later = catch_error([&] { exchange(group[0], plan, 2, bytes); });
  EXPECT_EQ(later.code, ErrorCode::kAborted);
}

TEST_P(TransportFaultsTest, TheDeadlineNamesExactlyWhoIsMissing) {
  constexpr int kRanks = 5;
  const std::set<int> missing{1, 3};
  Group group(GetParam(), kRanks);
  std::latch together(kRanks - missing.size());
  group.run([&](int rank) {
    if (missing.count(rank)) return;
    together.arrive_and_wait();
    const Plan plan = complete(kRanks).plan(rank);
    const Arrival arrival = exchange(group[rank], plan, 1, pattern(rank, 1, 9000), {kShort});
    EXPECT_EQ(arrival.failed(), missing);
    ASSERT_EQ(arrival.failures.size(), missing.size());
    for (const Failure& failure : arrival.failures) {
      EXPECT_EQ(failure.code, ErrorCode::kTimeout);
      EXPECT_EQ(failure.what, "did not start it");
    }
    for (int source : {0, 2, 4}) {
      if (source == rank) continue;
      EXPECT_EQ(arrival.bytes.at(source), pattern(source, 1, 9000)) << "the others are served";
    }
  });
}

TEST_P(TransportFaultsTest, AnEdgeHealsAfterATimeout) {
  Group group(GetParam(), 3);
  std::latch gave_up(2), together(2);
  group.run([&](int rank) {
    const Plan plan = complete(3).plan(rank);
    const Bytes first = pattern(rank, 1, 9000);
    if (rank == 2) {
      gave_up.wait();
      const Arrival late = exchange(group[2], plan, 1, first);
      EXPECT_EQ(late.failed(), (std::set<int>{0, 1}));
      for (const Failure& failure : late.failures) {
        EXPECT_EQ(failure.code, ErrorCode::kTimeout) << failure.what;
      }
    } else {
      together.arrive_and_wait();
      EXPECT_EQ(exchange(group[rank], plan, 1, first, {kShort}).failed(), (std::set<int>{2}));
      gave_up.count_down();
    }
    for (std::uint64_t sequence = 2; sequence < 8; ++sequence) {
      expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, 9000)), plan,
                      sequence, [](int) { return 9000; });
    }
  });
}

TEST_P(TransportFaultsTest, ARankThatIsManyOperationsLateCatchesUp) {
  constexpr std::uint64_t kMissed = 12;  // more than any transport keeps greetings for
  Group group(GetParam(), 2);
  std::latch gave_up(1);
  group.run([&](int rank) {
    const Plan plan = complete(2).plan(rank);
    for (std::uint64_t sequence = 1; sequence <= kMissed; ++sequence) {
      if (rank == 1 && sequence == 1) gave_up.wait();
      const milliseconds timeout = rank == 0 ? milliseconds(1) : kPlenty;
      const Arrival arrival =
          exchange(group[rank], plan, sequence, pattern(rank, sequence, 9000), {timeout});
      EXPECT_EQ(arrival.failed(), (std::set<int>{1 - rank})) << sequence;
      if (rank == 0 && sequence == kMissed) gave_up.count_down();
    }
    for (std::uint64_t sequence = kMissed + 1; sequence < kMissed + 8; ++sequence) {
      expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, 9000)), plan,
                      sequence, [](int) { return 9000; });
    }
  });
}

TEST_P(TransportFaultsTest, ADroppedPeerDisturbsNobody) {
  constexpr int kRanks = 4;
  Group group(GetParam(), kRanks);
  const std::size_t size = group.more_than_the_ring();
  group.run([&](int rank) {
    const Plan plan = complete(kRanks).plan(rank);
    for (std::uint64_t sequence = 1; sequence <= 3; ++sequence) {
      Conduct conduct;
      if (rank < 2) conduct.drop = {1 - rank};
      const Arrival arrival =
          exchange(group[rank], plan, sequence, pattern(rank, sequence, size), conduct);
      EXPECT_TRUE(arrival.failures.empty());
      for (const auto& [source, bytes] : arrival.bytes) {
        const bool dropped = rank < 2 && source == 1 - rank;
        EXPECT_EQ(bytes, dropped ? Bytes() : pattern(source, sequence, size));
      }
    }
  });
}

// The one who was dropped, and does not know why, must not take old bytes for new ones.
TEST_P(TransportFaultsTest, WhoIsDroppedGetsAllOrAnError) {
  Group group(GetParam(), 3);
  const std::size_t size = group.more_than_the_ring();
  group.run([&](int rank) {
    const Plan plan = complete(3).plan(rank);
    for (std::uint64_t sequence = 1; sequence <= 4; ++sequence) {
      Conduct conduct;
      if (rank == 0 && sequence % 2 == 1) conduct.drop = {1};
      const Arrival arrival =
          exchange(group[rank], plan, sequence, pattern(rank, sequence, size), conduct);
      for (const auto& [source, bytes] : arrival.bytes) {
        if (conduct.drop == std::vector<int>{source}) {
          EXPECT_TRUE(bytes.empty());
        } else if (!(rank == 1 && arrival.failed() == std::set<int>{0} && source == 0)) {
          EXPECT_TRUE(bytes == pattern(source, sequence, size)) << rank << " from " << source;
        }
      }
      EXPECT_TRUE(rank == 1 || arrival.failures.empty());
    }
  });
}

// A rank that stops in the middle, for a fault of its own, must not hold up the others for long.
TEST_P(TransportFaultsTest, AnExchangeMayBeGivenUpAtAnyPoint) {
  Group group(GetParam(), 3);
  const std::size_t size = group.more_than_the_ring();
  group.run([&](int rank) {
    const Plan plan = complete(3).plan(rank);
    std::uint64_t sequence = 1;
    for (; sequence <= 3; ++sequence) {
      const Bytes mine = pattern(rank, sequence, size);
      if (rank == 0) {
        Payload payload;
        payload.add(mine.data(), mine.size());
        const auto stopped = group[0].begin(request_of(plan, sequence, payload));
        if (sequence > 1) stopped->meet();
        Piece piece;
        if (sequence > 2) stopped->next(piece);
      } else {
        const Arrival arrival = exchange(group[rank], plan, sequence, mine);
        for (int failed : arrival.failed()) EXPECT_EQ(failed, 0);
        EXPECT_EQ(arrival.bytes.at(3 - rank), pattern(3 - rank, sequence, size));
      }
    }
    expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, size)), plan,
                    sequence, [&](int) { return size; });
  });
}

INSTANTIATE_TEST_SUITE_P(All, TransportFaultsTest, ::testing::ValuesIn(Group::kinds()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bluefog::test
