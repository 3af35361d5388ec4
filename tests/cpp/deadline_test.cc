#include "base/deadline.h"

#include <gtest/gtest.h>

#include <thread>

namespace bluefog::test {
namespace {

using std::chrono::milliseconds;

TEST(DeadlineTest, HasTimeLeftAtFirst) {
  const Deadline deadline = Deadline::in(std::chrono::hours(1));
  EXPECT_FALSE(deadline.passed());
  EXPECT_GT(deadline.left(), std::chrono::minutes(59));
  EXPECT_LE(deadline.left(), std::chrono::hours(1));
}

// Gloo takes whole milliseconds; a wait that is a fraction too short is no timeout yet.
TEST(DeadlineTest, MillisecondsAreRoundedUp) {
  for (const auto timeout : {milliseconds(0), milliseconds(1), milliseconds(20)}) {
    const Deadline deadline = Deadline::in(timeout);
    std::this_thread::sleep_for(deadline.left_in_ms());
    EXPECT_TRUE(deadline.passed()) << timeout.count();
    EXPECT_EQ(deadline.left_in_ms().count(), 0);
  }
  const Deadline hour = Deadline::in(std::chrono::hours(1));
  EXPECT_GE(hour.left_in_ms(), hour.left());
}

TEST(DeadlineTest, PassesAndThenHasNothingLeft) {
  for (const milliseconds timeout : {milliseconds(0), milliseconds(-5)}) {
    const Deadline deadline = Deadline::in(timeout);
    EXPECT_TRUE(deadline.passed());
    EXPECT_EQ(deadline.left().count(), 0);
  }
}

TEST(DeadlineTest, TheLongestTimeoutDoesNotOverflow) {
  const Deadline deadline = Deadline::in(milliseconds::max());
  EXPECT_FALSE(deadline.passed());
  EXPECT_GT(deadline.left(), std::chrono::hours(24 * 364));
}

TEST(DeadlineTest, CountsTheTimeSinceItWasSet) {
  const auto before = Deadline::Clock::now();
  const Deadline deadline = Deadline::in(std::chrono::hours(1));
  const double first = deadline.elapsed_seconds();
  EXPECT_GE(first, 0);
  EXPECT_GE(deadline.elapsed_seconds(), first);
  const std::chrono::duration<double> most = Deadline::Clock::now() - before;
  EXPECT_LE(first, most.count());
}

TEST(DeadlineTest, IsAValue) {
  const Deadline deadline = Deadline::in(milliseconds(0));
  const Deadline copy = deadline;
  EXPECT_TRUE(copy.passed());
}

}  // namespace
}  // namespace bluefog::test
