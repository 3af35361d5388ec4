// Tasks of two exchanges, and the sinks of collectives: an all-reduce in which each rank sums a
// share, over all transports.
#include <gtest/gtest.h>

#include <barrier>

#include "backend/shares.h"
#include "plan/collective.h"
#include "tasks.h"
#include "transport/faulty/faulty.h"

namespace bluefog::test {
namespace {

constexpr std::size_t kCount = 150001;  // in more than one stripe; more than the small rings hold
constexpr std::size_t kFloat = sizeof(float);

// x becomes the sum of all ranks' x.
Task all_reduce(const Plan& plan, std::vector<float>& x, Outcome& outcome,
                milliseconds timeout = kPlenty) {
  Task task;
  task.frame = frame_of(x.size());
  task.frame.operation = Operation::kAllreduce;
  task.plan = std::make_shared<const Plan>(plan);
  sum_in_shares(task, DType::kFloat32, reinterpret_cast<std::byte*>(x.data()), x.size() * kFloat);
  task.timeout = timeout;
  task.done = outcome.callback();
  return task;
}

class StagesTest : public ::testing::TestWithParam<std::string> {};

TEST_P(StagesTest, AllReduceInShares) {
  for (int n : {2, 3, 5}) {
    Group group(GetParam(), n);
    Executors executors(group);
    group.run([&](int rank) {
      const Plan plan = all_to_all(rank, n, 1);
      for (int i = 0; i < 20; ++i) {
        std::vector<float> x = values(rank, kCount);
        Outcome outcome;
        i % 2 ? executors[rank].run(all_reduce(plan, x, outcome))
              : executors[rank].submit(all_reduce(plan, x, outcome));
        ASSERT_EQ(outcome.get().code, std::nullopt) << outcome.get().what;
        ASSERT_TRUE(x == expected_sum(plan, kCount));
      }
      EXPECT_EQ(executors[rank].collectives(), 20u);
      EXPECT_EQ(executors[rank].sequence(), 0u);
      EXPECT_EQ(executors[rank].bytes_sent(), 0u);
    });
  }
}

// One rank means an operation of one exchange: both ends say so, and the next one is right again.
TEST_P(StagesTest, DisagreementLeavesTheGroupUsable) {
  Group group(GetParam(), 3);
  Executors executors(group);
  group.run([&](int rank) {
    const Plan plan = all_to_all(rank, 3, 1);
    std::vector<float> x = values(rank, kCount), few = values(rank, 10);
    Outcome wrong;
    executors[rank].submit(rank == 1 ? averaging(plan, few, few, wrong)
                                     : all_reduce(plan, x, wrong));
    EXPECT_EQ(wrong.get().code, ErrorCode::kMismatch) << wrong.get().what;
    EXPECT_TRUE(x == values(rank, kCount) && few == values(rank, 10));
    for (int i = 0; i < 3; ++i) {
      x = values(rank, kCount);
      Outcome good;
      executors[rank].run(all_reduce(plan, x, good));
      EXPECT_EQ(good.get().code, std::nullopt) << good.get().what;
      EXPECT_TRUE(x == expected_sum(plan, kCount));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, StagesTest, ::testing::ValuesIn(Group::kinds()),
                         [](const auto& info) { return info.param; });

// Rank 0 fails in the first or second exchange of its second all-reduce. The others are told long
// before their deadline, and the third one goes well.
class FaultyStageTest : public ::testing::TestWithParam<std::tuple<std::string, int>> {};

TEST_P(FaultyStageTest, IsToldToAll) {
  const auto& [kind, stage] = GetParam();
  auto transports = make_shm(3, kind == "shm_tiny" ? shm_env(4096, 2) : shm_env(32768, 4));
  FaultyTransport faulty(std::move(transports[0]), {Fault::kBreak, 2u + stage});
  std::vector<Transport*> used{&faulty, transports[1].get(), transports[2].get()};
  std::vector<std::unique_ptr<Executor>> executors;
  for (Transport* transport : used) executors.push_back(std::make_unique<Executor>(transport));
  std::barrier<> all_have_ended(3);
  const Deadline deadline = Deadline::in(kPlenty);
  run_ranks(3, [&, stage = stage](int rank) {
    const Plan plan = all_to_all(rank, 3, 1);
    for (int operation = 1; operation <= 3; ++operation) {
      std::vector<float> x = values(rank, kCount);
      Outcome outcome;
      executors[rank]->run(all_reduce(plan, x, outcome));
      const Caught caught = outcome.get();
      if (operation == 2 && rank == 0) {
        EXPECT_EQ(caught.code, ErrorCode::kSystem) << caught.what;
      } else if (operation == 2 && (stage == 1 || caught.code)) {
        EXPECT_EQ(caught.code, ErrorCode::kTimeout) << caught.what;
      } else {  // also where rank 0 had handed out its sums before it failed
        EXPECT_EQ(caught.code, std::nullopt) << "rank " << rank << ": " << caught.what;
        EXPECT_TRUE(x == expected_sum(plan, kCount));
      }
      all_have_ended.arrive_and_wait();
    }
  });
  EXPECT_EQ(faulty.injected(), 1);
  EXPECT_LT(deadline.elapsed_seconds(), 15);
}

INSTANTIATE_TEST_SUITE_P(All, FaultyStageTest,
                         ::testing::Combine(::testing::Values("shm", "shm_tiny"),
                                            ::testing::Values(1, 2)),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" +
                                  std::to_string(std::get<1>(info.param));
                         });

}  // namespace
}  // namespace bluefog::test
