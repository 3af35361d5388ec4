// Faults of this rank's own making: injected ones, and sinks that throw.
#include <gtest/gtest.h>

#include <barrier>
#include <new>

#include "tasks.h"
#include "transport/faulty/faulty.h"

namespace bluefog::test {
namespace {

constexpr std::size_t kCount = 20000;  // more than the small rings hold

// Ranks 0, 1 and 2, all to all; rank 0 meets `injection` in its second operation. `check` judges
// what the ranks get there; the first and the third go well for everybody.
void run_with(const std::string& kind, Injection injection, milliseconds timeout,
              const std::function<void(int rank, const Caught&)>& check) {
  injection.exchange = 2;
  auto transports = make_shm(3, kind == "shm_tiny" ? shm_env(4096, 2) : shm_env(32768, 4));
  FaultyTransport faulty(std::move(transports[0]), injection);
  std::vector<Transport*> used{&faulty, transports[1].get(), transports[2].get()};
  std::vector<std::unique_ptr<Executor>> executors;
  for (Transport* transport : used) executors.push_back(std::make_unique<Executor>(transport));
  std::barrier<> all_have_ended(3);
  run_ranks(3, [&](int rank) {
    const Plan plan = complete(3).plan(rank);
    const auto x = values(rank, kCount);
    for (int operation = 1; operation <= 3; ++operation) {
      std::vector<float> y(kCount, -1);
      Outcome outcome;
      executors[rank]->run(averaging(plan, x, y, outcome, operation == 2 ? timeout : kPlenty));
      const Caught caught = outcome.get();
      EXPECT_EQ(outcome.calls, 1);
      if (operation == 2) {
        check(rank, caught);
      } else {
        EXPECT_EQ(caught.code, std::nullopt) << "rank " << rank << ": " << caught.what;
      }
      EXPECT_TRUE(caught.code || y == expected_sum(plan, kCount));
      all_have_ended.arrive_and_wait();
    }
  });
  EXPECT_EQ(faulty.injected(), 1);
}

class ExecutorFaultsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ExecutorFaultsTest, ARankThatDoesNotTakePart) {
  run_with(GetParam(), {Fault::kRefuse}, kShort, [](int rank, const Caught& caught) {
    EXPECT_EQ(caught.code, rank == 0 ? ErrorCode::kSystem : ErrorCode::kTimeout);
    const char* said = rank == 0 ? "rank 0 does not take part" : ": rank 0 did not start it";
    EXPECT_NE(caught.what.find(said), std::string::npos) << caught.what;
  });
}

TEST_P(ExecutorFaultsTest, ARankThatStopsInTheMiddle) {
  run_with(GetParam(), {Fault::kBreak}, kPlenty, [&](int rank, const Caught& caught) {
    if (rank == 0) {
      EXPECT_EQ(caught.code, ErrorCode::kSystem) << caught.what;
    } else if (GetParam() == "shm_tiny") {  // otherwise all of it was out before
      EXPECT_EQ(caught.code, ErrorCode::kTimeout) << caught.what;
      EXPECT_NE(caught.what.find("rank 0 gave up on it"), std::string::npos) << caught.what;
    }
  });
}

TEST_P(ExecutorFaultsTest, AnEdgeThatBreaks) {
  run_with(GetParam(), {Fault::kLosePeer, 2, 1}, kPlenty, [](int rank, const Caught& caught) {
    if (rank == 0) {
      EXPECT_EQ(caught.code, ErrorCode::kPeerLost);
      EXPECT_NE(caught.what.find("rank 1 was lost: injected fault"), std::string::npos);
    } else if (rank == 2) {
      EXPECT_EQ(caught.code, std::nullopt) << "rank 2 has no part in that edge: " << caught.what;
    }
  });
}

TEST_P(ExecutorFaultsTest, AGreetingThatIsNotWhatWasSent) {
  run_with(GetParam(), {Fault::kChangeGreeting, 2, 2}, kPlenty, [](int rank, const Caught& caught) {
    if (rank == 0) {
      EXPECT_EQ(caught.code, ErrorCode::kMismatch);
      EXPECT_NE(caught.what.find("rank 2 has"), std::string::npos) << caught.what;
    } else if (rank == 1) {
      EXPECT_EQ(caught.code, std::nullopt) << caught.what;
    }
  });
}

// Injectors one inside the other: rank 0 loses both of its neighbours.
TEST(ExecutorTwoFaultsTest, RanksThatWereLostAreNamedOneByOne) {
  auto transports = make_shm(3, shm_env(32768, 4));
  auto inner = std::make_unique<FaultyTransport>(std::move(transports[0]),
                                                 Injection{Fault::kLosePeer, 1, 1});
  FaultyTransport faulty(std::move(inner), {Fault::kLosePeer, 1, 2});
  std::vector<Transport*> used{&faulty, transports[1].get(), transports[2].get()};
  std::vector<std::unique_ptr<Executor>> executors;
  for (Transport* transport : used) executors.push_back(std::make_unique<Executor>(transport));
  run_ranks(3, [&](int rank) {
    const Plan plan = complete(3).plan(rank);
    const auto x = values(rank, kCount);
    std::vector<float> y(kCount, -1);
    Outcome outcome;
    executors[rank]->run(averaging(plan, x, y, outcome, kPlenty));
    if (rank == 0) {
      EXPECT_NE(outcome.get().what.find("rank 1 was lost: injected fault; rank 2 was lost: "
                                        "injected fault"),
                std::string::npos)
          << outcome.get().what;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, ExecutorFaultsTest, ::testing::Values("shm", "shm_tiny"),
                         [](const auto& info) { return info.param; });

enum class Stage { kPrepare, kConsume, kFinish };

class ThrowingSink : public Sink {
 public:
  explicit ThrowingSink(Stage stage) : stage_(stage) {}
  void prepare(const Plan&, std::span<const Greeting>) override { reach(Stage::kPrepare); }
  void consume(const Piece&) override { reach(Stage::kConsume); }
  void finish() override { reach(Stage::kFinish); }

 private:
  void reach(Stage stage) const {
    if (stage == stage_) throw std::bad_alloc();
  }
  const Stage stage_;
};

class ThrowingSinkTest : public ::testing::TestWithParam<std::string> {};

// Whatever a sink throws reaches the task's owner; the neighbour does not hang, and all goes on.
TEST_P(ThrowingSinkTest, FailsItsTaskOnly) {
  Group group(GetParam(), 2);
  Executors executors(group);
  const std::vector<Stage> stages{Stage::kPrepare, Stage::kConsume, Stage::kFinish};
  group.run([&](int rank) {
    const Plan plan = complete(2).plan(rank);
    const auto x = values(rank, kCount);
    std::vector<float> y(kCount);
    for (Stage stage : stages) {
      std::promise<std::exception_ptr> thrown;
      Outcome good;
      Task task = averaging(plan, x, y, [&](std::exception_ptr error) { thrown.set_value(error); });
      if (rank == 0) task.sink = std::make_unique<ThrowingSink>(stage);
      executors[rank].submit(std::move(task));
      const std::exception_ptr error = thrown.get_future().get();
      if (rank == 0) {
        EXPECT_THROW(std::rethrow_exception(error), std::bad_alloc);
      }
      executors[rank].run(averaging(plan, x, y, good));
      EXPECT_EQ(good.get().code, std::nullopt) << good.get().what;
      EXPECT_TRUE(y == expected_sum(plan, kCount));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, ThrowingSinkTest, ::testing::ValuesIn(Group::kinds()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bluefog::test
