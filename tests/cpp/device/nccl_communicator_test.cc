// The life of a communicator, against a recorder in place of NCCL.
#include <gtest/gtest.h>

#include <future>
#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "device/recording_nccl.h"
#include "transport/nccl/communicator.h"
#include "transport/nccl/group_guard.h"

namespace bluefog::nccl {
namespace {

using fake::RecordingNccl;
using fake::thrown_by;
using Lines = std::vector<std::string>;
using std::chrono::milliseconds;

Deadline plenty() { return Deadline::in(milliseconds(30000)); }
Deadline none() { return Deadline::in(milliseconds(0)); }

class CommunicatorTest : public testing::Test {
 protected:
  Communicator::Options rank(int rank, int size = 2) { return {.rank = rank, .size = size}; }

  RecordingNccl nccl;
  c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::HashStore>();
  char sent[8] = {}, received[4] = {};
  const Communicator::Message messages[2] = {{Transfer::kSend, 1, sent, sizeof sent},
                                             {Transfer::kReceive, 1, received, sizeof received}};
};

TEST_F(CommunicatorTest, AllRanksUseTheIdOfRankZero) {
  Communicator zero(nccl, rank(0)), one(nccl, rank(1));
  zero.connect(*store, plenty());
  one.connect(*store, plenty());
  EXPECT_EQ(nccl.log(), (Lines{"id", "init 0 of 2", "poll 1", "init 1 of 2", "poll 2"}));
  ASSERT_EQ(nccl.ids.size(), 2u);
  EXPECT_EQ(nccl.ids[0].bytes, nccl.ids[1].bytes);
  EXPECT_EQ(nccl.ids[1].bytes[127], static_cast<char>(127 * 7 + 1));
  EXPECT_FALSE(nccl.configs[1].blocking);
}

TEST_F(CommunicatorTest, ARankZeroThatDoesNotComeIsNamed) {
  Communicator one(nccl, rank(1));
  const Error error = thrown_by([&] { one.connect(*store, Deadline::in(milliseconds(20))); });
  EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 1 of 2", error.what());
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "no NCCL id of rank 0 (key \"nccl_id\")", error.what());
  EXPECT_EQ(nccl.log(), Lines{});
}

TEST_F(CommunicatorTest, OthersHearThatRankZeroFailed) {
  nccl.fail_at = 1;
  Communicator zero(nccl, rank(0)), one(nccl, rank(1));
  const Error own = thrown_by([&] { zero.connect(*store, plenty()); });
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 0: ncclGetUniqueId failed: result 2", own.what());
  const Error error = thrown_by([&] { one.connect(*store, plenty()); });
  EXPECT_EQ(error.code(), ErrorCode::kSystem);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 1: there is no NCCL id for 2 ranks: rank 0: nccl",
                      error.what());
  EXPECT_EQ(nccl.made(), 0);
}

TEST_F(CommunicatorTest, PollsUntilItIsReady) {
  nccl.polls = 3;
  Communicator zero(nccl, rank(0));
  zero.connect(*store, plenty());
  EXPECT_EQ(nccl.log(), (Lines{"id", "init 0 of 2", "poll 1", "poll 1", "poll 1", "poll 1"}));
}

TEST_F(CommunicatorTest, AnInitThatNeverEndsTimesOutAndIsAborted) {
  nccl.polls = -1;
  {
    Communicator zero(nccl, rank(0, 4));
    const Error error = thrown_by([&] { zero.connect(*store, none()); });
    EXPECT_EQ(error.code(), ErrorCode::kTimeout);
    EXPECT_PRED_FORMAT2(testing::IsSubstring,
                        "rank 0: ncclCommInitRankConfig (a communicator of 4 ranks)", error.what());
  }
  EXPECT_EQ(nccl.log().back(), "abort 1");
  EXPECT_EQ(nccl.misuse(), Lines{});
}

TEST_F(CommunicatorTest, ALostPeerHasItsOwnCode) {
  nccl.async_state = Result::kRemoteError;
  Communicator zero(nccl, rank(0));
  const Error error = thrown_by([&] { zero.connect(*store, plenty()); });
  EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "result 6; NCCL's last message: the last error",
                      error.what());
}

TEST_F(CommunicatorTest, AnExchangeIsOneGroupInItsOrder) {
  {
    Communicator zero(nccl, rank(0));
    zero.connect(*store, plenty());
    nccl.polls = 2;
    zero.exchange(messages, reinterpret_cast<void*>(7), plenty());
    zero.finalize(plenty());
  }
  EXPECT_EQ(nccl.log(), (Lines{"id", "init 0 of 2", "poll 1", "start", "send 8 to 1 on 7",
                               "recv 4 from 1 on 7", "end", "poll 1", "poll 1", "poll 1",
                               "finalize 1", "poll 1", "poll 1", "poll 1", "destroy 1"}));
  EXPECT_EQ(nccl.misuse(), Lines{});
}

TEST_F(CommunicatorTest, EveryCallMayFailAndNothingIsLeftBehind) {
  int failures = 0;
  for (const Result result : {Result::kSystemError, Result::kInternalError, Result::kTimeout}) {
    for (int n = 1;; ++n) {
      RecordingNccl failing;
      failing.fail_at = n;
      failing.fail_with = result;
      failing.polls = 1;
      bool threw = false;
      {
        Communicator zero(failing, rank(0));
        try {
          zero.connect(*c10::make_intrusive<c10d::HashStore>(), plenty());
          zero.exchange(messages, nullptr, plenty());
          zero.finalize(plenty());
        } catch (const Error& error) {
          threw = true;
          EXPECT_EQ(error.code(),
                    result == Result::kTimeout ? ErrorCode::kTimeout : ErrorCode::kSystem);
          EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 0: nccl", error.what());
        }
      }
      EXPECT_EQ(threw, failing.injected()) << "call " << n;
      EXPECT_EQ(failing.misuse(), Lines{}) << "call " << n;
      if (!failing.injected()) break;
      ++failures;
    }
  }
  EXPECT_EQ(failures,
            3 * 14);  // id, init, 2 polls, start, send, recv, end, 2, finalize, 2, destroy
}

TEST_F(CommunicatorTest, AFailedMessageNamesItsPeer) {
  Communicator zero(nccl, rank(0));
  zero.connect(*store, plenty());
  nccl.fail_at = 6;
  const Error error = thrown_by([&] { zero.exchange(messages, nullptr, plenty()); });
  EXPECT_PRED_FORMAT2(testing::IsSubstring,
                      "rank 0: ncclRecv of 4 bytes from rank 1 failed: result 2", error.what());
}

TEST_F(CommunicatorTest, AGroupThatNeverStartsTimesOut) {
  {
    Communicator zero(nccl, rank(0));
    zero.connect(*store, plenty());
    nccl.polls = -1;
    const Error error = thrown_by([&] { zero.exchange(messages, nullptr, none()); });
    EXPECT_EQ(error.code(), ErrorCode::kTimeout);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, "ncclGroupEnd", error.what());
  }
  EXPECT_EQ(nccl.misuse(), Lines{});
}

TEST_F(CommunicatorTest, AbortEndsAnothersWait) {
  nccl.polls = -1;
  std::promise<void> waiting;
  nccl.on_poll = [&, first = true]() mutable {
    if (std::exchange(first, false)) waiting.set_value();
  };
  Communicator zero(nccl, rank(0));
  auto connecting = std::async(std::launch::async,
                               [&] { return thrown_by([&] { zero.connect(*store, plenty()); }); });
  waiting.get_future().wait();
  zero.abort();
  zero.abort();
  EXPECT_EQ(connecting.get().code(), ErrorCode::kAborted);
  EXPECT_EQ(nccl.count("abort"), 1);
  EXPECT_EQ(nccl.misuse(), Lines{});
}

TEST_F(CommunicatorTest, AbortBeforeConnectMakesNone) {
  Communicator zero(nccl, rank(0));
  zero.abort();
  EXPECT_EQ(thrown_by([&] { zero.connect(*store, plenty()); }).code(), ErrorCode::kAborted);
  EXPECT_EQ(nccl.made(), 0);
}

TEST_F(CommunicatorTest, AfterTheEndCallsFail) {
  Communicator zero(nccl, rank(0));
  EXPECT_EQ(thrown_by([&] { zero.finalize(plenty()); }).code(), ErrorCode::kUsage);
  zero.connect(*store, plenty());
  zero.finalize(plenty());
  EXPECT_EQ(thrown_by([&] { zero.exchange(messages, nullptr, plenty()); }).code(),
            ErrorCode::kAborted);
  EXPECT_EQ(thrown_by([&] { zero.finalize(plenty()); }).code(), ErrorCode::kAborted);
  EXPECT_FALSE(zero.async_error());
  EXPECT_EQ(nccl.misuse(), Lines{});
}

TEST_F(CommunicatorTest, AsyncErrorsAreAskedFor) {
  Communicator zero(nccl, rank(0));
  EXPECT_FALSE(zero.async_error());
  zero.connect(*store, plenty());
  EXPECT_FALSE(zero.async_error());
  nccl.async_state = Result::kInProgress;
  EXPECT_FALSE(zero.async_error());
  nccl.async_state = Result::kRemoteError;
  ASSERT_TRUE(zero.async_error());
  EXPECT_EQ(zero.async_error()->code(), ErrorCode::kPeerLost);
}

TEST_F(CommunicatorTest, ASplitWaitsForItsParentAndThenForItself) {
  nccl.polls = 1;
  {
    Communicator zero(nccl, rank(0, 4));
    zero.connect(*store, plenty());
    const auto child = zero.split(3, rank(1), plenty());
    EXPECT_EQ(child->rank(), 1);
    child->finalize(plenty());
  }
  EXPECT_EQ(nccl.log(),
            (Lines{"id", "init 0 of 4", "poll 1", "poll 1", "split 1 color 3 key 1", "poll 1",
                   "poll 1", "poll 2", "finalize 2", "poll 2", "poll 2", "destroy 2", "abort 1"}));
  EXPECT_EQ(nccl.misuse(), Lines{});
}

TEST_F(CommunicatorTest, ASplitThatFailsTakesItsParentAlong) {
  for (const bool never : {false, true}) {
    RecordingNccl failing;
    {
      Communicator zero(failing, rank(0, 4));
      zero.connect(*c10::make_intrusive<c10d::HashStore>(), plenty());
      failing.polls = never ? -1 : 0;
      failing.fail_at = never ? 0 : 4;
      const Error error = thrown_by([&] { zero.split(0, rank(0), none()); });
      EXPECT_EQ(error.code(), never ? ErrorCode::kTimeout : ErrorCode::kSystem);
      EXPECT_PRED_FORMAT2(testing::IsSubstring, "ncclCommSplit (a communicator of 2 ranks)",
                          error.what());
      EXPECT_EQ(failing.log().back(), "abort 1");
    }
    EXPECT_EQ(failing.misuse(), Lines{});
  }
}

TEST_F(CommunicatorTest, TheDegreeIsForLibrariesThatKnowIt) {
  for (const auto& [version, peers] : {std::pair(22809, 0), std::pair(23007, 3)}) {
    RecordingNccl older;
    older.version_number = version;
    Communicator zero(older, {.rank = 0, .size = 8, .degree = 3, .name = "ours"});
    zero.connect(*c10::make_intrusive<c10d::HashStore>(), plenty());
    EXPECT_EQ(older.configs.at(0).max_p2p_peers, peers);
    EXPECT_STREQ(older.configs.at(0).name, "ours");
  }
}

TEST(GroupGuardTest, EndsTheGroupOnce) {
  RecordingNccl nccl;
  {
    GroupGuard left_alone(nccl);
  }
  EXPECT_EQ(nccl.log(), (Lines{"start", "end"}));
  {
    GroupGuard ended(nccl);
    nccl.fail_at = 4;
    EXPECT_EQ(ended.end(), Result::kSystemError);
  }
  EXPECT_EQ(nccl.log(), (Lines{"start", "end", "start", "end"}));
  nccl.fail_at = 5;
  {
    EXPECT_EQ(GroupGuard(nccl).started(), Result::kSystemError);
  }
  EXPECT_EQ(nccl.log().back(), "start");
  EXPECT_EQ(nccl.misuse(), Lines{});
}

}  // namespace
}  // namespace bluefog::nccl
