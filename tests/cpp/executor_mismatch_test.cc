// Neighbours that disagree: both raise with both values, nobody else notices, the group goes on.
#include <gtest/gtest.h>

#include <cstring>

#include "tasks.h"

namespace bluefog::test {
namespace {

constexpr std::size_t kCount = 20000;  // more than the small rings hold

/// Ranks 1 and 2 are neighbours of rank 0. Rank 1 brings something else than the others.
struct Difference {
  std::string name;
  std::function<void(Task&)> change;  // of rank 1's task
  std::vector<std::string> said;      // by both ends
};

void PrintTo(const Difference& difference, std::ostream* out) { *out << difference.name; }

Task& with_text(Task& task, const char* text) {
  std::memset(task.frame.text, 0, Frame::kTextSize);
  std::strcpy(task.frame.text, text);
  task.frame.schema += 1;
  return task;
}

const std::vector<Difference>& differences() {
  static const std::vector<Difference> list{
      {"dtype",
       [](Task& task) { with_text(task, "float64[10000]"); },
       {"rank 0 has 1 tensor: float32[20000]", "rank 1 has 1 tensor: float64[10000]"}},
      {"count",
       [](Task& task) { with_text(task, "float32[4], float32[8]").frame.tensors = 2; },
       {"rank 0 has 1 tensor: float32[20000]", "rank 1 has 2 tensors: float32[4], float32[8]"}},
      {"step",
       [](Task& task) { task.frame.round = 3; },
       {"different steps", "rank 0 has weights given by the call", "rank 1 has topology step 3"}},
      {"operation",
       [](Task& task) { task.frame.operation = Operation::kNeighborAllgather; },
       {"rank 0 has neighbor_allreduce", "rank 1 has neighbor_allgather"}},
      {"direction",
       [](Task& task) {
         task.plan =
             std::make_shared<const Plan>(1, 3, 1, std::vector<Edge>{{0, 1}}, std::vector<Edge>{});
       },
       {"rank 0 wants to receive from rank 1, but rank 1 does not have rank 0"}},
      {"deaf",
       [](Task& task) {
         task.plan =
             std::make_shared<const Plan>(1, 3, 1, std::vector<Edge>{}, std::vector<Edge>{{0, 1}});
       },
       {"rank 0 sends to rank 1, but rank 1 does not have rank 0 among its sources"}},
  };
  return list;
}

class ExecutorMismatchTest : public ::testing::TestWithParam<std::tuple<std::string, Difference>> {
};

TEST_P(ExecutorMismatchTest, BothEndsRaiseAndTheOthersGoOn) {
  const auto& [kind, difference] = GetParam();
  Group group(kind, 3);
  Executors executors(group);
  const Graph path{3, {{0, 1}, {1, 0}, {0, 2}, {2, 0}}};
  group.run([&](int rank) {
    const Plan plan = path.plan(rank);
    const auto x = values(rank, kCount);
    const std::vector<float> untouched(kCount, -1);
    std::vector<float> y = untouched;
    Outcome outcome;
    Task task = averaging(plan, x, y, outcome);
    if (rank == 1) difference.change(task);
    executors[rank].submit(std::move(task));
    const Caught caught = outcome.get();
    if (rank == 2) {
      EXPECT_EQ(caught.code, std::nullopt) << caught.what;
      EXPECT_EQ(y, expected_sum(plan, kCount));
    } else {
      EXPECT_EQ(caught.code, ErrorCode::kMismatch) << caught.what;
      for (const std::string& part : difference.said) {
        EXPECT_NE(caught.what.find(part), std::string::npos) << caught.what;
      }
      EXPECT_EQ(y, untouched);
    }

    for (int i = 0; i < 6; ++i) {  // the group stays usable
      Outcome next;
      executors[rank].run(averaging(plan, x, y, next));
      EXPECT_EQ(next.get().code, std::nullopt) << "rank " << rank << ": " << next.get().what;
      EXPECT_EQ(y, expected_sum(plan, kCount));
    }
  });
}

INSTANTIATE_TEST_SUITE_P(All, ExecutorMismatchTest,
                         ::testing::Combine(::testing::ValuesIn(Group::kinds()),
                                            ::testing::ValuesIn(differences())),
                         [](const auto& info) {
                           return std::get<0>(info.param) + "_" + std::get<1>(info.param).name;
                         });

TEST(ExecutorMismatchTextTest, NamesEveryNeighbourThatDiffers) {
  Group group("shm", 3);
  Executors executors(group);
  group.run([&](int rank) {
    const auto x = values(rank, 10 + rank);
    std::vector<float> y(x.size());
    Outcome outcome;
    executors[rank].run(averaging(complete(3).plan(rank), x, y, outcome));
    const Caught caught = outcome.get();
    EXPECT_EQ(caught.code, ErrorCode::kMismatch);
    EXPECT_EQ(caught.what.find(concat("neighbor_allreduce #1 on rank ", rank, ": ")), 0u);
    for (int peer = 0; peer < 3; ++peer) {
      EXPECT_NE(caught.what.find(concat("rank ", peer, " has 1 tensor: float32[", 10 + peer, "]")),
                std::string::npos)
          << caught.what;
    }
  });
}

}  // namespace
}  // namespace bluefog::test
