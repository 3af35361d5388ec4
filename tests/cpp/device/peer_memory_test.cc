// Ranks that read each other's memory: results, order of the signals, and when the ranks agree to.
#include "device/peer_memory.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <memory>

#include "base/error.h"
#include "device/fake_symmetric.h"
#include "graphs.h"

namespace bluefog::test {
namespace {

using device::PeerGroup;
using device::PeerMemory;
using device::PeerRound;
using Tensors = std::vector<at::Tensor>;

constexpr int kCount = 257;
const auto kFloat = at::TensorOptions(at::kCPU).dtype(at::kFloat);
const auto kDouble = kFloat.dtype(at::kDouble);

/// One PeerMemory per rank.
struct Ranks {
  explicit Ranks(int size) : host(size) {
    at::set_num_threads(1);
    for (int rank = 0; rank < size; ++rank) {
      memories.push_back(std::make_unique<PeerMemory>(at::kCPU, group(rank)));
    }
  }
  PeerGroup group(int rank) {
    return {FakeAllocator::instance().introduce(host, rank),
            [this, rank] { return !unreachable.contains(rank); },
            [this, rank](bool yes) { return host.all_agree(rank, yes); }, "fake"};
  }
  PeerMemory& operator[](int rank) { return *memories[rank]; }

  FakeHost host;
  std::set<int> unreachable;  // who say that not all devices can be reached
  std::vector<std::unique_ptr<PeerMemory>> memories;
};

/// The reference. Neighbours have written to the inputs before, and may not after, until it is
/// over.
void combine(const Tensors& outputs, const Tensors& inputs, const Tensors& arrivals,
             const std::vector<double>& weights) {
  const std::size_t n = inputs.size();
  ASSERT_EQ(arrivals.size(), (weights.size() - 1) * n);
  for (std::size_t t = 0; t < n; ++t) {
    at::Tensor sum = inputs[t].flatten() * weights[0];
    for (std::size_t j = 0; j + 1 < weights.size(); ++j) {
      sum += arrivals[j * n + t] * weights[j + 1];
    }
    outputs[t].copy_(sum.view(outputs[t].sizes()));
  }
}

/// Powers of two that differ by source, so that the results are exact and none can be mixed up.
Plan weighted(const Graph& graph, int rank) {
  std::vector<Edge> sources = graph.plan(rank).sources();
  for (Edge& source : sources) source.weight = std::ldexp(1.0, -2 - source.rank);
  return Plan(rank, graph.size, 0.5, std::move(sources), graph.plan(rank).destinations());
}

at::Tensor values(int rank, int step, std::int64_t count = kCount) {
  return at::arange(count, kDouble).remainder(13) + 100.0 * rank + step;
}

at::Tensor averaged(const Plan& plan, const std::function<at::Tensor(int)>& x) {
  at::Tensor y = x(plan.rank()) * plan.self_weight();
  for (const Edge& source : plan.sources()) y += x(source.rank) * source.weight;
  return y;
}

void expect_equal(const at::Tensor& got, const at::Tensor& expected, const std::string& where) {
  if (!at::equal(got.flatten().to(at::kDouble), expected.flatten())) {
    throw std::runtime_error("wrong result: " + where);
  }
}

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

TEST(PeerMemoryTest, ServesWhatIsRegisteredAndOfTheTopology) {
  Ranks ranks(2);
  ranks.host.run([&](int rank) {
    PeerMemory& memory = ranks[rank];
    const at::Tensor elsewhere = at::zeros({4}, kFloat), none = at::empty({0}, kFloat);
    EXPECT_FALSE(memory.serves({elsewhere}, true));
    const at::Tensor x = memory.allocate(100, kFloat);
    EXPECT_TRUE(memory.serves({x}, true));
    EXPECT_TRUE(memory.serves({none, x.slice(0, 50)}, true));
    EXPECT_TRUE(memory.serves({x.view({10, 10}).t()}, true));
    EXPECT_FALSE(memory.serves({x}, false));
    EXPECT_FALSE(memory.serves({x, elsewhere}, true));
    EXPECT_FALSE(memory.serves({x.slice(0, 0, 100, 2)}, true));
    EXPECT_FALSE(memory.serves({x.slice(0, 0, 1).expand({200})}, true));
    EXPECT_FALSE(memory.serves({none}, true));
    EXPECT_FALSE(memory.serves({}, true));
    EXPECT_EQ(memory.place_of(elsewhere), "");
  });
}

TEST(PeerMemoryTest, RefusesToScaleBeforeAnythingIsSignalled) {
  Ranks ranks(2);
  ranks.host.run([&](int rank) {
    const at::Tensor x = ranks[rank].allocate(4, kFloat), y = at::empty_like(x);
    const Plan plan(rank, 2, 0.5, {{1 - rank, 0.5}}, {{1 - rank, 0.5}});
    try {
      ranks[rank].exchange({plan, {x}, {y}}, combine);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
    }
    EXPECT_TRUE(ranks.host.log[rank].empty());
  });
}

TEST(PeerMemoryTest, FreedMemoryIsForgottenAtOnce) {
  const std::size_t blocks = FakeAllocator::instance().blocks();
  const int handles = FakeSymmetricMemory::alive;
  Ranks ranks(2);
  ranks.host.run([&](int rank) {
    PeerMemory& memory = ranks[rank];
    at::Tensor kept = memory.allocate(8, kFloat);
    for (int i = 0; i < 20; ++i) {  // of sizes that make malloc give out the same places
      at::Tensor x = memory.allocate(16 + 16 * (i % 3), kFloat);
      const at::Tensor view = x.slice(0, 4, 8);
      x.reset();
      EXPECT_EQ(memory.place_of(view), concat("allocation ", 2 + i, " + 16 bytes"));
      const at::Tensor stranger = at::from_blob(view.data_ptr(), {4}, kFloat);
      EXPECT_TRUE(memory.serves({stranger}, true));
      const_cast<at::Tensor&>(view).reset();
      EXPECT_FALSE(memory.serves({stranger}, true));
    }
    EXPECT_TRUE(memory.serves({kept}, true));
  });
  EXPECT_EQ(FakeAllocator::instance().blocks(), blocks);
  EXPECT_EQ(FakeSymmetricMemory::alive, handles);
}

TEST(PeerMemoryTest, NewMemoryAroundWhereOldWasIsFound) {
  std::vector<float> room(100);
  Ranks ranks(1);
  PeerMemory& memory = ranks[0];
  ranks.host.next_place[0] = &room[40];
  memory.allocate(8, kFloat);
  ranks.host.next_place[0] = &room[0];
  const at::Tensor x = memory.allocate(100, kFloat);
  EXPECT_EQ(memory.place_of(x.slice(0, 50)), "allocation 2 + 200 bytes");
}

TEST(PeerMemoryTest, TensorsOutliveIt) {
  Ranks ranks(2);
  const int handles = FakeSymmetricMemory::alive;
  std::vector<at::Tensor> kept(2);
  ranks.host.run([&](int rank) {
    kept[rank] = ranks[rank].allocate(8, kFloat).fill_(rank + 1);
    ranks.memories[rank].reset();
  });
  EXPECT_EQ(kept[1].sum().item<float>(), 16);
  EXPECT_EQ(FakeSymmetricMemory::alive, handles + 2);
  kept.clear();
  EXPECT_EQ(FakeSymmetricMemory::alive, handles);
}

/// What prevents it on one rank turns the path off on all, and for memory that was registered too.
void expect_off_on_all(Ranks& ranks, const std::function<void()>& then, const char* why) {
  ranks.host.run([&](int rank) {
    const at::Tensor before = ranks[rank].allocate(8, kFloat);
    if (ranks.host.all_agree(rank, true) && rank == 0) then();
    ranks.host.all_agree(rank, true);
    EXPECT_FALSE(ranks[rank].allocate(8, kFloat).defined());
    EXPECT_FALSE(ranks[rank].allocate(8, kFloat).defined());
    EXPECT_EQ(ranks[rank].refusal().find(rank == 1 ? why : "another rank"), 0u)
        << ranks[rank].refusal();
    if (before.defined()) {
      EXPECT_FALSE(ranks[rank].serves({before}, true));
      EXPECT_NE(ranks[rank].place_of(before), "");
    }
  });
}

TEST(PeerMemoryTest, OneRankThatCannotMapTurnsItOffForAll) {
  Ranks ranks(3);
  expect_off_on_all(ranks, [&] { ranks.host.without_mapping = {1}; }, "cannot map");
}

TEST(PeerMemoryTest, OneRankWithoutDirectAccessTurnsItOffForAll) {
  Ranks ranks(3);
  expect_off_on_all(ranks, [&] { ranks.host.without_access = {1}; }, "a device cannot be reached");
}

TEST(PeerMemoryTest, OneRankThatIsNotReachableTurnsItOffForAll) {
  Ranks ranks(3);
  ranks.unreachable = {1};
  expect_off_on_all(ranks, [] {}, "not all devices");
}

TEST(PeerMemoryTest, AnotherImplementationIsNotUsed) {
  Ranks ranks(1);
  PeerGroup group = ranks.group(0);
  group.implementation = "CUDA";
  PeerMemory memory(at::kCPU, group);
  EXPECT_FALSE(memory.allocate(8, kFloat).defined());
  EXPECT_NE(memory.refusal().find("is not CUDA"), std::string::npos) << memory.refusal();
}

TEST(PeerMemoryTest, OutOfMemoryOnOneRankIsForNowOnly) {
  Ranks ranks(2);
  ranks.host.without_memory = {1};
  ranks.host.run([&](int rank) { EXPECT_FALSE(ranks[rank].allocate(8, kFloat).defined()); });
  ranks.host.without_memory = {};
  ranks.host.run([&](int rank) {
    EXPECT_EQ(ranks[rank].place_of(ranks[rank].allocate(8, kFloat)), "allocation 1 + 0 bytes");
    EXPECT_FALSE(ranks[rank].allocate(0, kFloat).defined());
    EXPECT_EQ(ranks[rank].refusal(), "");
  });
}

}  // namespace
}  // namespace bluefog::test
