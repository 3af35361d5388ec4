// What every transport must do when all goes well. A new transport: a line in Group::kinds() and
// one in its constructor.
#include <gtest/gtest.h>

#include <semaphore>

#include "graphs.h"
#include "traffic.h"

namespace bluefog::test {
namespace {

class TransportTest : public ::testing::TestWithParam<std::string> {
 protected:
  // Operations 1, 2, ... over `graph`, one for each of `sizes`, where all ranks send alike.
  void run_sizes(const Graph& graph, const std::vector<std::size_t>& sizes) {
    Group group(GetParam(), graph.size);
    group.run([&](int rank) {
      const Plan plan = graph.plan(rank);
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        const std::uint64_t sequence = i + 1;
        expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, sizes[i])),
                        plan, sequence, [&](int) { return sizes[i]; });
      }
    });
  }

  void run_everywhere(Graph (*graph)(int)) {
    for (int n : {2, 3, 5, 8}) {
      run_sizes(graph(n), {0, 1, 63, 4095, 4096, 4097, 8192, 0, 20000, 70001});
    }
  }
};

TEST_P(TransportTest, Ring) { run_everywhere(ring); }
TEST_P(TransportTest, OneWayRing) { run_everywhere(one_way_ring); }
TEST_P(TransportTest, AllToAll) { run_everywhere(complete); }
TEST_P(TransportTest, Star) { run_everywhere(star); }
TEST_P(TransportTest, RanksWithoutSources) { run_everywhere(out_star); }
TEST_P(TransportTest, RanksWithoutDestinations) { run_everywhere(in_star); }

TEST_P(TransportTest, MoreThanTheRing) {
  for (const Graph& graph : {complete(3), one_way_ring(5)}) {
    const std::size_t most = Group(GetParam(), 2).more_than_the_ring();
    run_sizes(graph, {most, most, 1, most});
  }
}

TEST_P(TransportTest, OnePeerAtATime) {
  for (int n : {2, 5, 8}) {
    Group group(GetParam(), n);
    group.run([&](int rank) {
      for (int step = 0; step < 200; ++step) {
        const Plan plan = one_peer(n, step).plan(rank);
        const std::uint64_t sequence = step + 1;
        const auto size = [&](int) { return static_cast<std::size_t>(step) * 101 % 9000; };
        expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, size(rank))),
                        plan, sequence, size);
      }
    });
  }
}

// As in an allgather: streams end at different places, some before they begin.
TEST_P(TransportTest, EveryRankSendsAnotherSize) {
  for (int n : {2, 3, 5, 8}) {
    Group group(GetParam(), n);
    group.run([&](int rank) {
      const Plan plan = complete(n).plan(rank);
      for (std::uint64_t sequence = 1; sequence <= 10; ++sequence) {
        const auto size = [&](int of) -> std::size_t { return (of + sequence) % n * 5000; };
        expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, size(rank))),
                        plan, sequence, size);
      }
    });
  }
}

TEST_P(TransportTest, OneRankIsAlwaysLast) {
  constexpr int kRanks = 5;
  Group group(GetParam(), kRanks);
  const std::size_t size = group.more_than_the_ring();
  std::counting_semaphore<> begun(0);
  group.run([&](int rank) {
    const Plan plan = complete(kRanks).plan(rank);  // so that nobody is an operation ahead
    for (std::uint64_t sequence = 1; sequence <= 8; ++sequence) {
      Conduct conduct;
      if (rank == kRanks - 1) {
        for (int other = 1; other < kRanks; ++other) begun.acquire();
      } else {
        conduct.after_begin = [&] { begun.release(); };
      }
      expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, size), conduct),
                      plan, sequence, [&](int) { return size; });
    }
  });
}

// Where there are two ways, a rank may send one way only, and read another way only.
TEST_P(TransportTest, RanksOfADirectedGraphDoNotWaitForEachOther) {
  constexpr int kRanks = 4;
  Group group(GetParam(), kRanks);
  const Graph directed =
      graph_of(kRanks, [](int i, int j) { return j == (i + 1) % kRanks || j == (i + 2) % kRanks; });
  for (const std::size_t size : {group.more_than_the_ring(), 3 * group.more_than_the_ring()}) {
    group.run([&](int rank) {
      const Plan plan = directed.plan(rank);
      const std::uint64_t sequence = size;
      expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, size)), plan,
                      sequence, [&](int) { return size; });
    });
  }
}

TEST_P(TransportTest, ARankMayHaveNoNeighbours) {
  Group group(GetParam(), 3);
  group.run([&](int rank) {
    // Ranks 0 and 2 exchange (one leg of "routed"), rank 1 has nothing to do, then joins them.
    const Graph pair{3, {{0, 2}, {2, 0}}};
    for (std::uint64_t sequence = 1; sequence <= 8; ++sequence) {
      const Plan plan = sequence < 8 ? pair.plan(rank) : complete(3).plan(rank);
      expect_patterns(exchange(group[rank], plan, sequence, pattern(rank, sequence, 5000)), plan,
                      sequence, [](int) { return 5000; });
    }
  });
}

TEST_P(TransportTest, SegmentsArriveAtTheirOffsets) {
  Group group(GetParam(), 3);
  const std::vector<std::size_t> sizes{5, 0, 64, 4096, 1, 10000};
  group.run([&](int rank) {
    std::vector<Bytes> parts;
    Payload payload;
    for (std::size_t i = 0; i < sizes.size(); ++i) {
      parts.push_back(pattern(rank, i, sizes[i]));
      payload.add(parts.back().data(), sizes[i]);
    }
    const Arrival arrival = exchange(group[rank], complete(3).plan(rank), 1, payload);
    for (const auto& [source, bytes] : arrival.bytes) {
      ASSERT_EQ(bytes.size(), payload.nbytes());
      for (std::size_t i = 0; i < sizes.size(); ++i) {
        const auto begin = bytes.begin() + payload.segments()[i].offset;
        EXPECT_EQ(Bytes(begin, begin + sizes[i]), pattern(source, i, sizes[i]));
      }
    }
  });
}

// An output may be the input: what a piece covers has left this rank.
TEST_P(TransportTest, TheRangeOfAPieceMayBeOverwritten) {
  Group group(GetParam(), 5);
  const std::size_t size = group.more_than_the_ring();
  group.run([&](int rank) {
    const Plan plan = complete(5).plan(rank);
    for (std::uint64_t sequence = 1; sequence <= 3; ++sequence) {
      Bytes mine = pattern(rank, sequence, size);
      Payload payload;
      payload.add(mine.data(), mine.size());
      Conduct conduct;
      conduct.on_piece = [&](const Piece& piece) {
        std::fill_n(mine.begin() + piece.offset, piece.size(), std::byte{0xee});
      };
      expect_patterns(exchange(group[rank], plan, sequence, payload, conduct), plan, sequence,
                      [&](int) { return size; });
    }
  });
}

TEST_P(TransportTest, GreetingsTellHowThePeerSeesTheEdge) {
  Group group(GetParam(), 2);
  group.run([&](int rank) {
    const Plan plan = rank == 0 ? Plan(0, 2, 1, {}, {{1, 0.5}}) : Plan(1, 2, 1, {{0, 0.25}}, {});
    const Bytes bytes = pattern(rank, 1, 100 + rank);
    const Greeting greeting = exchange(group[rank], plan, 1, bytes).greetings.at(0);
    EXPECT_EQ(greeting.frame.magic, Frame::kMagic);
    EXPECT_EQ(greeting.frame.sequence, 1u);
    EXPECT_EQ(greeting.frame.nbytes, 101u - rank);
    EXPECT_EQ(greeting.sends, rank == 0 ? 0u : 1u);
    EXPECT_EQ(greeting.receives, rank == 0 ? 1u : 0u);
    EXPECT_EQ(greeting.weight, rank == 0 ? 0 : 0.5);
  });
}

INSTANTIATE_TEST_SUITE_P(All, TransportTest, ::testing::ValuesIn(Group::kinds()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bluefog::test
