// Ranks that read each other's memory: results, and the order of the signals.
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "device/peer_ranks.h"

namespace bluefog::test {
namespace {

using Schedule = std::function<Graph(int size, int step)>;

struct Case {
  const char* name;
  Schedule graph;
};
void PrintTo(const Case& of, std::ostream* out) { *out << of.name; }

Graph empty_graph(int n) {
  return graph_of(n, [](int, int) { return false; });
}

// Consecutive steps share edges, share none, turn them around, or leave ranks out.
Graph changing(int n, int step) {
  switch (step % 5) {
    case 0:
      return one_way_ring(n);
    case 1:
      return in_star(n);
    case 2:
      return graph_of(n, [n](int i, int j) { return i == (j + 1) % n; });
    case 3:
      return empty_graph(n);
    default:
      return out_star(n);
  }
}

class PeerExchange : public ::testing::TestWithParam<Case> {};

// A slow rank each step, and inputs that become NaN as soon as their owner may overwrite them.
TEST_P(PeerExchange, AveragesExactlyAndLeavesInputsAlone) {
  for (int n = 1; n <= 4; ++n) {
    Ranks ranks(n);
    ranks.host.run([&](int rank) {
      const at::Tensor x = ranks[rank].allocate(kCount, kFloat);
      const at::Tensor y = at::empty({kCount}, kFloat);
      for (int step = 0; step < 60; ++step) {
        const Plan plan = weighted(GetParam().graph(n, step), rank);
        x.copy_(values(rank, step));
        ASSERT_TRUE(ranks[rank].serves({x}, true));
        const auto slowly = [&](auto&&... args) {
          if (rank == step % n) std::this_thread::sleep_for(std::chrono::microseconds(300));
          combine(args...);
        };
        ranks[rank].exchange({plan, {x}, {y}}, slowly);
        x.fill_(std::numeric_limits<double>::quiet_NaN());
        expect_equal(y, averaged(plan, [&](int r) { return values(r, step); }), plan.describe());
      }
    });
    EXPECT_EQ(ranks.host.signals_up(), 0u);
  }
}

TEST_P(PeerExchange, AveragesInPlace) {
  constexpr int kSteps = 6;
  for (int n = 1; n <= 4; ++n) {
    std::vector<at::Tensor> expected;
    for (int rank = 0; rank < n; ++rank) expected.push_back(values(rank, 0));
    for (int step = 0; step < kSteps; ++step) {
      std::vector<at::Tensor> next;
      for (int rank = 0; rank < n; ++rank) {
        next.push_back(averaged(weighted(GetParam().graph(n, step), rank),
                                [&](int r) { return expected[r]; }));
      }
      expected = next;
    }

    Ranks ranks(n);
    ranks.host.run([&](int rank) {
      const at::Tensor x = ranks[rank].allocate(kCount, kDouble);
      x.copy_(values(rank, 0));
      for (int step = 0; step < kSteps; ++step) {
        const Plan plan = weighted(GetParam().graph(n, step), rank);
        ranks[rank].exchange({plan, {x}, {x}}, [&](auto&&... args) {
          if (rank == step % n) std::this_thread::sleep_for(std::chrono::microseconds(300));
          combine(args...);
        });
      }
      expect_equal(x, expected[rank], "in place");
    });
    EXPECT_EQ(ranks.host.signals_up(), 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Graphs, PeerExchange,
    ::testing::Values(Case{"complete", [](int n, int) { return complete(n); }},
                      Case{"ring", [](int n, int) { return ring(n); }},
                      Case{"one_way_ring", [](int n, int) { return one_way_ring(n); }},
                      Case{"star", [](int n, int) { return star(n); }},
                      Case{"out_star", [](int n, int) { return out_star(n); }},
                      Case{"one_peer",
                           [](int n, int k) { return n < 2 ? empty_graph(n) : one_peer(n, k); }},
                      Case{"changing", changing}),
    [](const auto& info) { return info.param.name; });

TEST(PeerMemoryTest, TensorsOfOneAllocationAndOfTwo) {
  Ranks ranks(3);
  ranks.host.run([&](int rank) {
    PeerMemory& memory = ranks[rank];
    const at::Tensor flat = memory.allocate(100, kFloat), more = memory.allocate(10, kDouble);
    const Tensors x{flat.slice(0, 60, 90).view({5, 6}), at::empty({0}, kFloat),
                    flat.slice(0, 3, 20), more.slice(0, 4)};
    Tensors y;
    for (std::size_t t = 0; t < x.size(); ++t) {
      x[t].copy_(values(rank, 7 * t, x[t].numel()).view(x[t].sizes()));
      y.push_back(at::empty_like(x[t]));
    }
    EXPECT_EQ(memory.place_of(x[0]), "allocation 1 + 240 bytes");
    EXPECT_EQ(memory.place_of(x[1]), "");
    EXPECT_EQ(memory.place_of(x[2]), "allocation 1 + 12 bytes");
    EXPECT_EQ(memory.place_of(x[3]), "allocation 2 + 32 bytes");
    ASSERT_TRUE(memory.serves(x, true));
    const Plan plan = weighted(ring(3), rank);
    memory.exchange({plan, x, y}, combine);
    for (std::size_t t = 0; t < x.size(); ++t) {
      expect_equal(y[t], averaged(plan, [&](int r) { return values(r, 7 * t, x[t].numel()); }),
                   "tensors");
    }
  });
  EXPECT_EQ(ranks.host.signals_up(), 0u);
}

// Two streams of a rank are two threads here; one is at another step than the other.
TEST(PeerMemoryTest, StreamsWithChannelsOfTheirOwn) {
  constexpr int n = 3;
  Ranks ranks(n);
  ranks.host.run([&](int rank) {
    const at::Tensor memory = ranks[rank].allocate(2 * kCount, kFloat);
    std::vector<std::exception_ptr> errors(2);
    const auto stream = [&](int s) {
      try {
        const at::Tensor x = memory.slice(0, s * kCount, (s + 1) * kCount);
        const at::Tensor y = at::empty({kCount}, kFloat);
        for (int step = 0; step < 100; ++step) {
          const Plan plan = weighted(s == 0 ? one_way_ring(n) : complete(n), rank);
          x.copy_(values(rank, 1000 * s + step));
          ranks[rank].exchange({plan, {x}, {y}, 2 * s}, combine);
          expect_equal(y, averaged(plan, [&](int r) { return values(r, 1000 * s + step); }),
                       "stream " + std::to_string(s));
        }
      } catch (...) {
        errors[s] = std::current_exception();
        ranks.host.give_up();
      }
    };
    std::thread other(stream, 1);
    stream(0);
    other.join();
    for (const auto& error : errors) {
      if (error) std::rethrow_exception(error);
    }
  });
  EXPECT_EQ(ranks.host.signals_up(), 0u);
}

TEST(PeerMemoryTest, PutsBeforeItWaitsAndReadsInBetween) {
  Ranks ranks(3);
  ranks.host.run([&](int rank) {
    const at::Tensor x = ranks[rank].allocate(4, kFloat).zero_(), y = at::empty_like(x);
    const Plan plan = Graph{3, {{0, 1}, {0, 2}, {2, 0}}}.plan(rank);
    ranks[rank].exchange({plan, {x}, {y}, 4},
                         [&](auto&&...) { ranks.host.log[rank].push_back("combine"); });
  });
  using Log = std::vector<std::string>;
  EXPECT_EQ(ranks.host.log[0],
            (Log{"put 4 1", "put 4 2", "wait 4 2", "combine", "put 5 2", "wait 5 1", "wait 5 2"}));
  EXPECT_EQ(ranks.host.log[1], (Log{"wait 4 0", "combine", "put 5 0"}));
}

TEST(PeerMemoryTest, RanksWithoutNeighboursSignalNothing) {
  Ranks ranks(2);
  ranks.host.run([&](int rank) {
    const at::Tensor x = ranks[rank].allocate(kCount, kFloat);
    x.copy_(values(rank, 0));
    const Plan plan(rank, 2, 0.5, {}, {});
    if (rank == 0) ranks[rank].exchange({plan, {x}, {x}}, combine);
    expect_equal(x, values(rank, 0) * (rank == 0 ? 0.5 : 1.0), "alone");
    EXPECT_TRUE(ranks.host.log[rank].empty());
  });
}

}  // namespace
}  // namespace bluefog::test
