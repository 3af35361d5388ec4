// Rounds through a communicator of our own: recorders in place of NCCL and of the device.
#include "transport/nccl/own_wire.h"

#include <ATen/ops/empty.h>
#include <c10/core/StreamGuard.h>
#include <gtest/gtest.h>

#include <torch/csrc/distributed/c10d/HashStore.hpp>

#include "device/fake_device.h"
#include "device/recording_nccl.h"
#include "device/work.h"

namespace bluefog::nccl {
namespace {

using fake::RecordingNccl;
using fake::thrown_by;
using std::chrono::milliseconds;
using Lines = std::vector<std::string>;

constexpr milliseconds kPlenty{30000};

class OwnWireTest : public testing::Test {
 protected:
  void SetUp() override {
    fake::reset();
    nccl->also = [](const std::string& line) { fake::log().push_back(line); };
  }
  void TearDown() override {
    wire.reset();
    EXPECT_EQ(nccl->misuse(), Lines{});
    fake::set_events_done(true);
  }

  static OwnWire::Options options() {
    return {
        .rank = 1, .size = 3, .connect_timeout = kPlenty, .poll_interval = std::chrono::hours(1)};
  }
  void make(OwnWire::Options options = OwnWireTest::options()) {
    store->set("nccl_id", std::vector<std::uint8_t>(129, '+'));
    wire = std::make_unique<OwnWire>(nccl, store, std::move(options));
  }
  void connect(OwnWire::Options options = OwnWireTest::options()) {
    make(std::move(options));
    wire->connect(fake::device());
    fake::log().clear();
  }

  /// From rank 0 to this one, and on to rank 2.
  Round round(milliseconds timeout = kPlenty) const {
    return {{{Transfer::kReceive, 0, in}, {Transfer::kSend, 2, out}},
            "neighbor_allreduce",
            12,
            timeout};
  }
  static Error error_of(const c10::intrusive_ptr<c10d::Work>& work) {
    return thrown_by([&] { work->wait(); });
  }

  const std::shared_ptr<RecordingNccl> nccl = std::make_shared<RecordingNccl>();
  const c10::intrusive_ptr<c10d::Store> store = c10::make_intrusive<c10d::HashStore>();
  const at::Tensor in = fake::tensor(2), out = fake::tensor(3, at::kHalf);
  std::unique_ptr<OwnWire> wire;
};

TEST_F(OwnWireTest, ARoundIsOneGroupBetweenTwoEvents) {
  connect();
  const auto work = wire->exchange(round());
  EXPECT_EQ(fake::log(), (Lines{"record 1 on 0", "wait for 1 on 1", "start", "recv 8 from 0 on 1",
                                "send 6 to 2 on 1", "end", "record 2 on 1"}));
  EXPECT_EQ(work->getSequencenumber(), 12u);
  fake::log().clear();
  EXPECT_TRUE(work->wait());
  work->synchronize();
  EXPECT_EQ(fake::log(), (Lines{"wait for 2 on 0", "wait for 2 on 0"}));
}

TEST_F(OwnWireTest, TheCurrentStreamsOrderTheRound) {
  connect();
  const c10::Stream from(c10::Stream::UNSAFE, fake::device(), 5);
  const c10::Stream to(c10::Stream::UNSAFE, fake::device(), 6);
  c10::intrusive_ptr<c10d::Work> work;
  {
    const c10::StreamGuard guard(from);
    work = wire->exchange(round());
  }
  const c10::StreamGuard guard(to);
  work->wait();
  EXPECT_EQ(fake::log().front(), "record 1 on 5");
  EXPECT_EQ(fake::log().back(), "wait for 2 on 6");
}

TEST_F(OwnWireTest, CollectivesOfTheInnerBackendAndRoundsAreInTheOrderOfTheirCalls) {
  connect();
  const c10::Stream other(c10::Stream::UNSAFE, fake::device(), 5);
  c10::Event end(c10::DeviceType::PrivateUse1);
  end.record(other);
  const auto collective = c10::make_intrusive<device::StreamWork>(
      0, device::Enqueued{other, other, std::move(end), nullptr, {fake::tensor(1)}, {}});
  fake::log().clear();
  wire->after_collective(*collective);
  EXPECT_EQ(fake::log(), (Lines{"record 2 on 5", "wait for 2 on 1", "uses memory on 1"}));
  fake::log().clear();
  const c10::StreamGuard guard(other);
  wire->before_collective();
  EXPECT_EQ(fake::log(), (Lines{"record 3 on 1", "wait for 3 on 5"}));
}

TEST_F(OwnWireTest, WhatHasNoBytesIsSkipped) {
  connect();
  Round some = round();
  some.transfers[0].tensor = fake::tensor(0);
  wire->exchange(some);
  EXPECT_EQ(nccl->count("recv"), 0);
  EXPECT_EQ(nccl->count("send 6"), 1);
  some.transfers[1].tensor = fake::tensor(0);
  fake::log().clear();
  EXPECT_TRUE(wire->exchange(some)->wait());
  EXPECT_EQ(fake::log(),
            (Lines{"record 3 on 0", "wait for 3 on 1", "record 4 on 1", "wait for 4 on 0"}));
}

TEST_F(OwnWireTest, TheWorkIsCompleteWhenTheDeviceIsDone) {
  connect();
  fake::set_events_done(false);
  const auto work = wire->exchange(round());
  EXPECT_TRUE(work->wait());  // which is of streams
  EXPECT_FALSE(work->isCompleted());
  EXPECT_FALSE(work->isSuccess());
  wire->watchdog().poll_now();
  EXPECT_FALSE(work->isCompleted());
  fake::set_events_done(true);
  EXPECT_TRUE(work->isCompleted());
  EXPECT_TRUE(work->isSuccess());
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "\"enqueued\"", wire->records());
  wire->watchdog().poll_now();
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "\"completed\"", wire->records());
}

TEST_F(OwnWireTest, ALateRoundNamesItsEdges) {
  connect();
  fake::set_events_done(false);
  const auto work = wire->exchange(round(milliseconds(0)));
  const auto next = wire->exchange(round());
  EXPECT_EQ(nccl->count("abort"), 0);
  wire->watchdog().poll_now();
  const Error error = error_of(work);
  EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  EXPECT_PRED_FORMAT2(testing::IsSubstring,
                      "rank 1: neighbor_allreduce #12 (0 -> 1, 1 -> 2; 6 bytes sent) has not ended",
                      error.what());
  EXPECT_EQ(nccl->count("abort"), 1);
  EXPECT_STREQ(error_of(next).what(), error.what());
  EXPECT_TRUE(work->isCompleted());
  EXPECT_FALSE(work->isSuccess());
  EXPECT_STREQ(thrown_by([&] { wire->exchange(round()); }).what(), error.what());
  EXPECT_STREQ(thrown_by([&] { wire->connect(fake::device()); }).what(), error.what());
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "\"failed\"", wire->records());
}

TEST_F(OwnWireTest, AnErrorInNcclsThreadsIsNoticed) {
  connect();
  fake::set_events_done(false);
  const auto work = wire->exchange(round());
  nccl->async_state = Result::kRemoteError;
  wire->watchdog().poll_now();
  const Error error = error_of(work);
  EXPECT_EQ(error.code(), ErrorCode::kPeerLost);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "result 6", error.what());
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "pending was neighbor_allreduce #12 (0 -> 1, 1 -> 2;",
                      error.what());
  EXPECT_EQ(nccl->count("abort"), 1);
}

TEST_F(OwnWireTest, EveryCallMayFail) {
  int failures = 0;
  for (int n = 1;; ++n) {
    const auto failing = std::make_shared<RecordingNccl>();
    failing->fail_at = n;
    bool threw = false;
    store->set("nccl_id", std::vector<std::uint8_t>(129, '+'));
    fake::set_events_done(false);
    {
      OwnWire own(failing, store, options());
      c10::intrusive_ptr<c10d::Work> pending;
      try {
        own.connect(fake::device());
        pending = own.exchange(round());
        own.exchange(round());
      } catch (const Error& error) {
        threw = true;
        EXPECT_EQ(error.code(), ErrorCode::kSystem);
        // The first failure is everybody's.
        EXPECT_STREQ(thrown_by([&] { own.exchange(round()); }).what(), error.what());
        if (pending) {
          EXPECT_STREQ(error_of(pending).what(), error.what());
          EXPECT_PRED_FORMAT2(testing::IsSubstring, "neighbor_allreduce #12 (0 -> 1", error.what());
        }
      }
    }
    EXPECT_EQ(threw, failing->injected() && n <= 10) << "call " << n;
    EXPECT_EQ(failing->misuse(), Lines{}) << "call " << n;
    if (!failing->injected()) break;
    ++failures;
  }
  EXPECT_EQ(failures, 11);  // init, poll, 2 * (start, recv, send, end), and the abort, in silence
}

TEST_F(OwnWireTest, AGroupThatDoesNotStartTimesOut) {
  connect();
  nccl->polls = -1;
  const Error error = thrown_by([&] { wire->exchange(round(milliseconds(0))); });
  EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "neighbor_allreduce #12 (0 -> 1, 1 -> 2;",
                      error.what());
  EXPECT_EQ(nccl->count("abort"), 1);
}

TEST_F(OwnWireTest, NothingInACaptureWaitsForRoundsOutsideOfIt) {
  OwnWire::Options hooked = options();
  hooked.hooks.is_capturing = [](const c10::Stream& stream) { return stream.id() == 0; };
  connect(hooked);
  c10::Event end(c10::DeviceType::PrivateUse1);
  const c10::Stream other(c10::Stream::UNSAFE, fake::device(), 5);
  const auto collective = c10::make_intrusive<device::StreamWork>(
      0, device::Enqueued{other, other, std::move(end), nullptr, {fake::tensor(1)}, {}});
  fake::log().clear();
  wire->before_collective();
  wire->after_collective(*collective);
  EXPECT_EQ(fake::log(), Lines{});
}

TEST_F(OwnWireTest, ACapturedRoundIsNotWatched) {
  bool capturing = true;
  OwnWire::Options hooked = options();
  hooked.hooks.is_capturing = [&](const c10::Stream& stream) {
    EXPECT_EQ(stream.id(), 0);
    return capturing;
  };
  connect(hooked);
  fake::set_events_done(false);
  const auto captured = wire->exchange(round(milliseconds(0)));
  wire->watchdog().poll_now();
  EXPECT_TRUE(captured->isCompleted());
  EXPECT_TRUE(captured->isSuccess());
  EXPECT_TRUE(captured->wait());
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "\"captured\"", wire->records());
  capturing = false;
  const auto watched = wire->exchange(round(milliseconds(0)));
  wire->watchdog().poll_now();
  EXPECT_EQ(error_of(watched).code(), ErrorCode::kTimeout);
}

TEST_F(OwnWireTest, HoldsTensorsUntilSomebodyWaits) {
  connect();
  fake::set_events_done(false);
  const auto uses = in.use_count();
  auto work = wire->exchange(round());
  EXPECT_GT(in.use_count(), uses);
  work->wait();
  EXPECT_EQ(in.use_count(), uses);
  fake::log().clear();
  work = wire->exchange(round());  // and lets go of nothing that is pending
  work.reset();
  EXPECT_GT(in.use_count(), uses);
  fake::set_events_done(true);
  wire->watchdog().poll_now();
  EXPECT_EQ(std::ranges::count(fake::log(), "uses memory on 1"), 0);
  wire->exchange(round())->wait();
  EXPECT_EQ(in.use_count(), uses);
  EXPECT_EQ(std::ranges::count(fake::log(), "uses memory on 1"), 2);
}

TEST_F(OwnWireTest, WhatCannotWorkIsRefusedAndTheWireGoesOn) {
  make();
  EXPECT_EQ(thrown_by([&] { wire->exchange(round()); }).code(), ErrorCode::kUsage);
  wire->connect(fake::device());
  wire->connect(fake::device());
  EXPECT_EQ(nccl->count("init"), 1);
  EXPECT_EQ(thrown_by([&] { wire->connect(at::kCPU); }).code(), ErrorCode::kUsage);
  for (const at::Tensor& wrong : {at::empty({2}), fake::tensor(4).as_strided({2}, {2})}) {
    Round refused = round();
    refused.transfers[1].tensor = wrong;
    const Error error = thrown_by([&] { wire->exchange(refused); });
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_PRED_FORMAT2(testing::IsSubstring, "the one for the edge with rank 2", error.what());
  }
  EXPECT_EQ(nccl->count("start"), 0);
  EXPECT_TRUE(wire->exchange(round())->wait());
}

TEST_F(OwnWireTest, AbortFailsWhatIsPendingBeforeItStopsTheDevice) {
  connect();
  fake::set_events_done(false);
  const auto work = wire->exchange(round());
  bool failed_by_then = false;
  nccl->also = [&](const std::string& line) {
    if (line == "abort 1") failed_by_then = work->exception() != nullptr;
  };
  wire->abort();
  wire->abort();
  EXPECT_TRUE(failed_by_then);
  EXPECT_EQ(nccl->count("abort"), 1);
  fake::set_events_done(true);  // as an aborted kernel's are
  EXPECT_TRUE(work->isCompleted());
  EXPECT_FALSE(work->isSuccess());
  EXPECT_EQ(error_of(work).code(), ErrorCode::kAborted);
  EXPECT_EQ(thrown_by([&] { wire->exchange(round()); }).code(), ErrorCode::kAborted);
}

TEST_F(OwnWireTest, WhatIsDoneStaysDone) {
  connect();
  const auto work = wire->exchange(round());
  EXPECT_TRUE(work->isCompleted());  // which the watchdog has not noticed yet
  wire->abort();
  EXPECT_TRUE(work->isSuccess());
  EXPECT_TRUE(work->wait());
}

TEST_F(OwnWireTest, AbortBeforeConnectMakesNoCommunicator) {
  make();
  wire->abort();
  EXPECT_EQ(thrown_by([&] { wire->connect(fake::device()); }).code(), ErrorCode::kAborted);
  EXPECT_EQ(nccl->made(), 0);
}

TEST_F(OwnWireTest, AFailedConnectIsFinal) {
  make();
  nccl->fail_at = 1;
  const Error error = thrown_by([&] { wire->connect(fake::device()); });
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "rank 1: ncclCommInitRankConfig (a communicator of 3",
                      error.what());
  EXPECT_STREQ(thrown_by([&] { wire->connect(fake::device()); }).what(), error.what());
  EXPECT_EQ(nccl->count("init"), 1);
}

TEST_F(OwnWireTest, ADestroyedWireEndsWhatIsPending) {
  connect();
  fake::set_events_done(false);
  const auto work = wire->exchange(round());
  wire.reset();
  EXPECT_EQ(error_of(work).code(), ErrorCode::kAborted);
  EXPECT_EQ(nccl->count("abort"), 1);
}

TEST_F(OwnWireTest, ShutdownWaitsAndFrees) {
  connect();
  const auto work = wire->exchange(round());
  nccl->polls = 2;
  wire->shutdown(kPlenty);
  EXPECT_TRUE(work->isSuccess());
  EXPECT_EQ(nccl->count("finalize"), 1);
  EXPECT_EQ(thrown_by([&] { wire->exchange(round()); }).code(), ErrorCode::kAborted);
  wire->abort();
  wire.reset();
  EXPECT_EQ(nccl->count("destroy"), 1);
  EXPECT_EQ(nccl->count("abort"), 0);
}

TEST_F(OwnWireTest, AShutdownThatOthersDoNotJoinTimesOut) {
  connect();
  nccl->polls = -1;
  const Error error = thrown_by([&] { wire->shutdown(milliseconds(0)); });
  EXPECT_EQ(error.code(), ErrorCode::kTimeout);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, "ncclCommFinalize", error.what());
  EXPECT_EQ(nccl->count("abort"), 1);
}

TEST_F(OwnWireTest, TellsNcclTheDegree) {
  OwnWire::Options sparse = options();
  sparse.degree = 2;
  connect(sparse);
  EXPECT_EQ(nccl->configs.at(0).max_p2p_peers, 2);
  EXPECT_FALSE(nccl->configs.at(0).blocking);
}

}  // namespace
}  // namespace bluefog::nccl
