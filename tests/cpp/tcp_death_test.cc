// Neighbours in other processes that are killed, or stopped for longer than others wait for them.
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "forked.h"
#include "graphs.h"
#include "traffic.h"
#include "transport/tcp/tcp_transport.h"

namespace bluefog::test {
namespace {

constexpr std::size_t kSize = 12 << 20;  // more than connections hold

std::unique_ptr<Transport> join(const Rendezvous& rendezvous, int rank, int size) {
  std::vector<int> others;
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank) others.push_back(peer);
  }
  return tcp::TcpTransport::connect(rendezvous, rank, size, others, "lo", Deadline::in(kPlenty));
}

void expect_all(Transport& transport, const Plan& plan, std::uint64_t sequence) {
  const Bytes mine = pattern(plan.rank(), sequence, kSize);
  expect_patterns(exchange(transport, plan, sequence, mine), plan, sequence,
                  [](int) { return kSize; });
}

TEST(TcpDeathTest, ADeathIsToldAtOnceAndDisturbsNoOtherEdge) {
  constexpr int kRanks = 4;  // a ring: 2 is no neighbour of 0
  Store store;
  std::vector<std::unique_ptr<ForkedRank>> others;
  for (int rank = 1; rank < kRanks; ++rank) {
    others.push_back(std::make_unique<ForkedRank>(store, rank, [=](const Rendezvous& rendezvous) {
      const auto transport = join(rendezvous, rank, kRanks);
      const Plan plan = ring(kRanks).plan(rank);
      expect_all(*transport, plan, 1);
      if (rank == 1) {
        Payload payload;
        const Bytes mine = pattern(1, 2, kSize);
        payload.add(mine.data(), mine.size());
        const auto halfway = transport->begin(request_of(plan, 2, payload));
        halfway->meet();
        Piece piece;
        halfway->next(piece);
        rendezvous.set("halfway", "");
        while (true) ::pause();
      }
      const Arrival arrival = exchange(*transport, plan, 2, pattern(rank, 2, kSize));
      EXPECT_EQ(arrival.failed(), rank == 2 ? std::set<int>{1} : std::set<int>{});
      expect_all(*transport, Graph{4, {{0, 3}, {3, 0}, {2, 3}, {3, 2}}}.plan(rank), 3);
    }));
  }
  const auto transport = join(store.rendezvous(0), 0, kRanks);
  const Plan plan = ring(kRanks).plan(0);
  expect_all(*transport, plan, 1);
  std::thread killer([&] {
    store.get(1, "halfway");
    others[0]->signal(SIGKILL);
  });
  const auto start = Deadline::Clock::now();
  const Arrival arrival = exchange(*transport, plan, 2, pattern(0, 2, kSize));
  EXPECT_LT(Deadline::Clock::now() - start, std::chrono::seconds(10)) << "and not 30";
  killer.join();
  ASSERT_EQ(arrival.failed(), (std::set<int>{1}));
  EXPECT_EQ(arrival.failures[0].code, ErrorCode::kPeerLost) << arrival.failures[0].what;
  EXPECT_TRUE(arrival.bytes.at(3) == pattern(3, 2, kSize)) << "the other edge goes on";
  EXPECT_NE(transport->lost(1), nullptr);
  EXPECT_EQ(transport->lost(2), nullptr);
  expect_all(*transport, Graph{4, {{0, 3}, {3, 0}, {2, 3}, {3, 2}}}.plan(0), 3);
  for (int rank : {2, 3}) EXPECT_EQ(others[rank - 1]->wait(), 0) << rank;
}

TEST(TcpDeathTest, WhoOnlySendsIsToldTooThatNobodyReads) {
  Store store;
  const auto graph = Graph{2, {{0, 1}}};
  ForkedRank neighbor(store, 1, [&](const Rendezvous& rendezvous) {
    const auto transport = join(rendezvous, 1, 2);
    const Plan plan = graph.plan(1);
    const Payload nothing;
    const auto never = transport->begin(request_of(plan, 1, nothing));
    never->meet();
    rendezvous.set("met", "");
    while (true) ::pause();
  });
  const auto transport = join(store.rendezvous(0), 0, 2);
  std::thread killer([&] {
    store.get(1, "met");
    neighbor.signal(SIGKILL);
  });
  const Arrival arrival = exchange(*transport, graph.plan(0), 1, pattern(0, 1, kSize));
  killer.join();
  ASSERT_EQ(arrival.failed(), (std::set<int>{1}));
  EXPECT_EQ(arrival.failures[0].code, ErrorCode::kPeerLost) << arrival.failures[0].what;
}

TEST(TcpDeathTest, AnEdgeHealsAfterAStopThatWasTooLong) {
  Store store;
  ForkedRank neighbor(store, 1, [](const Rendezvous& rendezvous) {
    const auto transport = join(rendezvous, 1, 2);
    const Plan plan = complete(2).plan(1);
    for (std::uint64_t sequence = 1; sequence <= 4; ++sequence) {
      if (sequence == 2) rendezvous.get(0, "stopped");
      const Arrival arrival = exchange(*transport, plan, sequence, pattern(1, sequence, kSize));
      EXPECT_EQ(arrival.failures.empty(), sequence != 2 && sequence != 3) << sequence;
    }
  });
  const auto transport = join(store.rendezvous(0), 0, 2);
  const Plan plan = complete(2).plan(0);
  expect_all(*transport, plan, 1);
  neighbor.signal(SIGSTOP);
  for (std::uint64_t sequence : {2, 3}) {
    const Arrival arrival =
        exchange(*transport, plan, sequence, pattern(0, sequence, kSize), {kShort});
    ASSERT_EQ(arrival.failed(), (std::set<int>{1}));
    EXPECT_EQ(arrival.failures[0].what, "did not start it");
  }
  store.set(0, "stopped", "");
  neighbor.signal(SIGCONT);
  expect_all(*transport, plan, 4);
  EXPECT_EQ(neighbor.wait(), 0);
}

}  // namespace
}  // namespace bluefog::test
