// The executor over real transports: results, and who fails how.
#include <gtest/gtest.h>

#include <latch>

#include "tasks.h"

namespace bluefog::test {
namespace {

constexpr std::size_t kCount = 5000;

class ExecutorExchangeTest : public ::testing::TestWithParam<std::string> {};

TEST_P(ExecutorExchangeTest, AveragesExactly) {
  Group group(GetParam(), 4);
  Executors executors(group);
  group.run([&](int rank) {
    // y = x / 2 + (left + right) / 4, with numbers for which that is exact.
    const int left = (rank + 3) % 4, right = (rank + 1) % 4;
    const Plan plan(rank, 4, 0.5, {{left, 0.25}, {right, 0.5}}, {{left, 0.5}, {right, 1}});
    const auto x = values(rank, kCount), l = values(left, kCount), r = values(right, kCount);
    std::vector<float> y(kCount);
    Outcome outcome;
    executors[rank].run(averaging(plan, x, y, outcome));
    ASSERT_EQ(outcome.get().code, std::nullopt);
    for (std::size_t i = 0; i < kCount; ++i) {
      ASSERT_EQ(y[i], 0.5f * x[i] + 0.25f * l[i] + 0.25f * r[i]);
    }
  });
}

/// Takes a token for every piece before it is reduced: a reader as slow as the test wants.
class SlowSink : public Sink {
 public:
  SlowSink(std::unique_ptr<Sink> inner, std::function<void()> before_piece)
      : inner_(std::move(inner)), before_piece_(std::move(before_piece)) {}
  void prepare(const Plan& plan, std::span<const Greeting> sources) override {
    inner_->prepare(plan, sources);
  }
  void consume(const Piece& piece) override {
    before_piece_();
    inner_->consume(piece);
  }
  void finish() override { inner_->finish(); }

 private:
  std::unique_ptr<Sink> inner_;
  std::function<void()> before_piece_;
};

// The output is the input, and rank 2 reads nothing before ranks 0 and 1 have written over as much
// of theirs as they can.
TEST_P(ExecutorExchangeTest, InPlaceWithASlowReader) {
  constexpr std::size_t kLong = 50000;
  Group group(GetParam(), 3);
  Executors executors(group);
  const Graph graph{3, {{0, 1}, {1, 0}, {0, 2}, {1, 2}}};
  std::latch written(2);
  group.run([&](int rank) {
    const Plan plan = graph.plan(rank);
    std::vector<float> x = values(rank, kLong);
    const auto expected = expected_sum(plan, kLong);
    Outcome outcome;
    Task task = averaging(plan, x, x, outcome);
    std::atomic<bool> first{true};
    task.sink = std::make_unique<SlowSink>(std::move(task.sink), [&] {
      if (!first.exchange(false)) return;
      rank == 2 ? written.wait() : written.count_down();
    });
    executors[rank].submit(std::move(task));
    EXPECT_EQ(outcome.get().code, std::nullopt);
    EXPECT_TRUE(x == expected) << "rank " << rank;
  });
}

TEST_P(ExecutorExchangeTest, ManyOperationsAreInFlight) {
  constexpr int kTasks = 40;
  Group group(GetParam(), 3);
  Executors executors(group);
  std::latch submitted(2);
  group.run([&](int rank) {
    const Plan plan = ring(3).plan(rank);
    const auto x = values(rank, 3000);
    std::vector<std::vector<float>> ys(kTasks, std::vector<float>(3000));
    std::deque<Outcome> outcomes(kTasks);
    if (rank == 0) submitted.wait();  // the others have queued all they have
    for (int i = 0; i < kTasks; ++i) {
      executors[rank].submit(averaging(plan, x, ys[i], outcomes[i]));
    }
    if (rank != 0) submitted.count_down();
    for (int i = 0; i < kTasks; ++i) {
      EXPECT_EQ(outcomes[i].get().code, std::nullopt);
      EXPECT_TRUE(ys[i] == expected_sum(plan, 3000)) << "rank " << rank << " task " << i;
    }
  });
}

TEST_P(ExecutorExchangeTest, CountsBytesOncePerDestination) {
  Group group(GetParam(), 3);
  Executors executors(group);
  group.run([&](int rank) {
    const Plan plan = out_star(3).plan(rank);
    const auto x = values(rank, 100);
    std::vector<float> y(100);
    for (int i = 0; i < 3; ++i) {
      Outcome outcome;
      executors[rank].run(averaging(plan, x, y, outcome));
      EXPECT_EQ(outcome.get().code, std::nullopt);
    }
    EXPECT_EQ(executors[rank].bytes_sent(), rank == 0 ? 3 * 2 * 400u : 0u);
  });
}

TEST_P(ExecutorExchangeTest, ShutdownWakesWhoeverWaits) {
  Group group(GetParam(), 2);
  Executors executors(group);
  const Plan plan = complete(2).plan(0);
  const auto x = values(0, 100);
  std::vector<float> y(100, -1);
  std::deque<Outcome> pending(3);
  for (auto& outcome : pending) executors[0].submit(averaging(plan, x, y, outcome));
  const auto start = Deadline::Clock::now();
  executors[0].shutdown();  // rank 1 has not come
  EXPECT_LT(Deadline::Clock::now() - start, kPlenty / 2);
  for (auto& outcome : pending) {
    ASSERT_TRUE(outcome.ready());
    const Caught caught = outcome.get();
    EXPECT_EQ(caught.code, ErrorCode::kAborted);
    EXPECT_NE(caught.what.find("on rank 0 ended because the process group was aborted"),
              std::string::npos)
        << caught.what;
    EXPECT_EQ(outcome.calls, 1);
  }
  EXPECT_EQ(y, std::vector<float>(100, -1));
}

TEST_P(ExecutorExchangeTest, ATimeoutSaysWhoIsMissingAndHowLongItTook) {
  Group group(GetParam(), 4);
  Executors executors(group);
  std::latch together(2);
  group.run([&](int rank) {
    if (rank == 1 || rank == 3) return;
    together.arrive_and_wait();
    const Plan plan = complete(4).plan(rank);
    const auto x = values(rank, kCount);
    std::vector<float> y(kCount, -1);
    Outcome outcome;
    executors[rank].run(averaging(plan, x, y, outcome, kShort));
    const Caught caught = outcome.get();
    EXPECT_EQ(caught.code, ErrorCode::kTimeout);
    const std::string begin = concat("neighbor_allreduce #1 on rank ", rank, " failed after ");
    ASSERT_EQ(caught.what.substr(0, begin.size()), begin) << caught.what;
    EXPECT_LT(std::stod(caught.what.substr(begin.size())), 5.0) << caught.what;
    EXPECT_NE(caught.what.find(" s: ranks {1, 3} did not start it"), std::string::npos)
        << caught.what;
    EXPECT_EQ(y, std::vector<float>(kCount, -1)) << "outputs are untouched";
    EXPECT_EQ(executors[rank].bytes_sent(), 0u);
  });
}

INSTANTIATE_TEST_SUITE_P(All, ExecutorExchangeTest, ::testing::ValuesIn(Group::kinds()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bluefog::test
