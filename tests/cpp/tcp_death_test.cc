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
  return tcp::TcpTransport::connect(rendezvous, rank, size, others, "lo", tcp::Pieces::kMany,
                                    Deadline::in(kPlenty));
}

void expect_all(Transport& transport, const Plan& plan, std::uint64_t sequence) {
  const Bytes mine = pattern(plan.rank(), sequence, kSize);
  expect_patterns(exchange(transport, plan, sequence, mine), plan, sequence,
                  [](int) { return kSize; });
}

TEST(TcpDeathTest, ADeathIsToldAtOnceAndDisturbsNoOtherEdge) {
  constexpr int kRanks = 4;  // a ring: 3 is no neighbour of 1
  Store store;
  ForkedRank victim(store, 1, [](const Rendezvous& rendezvous) {
    const auto transport = join(rendezvous, 1, kRanks);
    const Plan plan = ring(kRanks).plan(1);
    expect_all(*transport, plan, 1);
    const Bytes mine = pattern(1, 2, kSize);
    Payload payload;
    payload.add(mine.data(), mine.size());
    const auto halfway = transport->begin(request_of(plan, 2, payload));
    halfway->meet();
    Piece piece;
    halfway->next(piece);
    rendezvous.set("halfway", "");
    while (true) ::pause();
  });
  std::thread killer([&] {
    store.get(1, "halfway");
    victim.signal(SIGKILL);
  });
  run_ranks(kRanks, [&](int rank) {
    if (rank == 1) return;
    const auto transport = join(store.rendezvous(rank), rank, kRanks);
    const Plan plan = ring(kRanks).plan(rank);
    expect_all(*transport, plan, 1);
    const auto start = Deadline::Clock::now();
    const Arrival arrival = exchange(*transport, plan, 2, pattern(rank, 2, kSize));
    EXPECT_LT(Deadline::Clock::now() - start, std::chrono::seconds(10)) << "and not 30";
    ASSERT_EQ(arrival.failed(), rank == 3 ? std::set<int>{} : std::set<int>{1});
    for (const Failure& failure : arrival.failures) {
      EXPECT_EQ(failure.code, ErrorCode::kPeerLost) << failure.what;
    }
    for (int source : {(rank + 1) % kRanks, (rank + 3) % kRanks}) {
      if (source == 1) continue;
      EXPECT_TRUE(arrival.bytes.at(source) == pattern(source, 2, kSize)) << "that edge goes on";
    }
    EXPECT_EQ(transport->lost(1) != nullptr, rank != 3);
    expect_all(*transport, Graph{kRanks, {{0, 3}, {3, 0}, {2, 3}, {3, 2}}}.plan(rank), 3);
  });
  killer.join();
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
