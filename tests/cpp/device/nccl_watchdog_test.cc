// Deadlines and errors of what is pending. The thread is kept from looking by a long interval,
// but for the tests of the thread.
#include <gtest/gtest.h>

#include <future>
#include <memory>
#include <stdexcept>

#include "device/recording_nccl.h"
#include "transport/nccl/watchdog.h"

namespace bluefog::nccl {
namespace {

using fake::thrown_by;
using std::chrono::milliseconds;
using Lines = std::vector<std::string>;

Deadline far() { return Deadline::in(std::chrono::hours(1)); }
Deadline passed() { return Deadline::in(milliseconds(0)); }

class WatchdogTest : public testing::Test {
 protected:
  Watchdog::Options options(milliseconds interval = std::chrono::hours(1)) {
    return {.rank = 1,
            .error = [this] { return error; },
            .abort = [this] { log.push_back("abort"); },
            .interval = interval};
  }

  /// An entry of sequence `n` that writes down its end.
  Watchdog::Entry entry(int n, Deadline deadline, std::function<bool()> done) {
    return {std::move(done),
            [this, n](std::exception_ptr failed) {
              log.push_back(concat(n, failed ? " failed" : " done"));
              if (failed) failures.push_back(failed);
            },
            deadline,
            {"neighbor_allreduce", static_cast<std::uint64_t>(n), {{2, 1}, {1, 0}}, 64}};
  }
  static bool yes() { return true; }
  static bool no() { return false; }

  Error failure(std::size_t i) {
    return thrown_by([&] { std::rethrow_exception(failures.at(i)); });
  }

  std::optional<Error> error;
  Lines log;
  std::vector<std::exception_ptr> failures;
};

TEST_F(WatchdogTest, WhatIsDoneEndsWellAndOnce) {
  Watchdog watchdog(options());
  bool done = false;
  watchdog.watch(entry(1, far(), yes));
  watchdog.watch(entry(2, far(), [&] { return done; }));
  watchdog.poll_now();
  watchdog.poll_now();
  EXPECT_EQ(log, (Lines{"1 done"}));
  done = true;
  watchdog.poll_now();
  EXPECT_EQ(log, (Lines{"1 done", "2 done"}));
  EXPECT_EQ(watchdog.failure(), nullptr);
}

TEST_F(WatchdogTest, WhatIsLateFailsAllThatIsPendingAndThenAborts) {
  Watchdog watchdog(options());
  watchdog.watch(entry(6, passed(), yes));
  watchdog.watch(entry(7, far(), no));
  watchdog.watch(entry(8, passed(), no));
  watchdog.poll_now();
  EXPECT_EQ(log, (Lines{"6 done", "7 failed", "8 failed", "abort"}));
  EXPECT_EQ(failure(0).code(), ErrorCode::kTimeout);
  EXPECT_PRED_FORMAT2(testing::IsSubstring,
                      "rank 1: neighbor_allreduce #8 (2 -> 1, 1 -> 0; 64 bytes sent) has not ended",
                      failure(0).what());
  EXPECT_EQ(failures.at(0), failures.at(1));
  EXPECT_EQ(watchdog.failure(), failures.at(0));
}

TEST_F(WatchdogTest, AfterAFailureNothingIsTakenOn) {
  Watchdog watchdog(options());
  watchdog.fail(Error(ErrorCode::kAborted, "the first"));
  watchdog.fail(Error(ErrorCode::kSystem, "the second"));
  watchdog.watch(entry(1, far(), yes));
  EXPECT_EQ(log, (Lines{"abort", "1 failed"}));
  EXPECT_STREQ(failure(0).what(), "the first");
}

TEST_F(WatchdogTest, AnErrorOfTheCommunicatorIsBelievedBeforeTheDevice) {
  Watchdog watchdog(options());
  watchdog.watch(entry(1, far(), yes));
  watchdog.watch(entry(2, passed(), no));
  error = Error(ErrorCode::kPeerLost, "rank 1: a peer is gone");
  watchdog.poll_now();
  EXPECT_EQ(log, (Lines{"1 failed", "2 failed", "abort"}));
  EXPECT_EQ(failure(0).code(), ErrorCode::kPeerLost);
  EXPECT_PRED_FORMAT2(testing::IsSubstring,
                      "a peer is gone; pending was neighbor_allreduce #2 (2 -> 1, 1 -> 0",
                      failure(0).what());
}

TEST_F(WatchdogTest, AnErrorOfTheCommunicatorIsOfTheFirstIfAllHaveEnded) {
  Watchdog watchdog(options());
  watchdog.watch(entry(1, far(), yes));
  watchdog.watch(entry(2, far(), yes));
  error = Error(ErrorCode::kPeerLost, "rank 1: a peer is gone");
  watchdog.poll_now();
  EXPECT_EQ(log, (Lines{"1 failed", "2 failed", "abort"}));
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "pending was neighbor_allreduce #1", failure(0).what());
}

TEST_F(WatchdogTest, AnErrorOfTheDeviceIsAFailure) {
  Watchdog watchdog(options());
  watchdog.watch(entry(1, far(), yes));
  watchdog.watch(entry(2, far(), []() -> bool { throw std::runtime_error("misaligned"); }));
  watchdog.poll_now();
  EXPECT_EQ(log, (Lines{"1 failed", "2 failed", "abort"}));
  EXPECT_EQ(failure(1).code(), ErrorCode::kSystem);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "#2 (2 -> 1, 1 -> 0; 64 bytes sent) failed on its",
                      failure(1).what());
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "misaligned", failure(1).what());
}

TEST_F(WatchdogTest, ItsEndAbortsWhatIsPending) {
  {
    Watchdog watchdog(options());
    watchdog.watch(entry(5, far(), no));
  }
  EXPECT_EQ(log, (Lines{"5 failed", "abort"}));
  EXPECT_EQ(failure(0).code(), ErrorCode::kAborted);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "destroyed while neighbor_allreduce #5",
                      failure(0).what());
}

TEST_F(WatchdogTest, ItsEndLeavesAloneWhatIsDone) {
  {
    Watchdog watchdog(options());
    watchdog.watch(entry(5, far(), yes));
    watchdog.poll_now();
  }
  EXPECT_EQ(log, (Lines{"5 done"}));
}

// What an entry holds is destroyed by a thread of the caller's, as the header says.
TEST_F(WatchdogTest, TheThreadLooksByItselfAndDestroysNothing) {
  std::atomic<int> threads_started{0};
  std::promise<std::thread::id> ended_in;
  std::thread::id let_go_in;
  {
    Watchdog::Options own = options(milliseconds(1));
    own.thread_start = [&] { ++threads_started; };
    Watchdog watchdog(std::move(own));
    std::shared_ptr<int> held(new int, [&](int* p) {
      let_go_in = std::this_thread::get_id();
      delete p;
    });
    Watchdog::Entry watched = entry(1, far(), yes);
    watched.end = [&, held = std::move(held)](std::exception_ptr) {
      ended_in.set_value(std::this_thread::get_id());
    };
    watchdog.watch(std::move(watched));
    EXPECT_NE(ended_in.get_future().get(), std::this_thread::get_id());
  }
  EXPECT_EQ(threads_started, 1);
  EXPECT_EQ(let_go_in, std::this_thread::get_id());
}

TEST_F(WatchdogTest, WatchLetsGoOfWhatHasEnded) {
  Watchdog watchdog(options());
  auto held = std::make_shared<int>();
  const std::weak_ptr<int> seen = held;
  watchdog.watch(entry(1, far(), [held = std::move(held)] { return true; }));
  watchdog.poll_now();
  EXPECT_FALSE(seen.expired());
  watchdog.watch(entry(2, far(), no));
  EXPECT_TRUE(seen.expired());
}

TEST_F(WatchdogTest, TheThreadNoticesWhatIsLate) {
  std::promise<void> aborted;
  Watchdog::Options own = options(milliseconds(1));
  own.abort = [&] { aborted.set_value(); };
  Watchdog watchdog(std::move(own));
  watchdog.watch(entry(1, passed(), no));
  aborted.get_future().get();
  EXPECT_EQ(log, (Lines{"1 failed"}));
}

}  // namespace
}  // namespace bluefog::nccl
