// Neighbor operations on a device: what is called on which stream, and what comes out.
#include "device/executor.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <thread>

#include "device/combine.h"
#include "device/fake_device.h"
#include "device/recording_backend.h"
#include "device/recording_nccl.h"
#include "transport/nccl/inner_wire.h"

namespace bluefog::device {
namespace {

using fake::Hub;
using fake::RecordingBackend;
using Log = std::vector<std::string>;

std::shared_ptr<const Plan> plan(int rank, int size, double self_weight, std::vector<Edge> sources,
                                 std::vector<Edge> destinations) {
  return std::make_shared<const Plan>(rank, size, self_weight, std::move(sources),
                                      std::move(destinations));
}

/// One rank with its executor; tensors of float32.
struct Rank {
  Rank(int rank, int size, std::shared_ptr<Hub> hub, ExecutorOptions options = {})
      : backend(c10::make_intrusive<RecordingBackend>(rank, size, std::move(hub))),
        executor(
            rank, [this](at::Device) { return std::make_unique<nccl::InnerWire>(backend.get()); },
            options) {}

  WorkPtr average(const Tensors& x, const Tensors& y, std::shared_ptr<const Plan> plan,
                  bool async) {
    Operation operation{
        "neighbor_allreduce",   "bluefog:neighbor_allreduce", fake::device(), x, y, plan,
        std::chrono::minutes(1)};
    operation.sent = x;
    for (std::size_t j = 0; j < plan->sources().size(); ++j) {
      Tensors& arrivals = operation.arrivals.emplace_back();
      for (const auto& tensor : x) arrivals.push_back(at::empty_like(tensor));
    }
    Tensors all;
    for (const Tensors& arrivals : operation.arrivals) {
      all.insert(all.end(), arrivals.begin(), arrivals.end());
    }
    operation.finish = [=] { combine_terms(y, x, all, weights_of(*plan)); };
    return executor.run(std::move(operation), async);
  }

  c10::intrusive_ptr<RecordingBackend> backend;
  DeviceExecutor executor;
};

class DeviceExecutorTest : public testing::Test {
 protected:
  void SetUp() override { fake::reset(); }
  void TearDown() override { fake::set_events_done(true); }

  const std::shared_ptr<Hub> hub = std::make_shared<Hub>();
  const at::Tensor x = fake::tensor(2), y = fake::tensor(2), theirs = fake::tensor(2);
};

TEST_F(DeviceExecutorTest, FirstOperationConnectsAllRanksAndLaterOnesDoNot) {
  Rank rank(0, 3, hub);
  rank.average({x}, {y}, plan(0, 3, 1, {}, {}), false);
  EXPECT_EQ(fake::log(), (Log{"allreduce 1", "ordered on 0", "combine on 0"}));
  fake::log().clear();
  rank.average({x}, {y}, plan(0, 3, 1, {}, {}), false);
  EXPECT_EQ(fake::log(), (Log{"combine on 0"}));
}

TEST_F(DeviceExecutorTest, RoundIsOneGroupInTheOrderOfEdges) {
  Rank rank(1, 4, hub);
  hub->put(0, 1, theirs);
  hub->put(3, 1, theirs);
  rank.average({x}, {y}, plan(1, 4, 0.5, {{3, 0.25}, {0, 0.25}}, {{2, 1}, {0, 1}}), false);
  const Log after_connecting(fake::log().begin() + 2, fake::log().end());
  EXPECT_EQ(after_connecting,
            (Log{"start", "receive 8 bytes from 0", "send 8 bytes to 0", "send 8 bytes to 2",
                 "receive 8 bytes from 3", "end", "ordered on 0", "combine on 0"}));
}

TEST_F(DeviceExecutorTest, AsyncOperationEndsOnAnotherStreamAndWaitOrdersTheCurrentOne) {
  Rank rank(0, 2, hub);
  hub->put(1, 0, theirs);
  const WorkPtr work = rank.average({x}, {y}, plan(0, 2, 0.5, {{1, 0.5}}, {{1, 1}}), true);
  const Log after_connecting(fake::log().begin() + 2, fake::log().end());
  EXPECT_EQ(after_connecting, (Log{"start", "send 8 bytes to 1", "receive 8 bytes from 1", "end",
                                   "ordered on 1", "combine on 1", "record 1 on 1"}));
  EXPECT_EQ(fake::current_stream(), 0);
  fake::log().clear();
  work->wait();
  EXPECT_EQ(fake::log(), (Log{"wait for 1 on 0"}));
  EXPECT_EQ(work->result()[0].data_ptr(), y.data_ptr());
}

TEST_F(DeviceExecutorTest, AsyncOperationWithoutNeighboursIsBehindTheCallersStream) {
  Rank rank(0, 2, hub);
  rank.average({x}, {y}, plan(0, 2, 1, {}, {}), true);
  const Log after_connecting(fake::log().begin() + 2, fake::log().end());
  EXPECT_EQ(Log(after_connecting.begin(), after_connecting.begin() + 4),
            (Log{"record 1 on 0", "wait for 1 on 1", "combine on 1", "record 2 on 1"}));
}

TEST_F(DeviceExecutorTest, AsyncOperationsEndOnTheStreamsInTurn) {
  Rank rank(0, 2, hub, {.streams = 2, .high_priority = false});
  const auto alone = plan(0, 2, 1, {}, {});
  rank.average({x}, {y}, alone, false);
  fake::log().clear();
  for (int i = 0; i < 3; ++i) rank.average({x}, {y}, alone, true)->wait();
  Log combined;
  for (const auto& line : fake::log()) {
    if (line.starts_with("combine")) combined.push_back(line);
  }
  EXPECT_EQ(combined, (Log{"combine on 101", "combine on 102", "combine on 101"}));
}

TEST_F(DeviceExecutorTest, MoreNeighboursThanThereMayBeAreRefused) {
  Rank rank(0, 4, hub, {.max_neighbors = 2});
  hub->put(2, 0, theirs);
  rank.average({x}, {y}, plan(0, 4, 0.5, {{2, 0.5}}, {{1, 1}, {2, 1}}), false);
  const Error error = fake::thrown_by(
      [&] { rank.average({x}, {y}, plan(0, 4, 0.5, {{3, 0.5}}, {{1, 1}, {2, 1}}), false); });
  EXPECT_EQ(error.code(), ErrorCode::kUsage);
  EXPECT_PRED_FORMAT2(testing::IsSubstring,
                      "rank 0 has 3 neighbours in this neighbor_allreduce, more than "
                      "BluefogOptions(max_neighbors=2)",
                      error.what());
  EXPECT_EQ(rank.executor.sequence(), 1u);
}

TEST_F(DeviceExecutorTest, WhatIsReadInPlaceStaysOnOneStreamBehindTheLast) {
  Rank rank(0, 2, hub, {.streams = 2});
  const auto read_in_place = [&](bool async) {
    Operation operation{"neighbor_allreduce",
                        "bluefog:neighbor_allreduce",
                        fake::device(),
                        {x},
                        {y},
                        plan(0, 2, 0.5, {{1, 0.5}}, {{1, 1}})};
    operation.read_in_place = true;
    operation.finish = [] { fake::log().push_back(concat("read on ", fake::current_stream())); };
    rank.executor.run(std::move(operation), async);
  };
  rank.average({x}, {y}, plan(0, 2, 1, {}, {}), true)->wait();
  fake::log().clear();
  read_in_place(false);
  EXPECT_EQ(fake::log(), (Log{"read on 0", "record 3 on 0"}));
  fake::log().clear();
  for (int i = 0; i < 2; ++i) read_in_place(true);
  EXPECT_EQ(Log(fake::log().begin(), fake::log().begin() + 4),
            (Log{"record 4 on 0", "wait for 4 on 1", "wait for 3 on 1", "read on 1"}));
  EXPECT_EQ(std::ranges::count(fake::log(), "read on 1"), 2);
  EXPECT_EQ(std::ranges::count(fake::log(), "wait for 3 on 1"), 1);
}

TEST_F(DeviceExecutorTest, MemoryOfAWorkThatNobodyWaitsForIsRecordedOnItsStream) {
  Rank rank(0, 2, hub);
  hub->put(1, 0, theirs);
  WorkPtr work = rank.average({x}, {y}, plan(0, 2, 0.5, {{1, 0.5}}, {{1, 1}}), true);
  fake::log().clear();
  work.reset();
  ASSERT_FALSE(fake::log().empty());
  for (const auto& call : fake::log()) EXPECT_EQ(call, "uses memory on 1");
}

TEST_F(DeviceExecutorTest, WaitingOnAnotherStreamThanTheFirstRecordsTheMemoryToo) {
  Rank rank(0, 2, hub);
  hub->put(1, 0, theirs);
  const WorkPtr work = rank.average({x}, {y}, plan(0, 2, 0.5, {{1, 0.5}}, {{1, 1}}), true);
  fake::log().clear();
  const c10::StreamGuard other(c10::Stream(c10::Stream::UNSAFE, fake::device(), 9));
  work->wait();
  ASSERT_GE(fake::log().size(), 2u);
  EXPECT_EQ(fake::log()[0], "wait for 1 on 9");
  EXPECT_EQ(fake::log()[1], "uses memory on 1");
}

TEST_F(DeviceExecutorTest, AWorkKeepsTheMemoryThatTheOperationUsesUntilWait) {
  Rank rank(0, 2, hub);
  at::Tensor scratch = fake::tensor(2);
  const c10::weak_intrusive_ptr<c10::StorageImpl> memory = scratch.storage().getWeakStorageImpl();
  Operation operation{"neighbor_allreduce", "bluefog:neighbor_allreduce", fake::device(), {x}, {y},
                      plan(0, 2, 1, {}, {})};
  operation.scratch = {std::move(scratch)};
  operation.finish = [] {};
  const WorkPtr work = rank.executor.run(std::move(operation), true);
  EXPECT_FALSE(memory.expired());
  work->wait();
  EXPECT_TRUE(memory.expired());
}

TEST_F(DeviceExecutorTest, WhatIsScaledByZeroArrivesAsZero) {
  Rank rank(0, 2, hub);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  fake::set(x, {nan, 1});
  rank.average({x}, {y}, plan(0, 2, 1, {}, {{1, 0}}), false);
  hub->take(0, 1, y);
  EXPECT_EQ(fake::values(y), (std::vector<float>{0, 0}));
}

TEST_F(DeviceExecutorTest, WorkIsCompletedWhenTheDeviceIs) {
  Rank rank(0, 2, hub);
  hub->put(1, 0, theirs);
  const WorkPtr work = rank.average({x}, {y}, plan(0, 2, 0.5, {{1, 0.5}}, {{1, 1}}), true);
  fake::set_events_done(false);
  EXPECT_FALSE(work->isCompleted());
  fake::set_events_done(true);
  EXPECT_TRUE(work->isCompleted());
  EXPECT_TRUE(work->isSuccess());
}

TEST_F(DeviceExecutorTest, FutureHasTheOutputsAndOrdersTheStreamThatWaits) {
  Rank rank(0, 2, hub);
  hub->put(1, 0, theirs);
  const WorkPtr work = rank.average({x}, {y}, plan(0, 2, 0.5, {{1, 0.5}}, {{1, 1}}), true);
  fake::log().clear();
  const auto future = work->getFuture();
  ASSERT_TRUE(future->completed());
  future->wait();
  EXPECT_EQ(future->value().toTensorVector()[0].data_ptr(), y.data_ptr());
  EXPECT_EQ(fake::log(), (Log{"record 2 on 1", "wait for 2 on 0", "uses memory on 0"}));
}

TEST_F(DeviceExecutorTest, GroupIsClosedWhicheverCallFails) {
  for (int call = 0; call < 5; ++call) {
    Rank rank(0, 3, hub);
    rank.average({x}, {y}, plan(0, 3, 1, {}, {}), false);
    rank.backend->fail_at(call);
    const auto edges = plan(0, 3, 0.5, {{2, 0.5}}, {{1, 1}, {2, 1}});
    EXPECT_THROW(rank.average({x}, {y}, edges, false), std::runtime_error) << call;
    EXPECT_FALSE(rank.backend->group_is_open()) << call;
    fake::log().clear();
    hub->put(2, 0, theirs);
    rank.average({x}, {y}, edges, false);
    EXPECT_EQ(fake::log(), (Log{"start", "send 8 bytes to 1", "send 8 bytes to 2",
                                "receive 8 bytes from 2", "end", "ordered on 0", "combine on 0"}));
  }
}

TEST_F(DeviceExecutorTest, SenderScalesWhatItSends) {
  Rank rank(0, 3, hub);
  fake::set(x, {3, 5});
  rank.average({x}, {y}, plan(0, 3, 1, {}, {{1, 0.5}, {2, 1}}), false);
  hub->take(0, 1, y);
  EXPECT_EQ(fake::values(y), (std::vector<float>{1.5, 2.5}));
  hub->take(0, 2, y);
  EXPECT_EQ(fake::values(y), (std::vector<float>{3, 5}));
  EXPECT_EQ(rank.executor.bytes_sent(), 16u);
  EXPECT_EQ(rank.executor.sequence(), 1u);
}

TEST_F(DeviceExecutorTest, TermsOfWeightZeroDoNotCount) {
  Rank rank(0, 3, hub);
  const float nan = std::numeric_limits<float>::quiet_NaN();
  fake::set(theirs, {nan, nan});
  fake::set(x, {nan, nan});
  hub->put(1, 0, theirs);
  fake::set(theirs, {4, 8});
  hub->put(2, 0, theirs);
  rank.average({x}, {y}, plan(0, 3, 0, {{1, 0}, {2, 0.5}}, {}), false);
  EXPECT_EQ(fake::values(y), (std::vector<float>{2, 4}));
  hub->put(1, 0, theirs);
  hub->put(2, 0, theirs);
  rank.average({x}, {y}, plan(0, 3, 0, {{1, 0}, {2, 0}}, {}), false);
  EXPECT_EQ(fake::values(y), (std::vector<float>{0, 0}));
}

TEST_F(DeviceExecutorTest, EmptyTensorsAreNotSentAndOtherTypesGoAsBytes) {
  Rank rank(0, 2, hub);
  const at::Tensor none = fake::tensor(0), numbers = fake::tensor(3, at::kLong);
  Operation operation{
      "neighbor_allgather",       "bluefog:neighbor_allgather", fake::device(), {none, numbers}, {},
      plan(0, 2, 0, {}, {{1, 1}})};
  operation.sent = operation.inputs;
  operation.finish = [] {};
  rank.executor.run(std::move(operation), false);
  const Log after_connecting(fake::log().begin() + 2, fake::log().end());
  EXPECT_EQ(after_connecting, (Log{"start", "send 24 bytes to 1", "end", "ordered on 0"}));
}

// Ring and its other direction in turn, lists of two tensors, in place: as the formula has it.
TEST(DeviceExecutorRanks, AverageAsTheFormulaHasIt) {
  constexpr int kSize = 4, kSteps = 6;
  const auto hub = std::make_shared<Hub>();
  std::vector<std::vector<float>> results(kSize);
  const auto start = [](int rank, int i) { return static_cast<float>(rank * 16 + i); };
  const auto run = [&](int r) {
    fake::reset();
    Rank rank(r, kSize, hub);
    const at::Tensor a = fake::tensor(3), b = fake::tensor(1);
    fake::set(a, {start(r, 0), start(r, 1), start(r, 2)});
    fake::set(b, {start(r, 3)});
    for (int step = 0; step < kSteps; ++step) {
      const int to = (r + (step % 2 ? kSize - 1 : 1)) % kSize;
      const int from = (r + (step % 2 ? 1 : kSize - 1)) % kSize;
      rank.average({a, b}, {a, b}, plan(r, kSize, 0.5, {{from, 0.5}}, {{to, 1}}), step % 3 == 0);
    }
    results[r] = fake::values(a);
    results[r].push_back(fake::values(b)[0]);
  };
  std::vector<std::thread> threads;
  for (int r = 0; r < kSize; ++r) threads.emplace_back(run, r);
  for (auto& thread : threads) thread.join();

  std::vector<std::vector<float>> expected(kSize, std::vector<float>(4));
  for (int r = 0; r < kSize; ++r) {
    for (int i = 0; i < 4; ++i) expected[r][i] = start(r, i);
  }
  for (int step = 0; step < kSteps; ++step) {
    const auto before = expected;
    for (int r = 0; r < kSize; ++r) {
      const int from = (r + (step % 2 ? 1 : kSize - 1)) % kSize;
      for (int i = 0; i < 4; ++i) expected[r][i] = 0.5f * before[r][i] + 0.5f * before[from][i];
    }
  }
  EXPECT_EQ(results, expected);
  EXPECT_TRUE(hub->empty());
}

}  // namespace
}  // namespace bluefog::device
