// The end of a process, by SIGKILL and by a goodbye.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <iostream>
#include <thread>

#include "forked.h"
#include "tasks.h"
#include "traffic.h"

namespace bluefog::test {
namespace {

const Env kEnv = shm_env(4096, 2);
constexpr std::size_t kCount = 20000;  // ten rings

std::unique_ptr<shm::ShmTransport> connect(const Rendezvous& rendezvous, int rank, int n) {
  return shm::ShmTransport::connect(rendezvous, rank, n, kEnv, Deadline::in(kPlenty));
}

/// Says in the rendezvous that the first piece has come, and then stands still for ever.
class StuckSink : public Sink {
 public:
  explicit StuckSink(const Rendezvous& rendezvous) : rendezvous_(rendezvous) {}
  void prepare(const Plan&, std::span<const Greeting>) override {}
  void consume(const Piece&) override {
    rendezvous_.set("stuck", "");
    while (true) ::pause();
  }

 private:
  const Rendezvous rendezvous_;
};

void average_until_stuck(const Rendezvous& rendezvous, const Plan& plan) {
  const auto transport = connect(rendezvous, plan.rank(), plan.size());
  Executor executor(transport.get());
  std::vector<float> x = values(plan.rank(), kCount);
  std::vector<float> y = x;
  Outcome outcome;
  Task task = averaging(plan, x, y, outcome);
  task.sink = std::make_unique<StuckSink>(rendezvous);
  executor.submit(std::move(task));
  outcome.get();
}

// Rank 1 is killed in the middle of an operation on the path 1 - 0 - 2. Rank 0 learns of it at
// once; rank 2, who has nothing to do with rank 1, notices nothing.
TEST(ShmDeathTest, OnlyTheEdgeOfTheDeadFails) {
  Store store;
  const Graph path{3, {{0, 1}, {1, 0}, {0, 2}, {2, 0}}};
  ForkedRank victim(store, 1, [&](const Rendezvous& rendezvous) {
    average_until_stuck(rendezvous, path.plan(1));
  });
  std::array<std::unique_ptr<shm::ShmTransport>, 3> transports;
  run_ranks(2, [&](int i) { transports[2 * i] = connect(store.rendezvous(2 * i), 2 * i, 3); });
  ASSERT_TRUE(transports[0]->reaches(1));
  Executor executor0(transports[0].get());
  Executor executor2(transports[2].get());
  const auto x0 = values(0, kCount);
  const auto x2 = values(2, kCount);
  std::vector<float> y0(kCount), y2(kCount);
  Outcome outcome0, outcome2;
  executor0.submit(averaging(path.plan(0), x0, y0, outcome0));
  executor2.submit(averaging(path.plan(2), x2, y2, outcome2));

  store.get(1, "stuck");
  EXPECT_FALSE(outcome0.ready()) << "rank 0 waits for the rest of what rank 1 sends";
  const auto killed = Deadline::Clock::now();
  victim.signal(SIGKILL);
  const Caught caught = outcome0.get();
  const std::chrono::duration<double, std::milli> took = Deadline::Clock::now() - killed;
  std::cout << "survivor knew after " << took.count() << " ms" << std::endl;
  EXPECT_LT(took.count(), 1000);
  EXPECT_EQ(caught.code, ErrorCode::kPeerLost);
  EXPECT_NE(caught.what.find("on rank 0 failed"), std::string::npos) << caught.what;
  EXPECT_NE(caught.what.find("rank 1 was lost: its process ended"), std::string::npos)
      << caught.what;
  EXPECT_EQ(outcome2.get().code, std::nullopt) << outcome2.get().what;
  EXPECT_EQ(y2, expected_sum(path.plan(2), kCount));

  // The others go on, and who asks for the dead one is told at once.
  const Graph pair{3, {{0, 2}, {2, 0}}};
  const Graph to_the_dead{3, {{0, 1}}};
  Outcome again0, again2, dead0;
  executor0.submit(averaging(pair.plan(0), x0, y0, again0));
  executor2.submit(averaging(pair.plan(2), x2, y2, again2));
  EXPECT_EQ(again0.get().code, std::nullopt) << again0.get().what;
  EXPECT_EQ(again2.get().code, std::nullopt) << again2.get().what;
  EXPECT_EQ(y0, expected_sum(pair.plan(0), kCount));
  executor0.submit(averaging(to_the_dead.plan(0), x0, y0, dead0));
  EXPECT_NE(dead0.get().what.find("rank 1 was lost: its process ended"), std::string::npos);
}

TEST(ShmDeathTest, AGoodbyeAfterTheLastWordIsNoFailure) {
  Store store;
  const Plan sender = Graph{2, {{0, 1}}}.plan(0);
  ForkedRank child(store, 0, [&](const Rendezvous& rendezvous) {
    const auto transport = connect(rendezvous, 0, 2);
    transport->attach();
    const Bytes bytes = pattern(0, 1, 8192);  // all of it fits: nobody need read first
    Payload payload;
    payload.add(bytes.data(), bytes.size());
    rendezvous.get(1, "begun");
    exchange(*transport, sender, 1, payload);
    transport->detach();
  });
  const auto transport = connect(store.rendezvous(1), 1, 2);
  const Plan receiver = Graph{2, {{0, 1}}}.plan(1);
  Payload nothing;
  const auto exchange = transport->begin(request_of(receiver, 1, nothing));
  store.set(1, "begun", "");
  EXPECT_EQ(child.wait(), 0);  // gone for good
  Arrival arrival;
  arrival.greetings = exchange->meet();
  take_all(*exchange, receiver, arrival, [](const Piece&) {});
  expect_patterns(arrival, receiver, 1, [](int) { return 8192; });

  const Arrival later = test::exchange(*transport, receiver, 2, nothing);
  ASSERT_EQ(later.failures.size(), 1u);
  EXPECT_EQ(later.failures[0].code, ErrorCode::kPeerLost);
  EXPECT_EQ(later.failures[0].what, "was lost: it has destroyed the process group");
}

// The same at full speed: the reader's look at the chunk and at the goodbye fall anywhere.
TEST(ShmDeathTest, AGoodbyeAtAnyMomentIsNoFailure) {
  const Graph graph{2, {{0, 1}}};
  for (int round = 0; round < 300; ++round) {
    const auto transports = make_shm(2, kEnv);
    run_ranks(2, [&](int rank) {
      Executor executor(transports[rank].get());
      const auto x = values(rank, 2000);
      std::vector<float> y(2000);
      Outcome outcome;
      executor.submit(averaging(graph.plan(rank), x, y, outcome));
      EXPECT_EQ(outcome.get().code, std::nullopt) << outcome.get().what;
    });
  }
}

// Stopped for longer than the deadline: both ends get an error for what was missed, and go on.
TEST(ShmDeathTest, AStoppedProcessIsOnlyLate) {
  Store store;
  const Graph pair{2, {{0, 1}, {1, 0}}};
  const auto run_two = [&](Transport& transport, int rank) {
    const Plan plan = pair.plan(rank);
    const milliseconds patience = rank == 0 ? kShort : kPlenty;
    const Arrival missed = exchange(transport, plan, 1, pattern(rank, 1, 50000), {patience});
    ASSERT_EQ(missed.failures.size(), 1u);
    EXPECT_EQ(missed.failures[0].code, ErrorCode::kTimeout) << missed.failures[0].what;
    if (rank == 0) store.set(0, "gave up", "");
    expect_patterns(exchange(transport, plan, 2, pattern(rank, 2, 50000)), plan, 2,
                    [](int) { return 50000; });
  };
  ForkedRank child(store, 1, [&](const Rendezvous& rendezvous) {
    const auto transport = connect(rendezvous, 1, 2);
    transport->attach();
    ::raise(SIGSTOP);
    run_two(*transport, 1);
    transport->detach();
  });
  const auto transport = connect(store.rendezvous(0), 0, 2);
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid(), &status, WUNTRACED), child.pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  std::thread waker([&] {
    store.get(0, "gave up");
    child.signal(SIGCONT);
  });
  run_two(*transport, 0);
  waker.join();
  EXPECT_EQ(child.wait(), 0);
}

// Where the system refuses memory to a rank it says so, takes part and reaches nobody.
TEST(ShmDeathTest, ARankWithoutMemoryStillConnects) {
  Store store;
  ForkedRank child(store, 1, [&](const Rendezvous& rendezvous) {
    ::signal(SIGXFSZ, SIG_IGN);
    const rlimit small{1024, 1024};
    ::setrlimit(RLIMIT_FSIZE, &small);
    const auto transport = connect(rendezvous, 1, 3);
    EXPECT_FALSE(transport->reaches(0) || transport->reaches(2));
    Payload nothing;
    exchange(*transport, Plan(1, 3, 1, {}, {}), 1, nothing);  // with nobody: no memory is needed
    transport->attach();
    transport->abort();
    transport->detach();
  });
  run_ranks(2, [&](int i) {
    const auto transport = connect(store.rendezvous(2 * i), 2 * i, 3);
    EXPECT_TRUE(transport->reaches(2 - 2 * i));
    EXPECT_FALSE(transport->reaches(1));
  });
  EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace bluefog::test
