// One-sided puts, against a recorder in place of NCCL and on the fake device.
#include "transport/nccl/puts.h"

#include <gtest/gtest.h>

#include <barrier>
#include <cstring>
#include <future>
#include <thread>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "device/fake_device.h"
#include "device/recording_nccl.h"

namespace bluefog::nccl {
namespace {

using fake::RecordingNccl;
using fake::thrown_by;
using Lines = std::vector<std::string>;
using std::chrono::milliseconds;

constexpr milliseconds kPlenty{30000};

c10::Stream stream(int id) { return c10::Stream(c10::Stream::UNSAFE, fake::device(), id); }

/// Rank 0 of 2, which puts into rank 1 and the other way round. Rank 1 is an entry in the store.
class PutsTest : public testing::Test {
 protected:
  void SetUp() override { fake::reset(); }
  void TearDown() override {
    puts.reset();
    fake::set_events_done(true);
    EXPECT_EQ(nccl->misuse(), Lines{});
  }

  /// What rank 1 says of itself: version, whether it can put, bytes, its sources and destinations.
  static c10::intrusive_ptr<c10d::Store> store_with(std::vector<std::int64_t> words) {
    auto store = c10::make_intrusive<c10d::HashStore>();
    std::vector<std::uint8_t> bytes(words.size() * sizeof(std::int64_t));
    std::memcpy(bytes.data(), words.data(), bytes.size());
    store->set("edges_1", bytes);
    return store;
  }
  static c10::intrusive_ptr<c10d::Store> store_with_one() {
    return store_with({23007, 1, 8, 1, 0, 0});
  }
  static Puts::Options options(milliseconds timeout = kPlenty) {
    return {.edges = {.rank = 0, .size = 2, .nbytes = 8, .sources = {1}, .destinations = {1}},
            .device = fake::device(),
            .timeout = timeout};
  }
  Error refusal(std::vector<std::int64_t> one) {
    return thrown_by([&] { Puts(nccl, *store_with(std::move(one)), options()); });
  }
  void make() { puts = std::make_unique<Puts>(nccl, *store_with_one(), options()); }

  const std::shared_ptr<RecordingNccl> nccl = std::make_shared<RecordingNccl>();
  std::unique_ptr<Puts> puts;
};

TEST_F(PutsTest, AllRanksSetUpTogetherAndWhatIsMadeIsGivenBack) {
  nccl->polls = 1;
  make();
  EXPECT_EQ(nccl->log(),
            (Lines{"id", "init 0 of 2", "poll 1", "poll 1", "alloc 512", "register 512 with 1",
                   "poll 1", "poll 1", "signal to 1 on 1", "poll 1", "poll 1", "wait for 1 on 2",
                   "poll 1", "poll 1", "poll 1"}));
  nccl->polls = 0;
  puts.reset();
  const Lines log = nccl->log();
  EXPECT_EQ(Lines(log.end() - 3, log.end()), (Lines{"deregister 1", "abort 1", "free"}));
}

TEST_F(PutsTest, APutIsBehindItsStreamAndAWaitOnAnother) {
  nccl->also = [](const std::string& line) { fake::log().push_back(line); };
  make();
  fake::log().clear();
  puts->put(1, stream(5));
  EXPECT_EQ(fake::log(),
            (Lines{"record 2 on 5", "wait for 2 on 1", "put 8 to 1 at 0 on 1", "record 3 on 1"}));
  fake::log().clear();
  puts->await(1, Deadline::in(kPlenty));
  EXPECT_EQ(fake::log(), (Lines{"wait for 1 on 2", "record 4 on 2", "poll 1"}));
  EXPECT_EQ(puts->outgoing(1) - puts->landing(1), 256);
}

TEST_F(PutsTest, EveryCallMayFailAndNothingIsLeftBehind) {
  int failures = 0;
  for (int n = 1;; ++n) {
    auto failing = std::make_shared<RecordingNccl>();
    failing->fail_at = n;
    failing->polls = 1;
    bool threw = false, injected = false;
    try {
      Puts failed(failing, *store_with_one(), options());
      failed.put(1, stream(0));
      failed.await(1, Deadline::in(kPlenty));
      injected = failing->injected();
    } catch (const Error& error) {
      threw = injected = true;
      EXPECT_EQ(error.code(), ErrorCode::kSystem);
      EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 0: ", error.what());
    }
    EXPECT_EQ(threw, injected) << "call " << n;
    EXPECT_EQ(failing->misuse(), Lines{}) << "call " << n;
    if (!failing->injected()) break;
    ++failures;
  }
  EXPECT_EQ(failures, 15 + 3 + 4 + 5);  // set up, put, await; deregister, 2 polls, abort, free
}

TEST_F(PutsTest, AfterAFailureAllCallsSayTheSame) {
  make();
  nccl->fail_at = static_cast<int>(nccl->log().size()) + 1;
  const Error first = thrown_by([&] { puts->put(1, stream(0)); });
  EXPECT_PRED_FORMAT2(testing::IsSubstring,
                      "rank 0: ncclPutSignal of 8 bytes to rank 1 failed: result 2", first.what());
  const Error second = thrown_by([&] { puts->await(1, Deadline::in(kPlenty)); });
  EXPECT_STREQ(second.what(), first.what());
  EXPECT_EQ(nccl->log().back(), "abort 1");
}

TEST_F(PutsTest, APutThatDoesNotLandTimesOut) {
  make();
  fake::set_events_done(false);
  const Error error = thrown_by([&] { puts->await(1, Deadline::in(milliseconds(20))); });
  EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 0: a put of rank 1 has not landed", error.what());
  EXPECT_EQ(nccl->log().back(), "abort 1");
}

TEST_F(PutsTest, AnErrorOfTheCommunicatorIsBelievedBeforeTheDevice) {
  make();
  nccl->async_state = Result::kRemoteError;
  const Error error = thrown_by([&] { puts->await(1, Deadline::in(kPlenty)); });
  EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "NCCL's own thread failed: result 6", error.what());
}

TEST_F(PutsTest, AbortEndsAnothersWait) {
  make();
  fake::set_events_done(false);
  std::promise<void> waiting;
  nccl->on_poll = [&, first = true]() mutable {
    if (std::exchange(first, false)) waiting.set_value();
  };
  auto awaiting = std::async(std::launch::async, [&] {
    return thrown_by([&] { puts->await(1, Deadline::in(kPlenty)); });
  });
  waiting.get_future().wait();
  puts->abort();
  puts->abort();
  EXPECT_EQ(awaiting.get().code(), ErrorCode::kAborted);
  EXPECT_EQ(thrown_by([&] { puts->put(1, stream(0)); }).code(), ErrorCode::kAborted);
  EXPECT_EQ(nccl->count("abort"), 1);
}

TEST_F(PutsTest, MemoryThatAPutMayStillReadIsKept) {
  const auto other = std::make_shared<RecordingNccl>();
  {
    Puts::Options impatient = options();
    impatient.patience = milliseconds(0);
    Puts busy(other, *store_with_one(), impatient);
    busy.put(1, stream(0));
    fake::set_events_done(false);
  }
  EXPECT_EQ(other->misuse(), Lines{"memory is left"});
  EXPECT_EQ(other->log().back(), "abort 1");
}

TEST_F(PutsTest, OnlyNeighboursHaveSlots) {
  make();
  const Error error = thrown_by([&] { puts->await(0, Deadline::in(kPlenty)); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_STREQ(error.what(), "rank 0 is not among rank 0's sources");
  EXPECT_EQ(thrown_by([&] { puts->put(2, stream(0)); }).code(), ErrorCode::kUsage);
  puts->put(1, stream(0));
}

TEST_F(PutsTest, ALibraryThatCannotPutIsNamedOnAllRanks) {
  const Error theirs = refusal({22809, 0, 8, 1, 0, 0});
  EXPECT_EQ(theirs.code(), ErrorCode::kUsage);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 1 has NCCL 2.28.9", theirs.what());
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "needs 2.29 or newer", theirs.what());
  nccl->version_number = 22809;
  const Error ours = refusal({23007, 1, 8, 1, 0, 0});
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 0 has NCCL 2.28.9", ours.what());
  EXPECT_EQ(nccl->log(), Lines{});
}

TEST_F(PutsTest, DevicesWithoutWindowsAreRefused) {
  nccl->no_windows = true;
  const Error error = refusal({23007, 1, 8, 1, 0, 0});
  EXPECT_EQ(error.code(), ErrorCode::kSystem);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "NCCL 2.30.7 has no windows", error.what());
}

TEST_F(PutsTest, RanksThatDisagreeAllHearOfIt) {
  EXPECT_STREQ(refusal({23007, 1, 16, 1, 0, 0}).what(),
               "the ranks put different sizes: rank 0 has 8 bytes, rank 1 has 16");
  EXPECT_STREQ(refusal({23007, 1, 8, 0, 0}).what(),
               "the edge from rank 0 to rank 1 is known to rank 0 alone");
  EXPECT_STREQ(refusal({23007, 1, 8, 1, 2, 0}).what(),
               "rank 1 of 2 cannot have an edge with rank 2");
  EXPECT_EQ(refusal({23007, 1}).code(), ErrorCode::kSystem);
  const Error absent = thrown_by(
      [&] { Puts(nccl, *c10::make_intrusive<c10d::HashStore>(), options(milliseconds(20))); });
  EXPECT_EQ(absent.code(), ErrorCode::kTimeout);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 0 of 2: rank 1 has not come", absent.what());
}

// Each rank puts into the next two of four, many times, and sees what it should.
TEST(PutsRanks, WhatIsPutLands) {
  constexpr int kSize = 4, kSteps = 50;
  const auto nccl = std::make_shared<RecordingNccl>();
  const auto store = c10::make_intrusive<c10d::HashStore>();
  std::barrier all(kSize);
  std::vector<int> wrong(kSize);
  const auto run = [&](int rank) {
    fake::reset();
    const auto next = [&](int steps) { return (rank + steps + kSize) % kSize; };
    Puts puts(nccl, *store,
              {.edges = {rank, kSize, sizeof(int), {next(-2), next(-1)}, {next(1), next(2)}},
               .device = fake::device(),
               .timeout = kPlenty});
    all.arrive_and_wait();  // NCCL waits for all ranks where one makes a window, the recorder not
    for (int step = 0; step < kSteps; ++step) {
      for (const int to : {next(1), next(2)}) {
        const int number = step * 100 + rank * 10 + to;
        std::memcpy(puts.outgoing(to), &number, sizeof number);
        puts.put(to, stream(0));
      }
      all.arrive_and_wait();  // the word that the puts have been made
      for (const int from : {next(-1), next(-2)}) {
        puts.await(from, Deadline::in(kPlenty));
        int number = 0;
        std::memcpy(&number, puts.landing(from), sizeof number);
        wrong[rank] += number != step * 100 + from * 10 + rank;
      }
      all.arrive_and_wait();  // and that they have been taken
    }
  };
  std::vector<std::thread> threads;
  for (int rank = 0; rank < kSize; ++rank) threads.emplace_back(run, rank);
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(wrong, std::vector<int>(kSize));
  EXPECT_EQ(nccl->signals_left(), 0);
  EXPECT_EQ(nccl->count("put"), 2 * kSize * kSteps);
  EXPECT_EQ(nccl->misuse(), Lines{});
}

}  // namespace
}  // namespace bluefog::nccl
