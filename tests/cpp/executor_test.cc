#include "backend/executor.h"

#include <gtest/gtest.h>

#include <future>
#include <latch>
#include <thread>

#include "tasks.h"

namespace bluefog::test {
namespace {

const Plan kAlone(0, 1, 1, {}, {});

// A rank of its own: what counts is when and where tasks run.
class ExecutorTest : public ::testing::Test {
 protected:
  // A task that runs `then` when it ends.
  Task task(std::function<void()> then) {
    return averaging(kAlone, x_, y_, [then = std::move(then)](std::exception_ptr) { then(); });
  }

  // A task whose end waits for `gate`; returns when it has been reached.
  void block(std::latch& gate) {
    auto reached = std::make_shared<std::latch>(1);
    executor_.submit(task([&gate, reached] {
      reached->count_down();
      gate.wait();
    }));
    reached->wait();
  }

  const std::vector<float> x_ = values(0, 10);
  std::vector<float> y_ = std::vector<float>(10);
  LoopbackHub hub_{1};
  LoopbackTransport transport_{&hub_, 0};
  Executor executor_{&transport_};
};

TEST_F(ExecutorTest, RunsTasksInTheOrderOfSubmission) {
  std::vector<int> order;
  std::latch gate(1), all(1);
  block(gate);
  for (int i = 0; i < 50; ++i) {
    executor_.submit(task([&order, i] { order.push_back(i); }));
  }
  executor_.submit(task([&] { all.count_down(); }));
  EXPECT_TRUE(order.empty());
  EXPECT_EQ(executor_.sequence(), 52u);
  gate.count_down();
  all.wait();
  ASSERT_EQ(order.size(), 50u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(ExecutorTest, RunsOnTheCallingThreadWhereNothingIsQueued) {
  Outcome outcome;
  executor_.run(averaging(kAlone, x_, y_, outcome));
  ASSERT_TRUE(outcome.ready());
  EXPECT_EQ(outcome.thread, std::this_thread::get_id());
  EXPECT_EQ(y_, x_);
}

TEST_F(ExecutorTest, RunsBehindWhatIsQueued) {
  std::latch gate(1);
  block(gate);
  Outcome outcome;
  auto caller = std::async(std::launch::async, [&] {
    executor_.run(averaging(kAlone, x_, y_, outcome));
    EXPECT_TRUE(outcome.ready()) << "run() returns when the task has ended";
    return std::this_thread::get_id();
  });
  while (executor_.sequence() < 2) std::this_thread::yield();
  EXPECT_FALSE(outcome.ready());
  gate.count_down();
  EXPECT_NE(caller.get(), outcome.thread);
}

TEST_F(ExecutorTest, SubmittedTasksWaitForOneThatIsRun) {
  std::latch running(1), gate(1);
  auto caller = std::async(std::launch::async, [&] {
    executor_.run(task([&] {
      running.count_down();
      gate.wait();
    }));
  });
  running.wait();
  Outcome outcome;
  executor_.submit(averaging(kAlone, x_, y_, outcome));
  EXPECT_FALSE(outcome.ready());
  gate.count_down();
  EXPECT_EQ(outcome.get().code, std::nullopt);
}

TEST_F(ExecutorTest, TakesTasksFromManyThreads) {
  std::atomic<int> ended{0};
  run_ranks(4, [&](int index) {
    for (int i = 0; i < 100; ++i) {
      if (index % 2 == 0) {
        executor_.run(task([&] { ++ended; }));
      } else {
        std::latch over(1);
        executor_.submit(task([&] {
          ++ended;
          over.count_down();
        }));
        over.wait();
      }
    }
  });
  EXPECT_EQ(ended, 400);
  EXPECT_EQ(executor_.sequence(), 400u);
}

TEST_F(ExecutorTest, ForgetsATaskBeforeTheNextOneStarts) {
  auto kept = std::make_shared<int>(0);
  const std::weak_ptr<int> watch = kept;
  executor_.submit(task([kept = std::move(kept)] {}));
  std::promise<bool> gone;
  executor_.submit(task([&] { gone.set_value(watch.expired()); }));
  EXPECT_TRUE(gone.get_future().get());
}

TEST_F(ExecutorTest, ShutdownFailsWhatIsPending) {
  std::latch gate(1);
  block(gate);
  std::deque<Outcome> pending(5);
  for (auto& outcome : pending) executor_.submit(averaging(kAlone, x_, y_, outcome));
  auto closing = std::async(std::launch::async, [&] { executor_.shutdown(); });
  std::deque<Outcome> probes;
  // Whether the shutdown is known is seen from what a new task gets.
  for (bool known = false; !known;) {
    Outcome& probe = probes.emplace_back();
    executor_.submit(averaging(kAlone, x_, y_, probe));
    known = probe.ready();
  }
  gate.count_down();
  closing.get();
  for (auto& outcome : pending) {
    ASSERT_TRUE(outcome.ready()) << "all have ended when shutdown() returns";
    EXPECT_EQ(outcome.get().code, ErrorCode::kAborted);
    EXPECT_EQ(outcome.calls, 1);
  }
}

TEST_F(ExecutorTest, AfterShutdownTasksFailAtOnce) {
  executor_.shutdown();
  executor_.shutdown();
  Outcome submitted, run;
  executor_.submit(averaging(kAlone, x_, y_, submitted));
  executor_.run(averaging(kAlone, x_, y_, run));
  for (Outcome* outcome : {&submitted, &run}) {
    ASSERT_TRUE(outcome->ready());
    EXPECT_EQ(outcome->get().code, ErrorCode::kAborted);
  }
}

TEST_F(ExecutorTest, ManyThreadsMayShutItDown) {
  std::latch gate(1);
  block(gate);
  std::latch calling(3);
  auto release = std::async(std::launch::async, [&] {
    calling.wait();
    gate.count_down();
  });
  run_ranks(3, [&](int) {
    calling.count_down();
    executor_.shutdown();
  });
}

}  // namespace
}  // namespace bluefog::test
