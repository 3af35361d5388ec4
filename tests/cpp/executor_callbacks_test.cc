// What runs after a task may start tasks of its own and wait for them, however many do so at once.
#include <gtest/gtest.h>

#include <latch>

#include "tasks.h"

namespace bluefog::test {
namespace {

const Plan kAlone(0, 1, 1, {}, {});

class ExecutorCallbacksTest : public ::testing::Test {
 protected:
  // A task after whose end `then` is called.
  Task task(Outcome& outcome, std::function<void()> then) {
    Task task = averaging(kAlone, x_, y_, outcome);
    task.after = std::move(then);
    return task;
  }

  // Starts a task and waits for its end, as a callback does that needs the result.
  void wait_for_one(bool submitted) {
    Outcome outcome;
    Task task = averaging(kAlone, x_, y_, outcome);
    submitted ? executor_.submit(std::move(task)) : executor_.run(std::move(task));
    EXPECT_EQ(outcome.get().code, std::nullopt);
  }

  const std::vector<float> x_ = values(0, 10);
  std::vector<float> y_ = std::vector<float>(10);
  LoopbackHub hub_{1};
  LoopbackTransport transport_{&hub_, 0};
  Executor executor_{&transport_};
};

TEST_F(ExecutorCallbacksTest, RunAfterTheTaskHasEnded) {
  Outcome outcome;
  std::latch called(1);
  executor_.submit(task(outcome, [&] {
    EXPECT_TRUE(outcome.ready());
    called.count_down();
  }));
  called.wait();
  bool ran = false;
  Outcome second;
  executor_.run(task(second, [&] { ran = second.ready(); }));
  EXPECT_TRUE(ran) << "on the calling thread, before run() returns";
}

TEST_F(ExecutorCallbacksTest, MayWaitForTasksOfTheirOwn) {
  for (bool submitted : {false, true}) {
    Outcome outcome;
    std::latch called(1);
    executor_.submit(task(outcome, [&] {
      wait_for_one(submitted);
      wait_for_one(!submitted);
      called.count_down();
    }));
    called.wait();
  }
  EXPECT_EQ(executor_.sequence(), 6u);
}

TEST_F(ExecutorCallbacksTest, ManyMayWaitAtOnce) {
  constexpr int kMany = 5;
  std::deque<Outcome> outcomes(kMany);
  std::latch all_are_called(kMany), all_have_waited(kMany);
  for (Outcome& outcome : outcomes) {
    executor_.submit(task(outcome, [&] {
      all_are_called.arrive_and_wait();
      wait_for_one(true);
      all_have_waited.count_down();
    }));
  }
  all_have_waited.wait();
  EXPECT_EQ(executor_.sequence(), 2u * kMany);
}

TEST_F(ExecutorCallbacksTest, TasksQueuedBehindGoOnInOrder) {
  Outcome first;
  std::latch gate(1);
  executor_.submit(task(first, [&] { gate.wait(); }));
  std::vector<int> order;
  std::deque<Outcome> outcomes(20);
  for (int i = 0; i < 20; ++i) {
    executor_.submit(averaging(kAlone, x_, y_, [&, i](std::exception_ptr error) {
      order.push_back(i);
      outcomes[i].callback()(error);
    }));
  }
  for (Outcome& outcome : outcomes) EXPECT_EQ(outcome.get().code, std::nullopt);
  gate.count_down();
  executor_.shutdown();  // the gate is needed until the callback has passed it
  EXPECT_EQ(order.size(), 20u);
  EXPECT_TRUE(std::is_sorted(order.begin(), order.end()));
}

TEST_F(ExecutorCallbacksTest, ShutdownEndsWhatTheyWaitFor) {
  Outcome first, second;
  std::latch called(1), closing(1);
  executor_.submit(task(first, [&] {
    called.count_down();
    closing.wait();
    executor_.submit(averaging(kAlone, x_, y_, second));
    EXPECT_EQ(second.get().code, ErrorCode::kAborted);
  }));
  called.wait();
  std::thread closer([&] { executor_.shutdown(); });
  for (bool known = false; !known;) {
    Outcome probe;
    executor_.run(averaging(kAlone, x_, y_, probe));
    known = probe.get().code == ErrorCode::kAborted;
  }
  closing.count_down();
  closer.join();
  EXPECT_EQ(second.calls, 1);
}

}  // namespace
}  // namespace bluefog::test
