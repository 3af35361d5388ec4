#include "plan/plan.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>

#include "plan/collective.h"
#include "ranks.h"

namespace bluefog::test {
namespace {

// The message with which making the plan fails; each case names the rank and the value.
std::string refusal(int rank, int size, double self_weight, std::vector<Edge> sources,
                    std::vector<Edge> destinations) {
  const Caught caught = catch_error([&] { Plan(rank, size, self_weight, sources, destinations); });
  EXPECT_EQ(caught.code, ErrorCode::kUsage) << caught.what;
  return caught.what;
}

const double kNan = std::numeric_limits<double>::quiet_NaN();
const double kInfinity = std::numeric_limits<double>::infinity();

TEST(PlanTest, RefusesARankOutsideItsGroup) {
  EXPECT_EQ(refusal(4, 4, 1, {}, {}), "a plan for rank 4 of 4 cannot be made");
  EXPECT_EQ(refusal(-1, 4, 1, {}, {}), "a plan for rank -1 of 4 cannot be made");
  EXPECT_EQ(refusal(0, 0, 1, {}, {}), "a plan for rank 0 of 0 cannot be made");
}

TEST(PlanTest, RefusesANeighbourOutsideTheGroup) {
  EXPECT_EQ(refusal(1, 4, 1, {{4, 1}}, {}),
            "rank 1 names source 4, but the group has ranks 0 to 3");
  EXPECT_EQ(refusal(1, 4, 1, {}, {{-1, 1}}),
            "rank 1 names destination -1, but the group has ranks 0 to 3");
}

TEST(PlanTest, RefusesItself) {
  EXPECT_EQ(refusal(1, 4, 1, {{1, 1}}, {}),
            "rank 1 names itself as a source; what a rank keeps of its own value is the self "
            "weight");
  EXPECT_NE(refusal(1, 4, 1, {}, {{1, 1}}).find("itself as a destination"), std::string::npos);
}

TEST(PlanTest, RefusesANeighbourTwice) {
  EXPECT_EQ(refusal(0, 4, 1, {{2, 1}, {3, 1}, {2, 1}}, {}), "rank 0 names source 2 twice");
  EXPECT_EQ(refusal(0, 4, 1, {}, {{3, 1}, {3, 1}}), "rank 0 names destination 3 twice");
}

TEST(PlanTest, RefusesWeightsThatAreNotFinite) {
  EXPECT_EQ(refusal(0, 4, kNan, {}, {}), "rank 0 has the self weight nan; weights must be finite");
  EXPECT_EQ(refusal(0, 4, 1, {{2, kInfinity}}, {}),
            "rank 0 gives source 2 the weight inf; weights must be finite");
  EXPECT_EQ(refusal(0, 4, 1, {}, {{2, -kInfinity}}),
            "rank 0 gives destination 2 the weight -inf; weights must be finite");
}

TEST(PlanTest, TakesWeightsOfAnyFiniteValue) {
  const Plan plan(0, 3, -2, {{1, 0}}, {{2, -0.5}});
  EXPECT_EQ(plan.self_weight(), -2);
  EXPECT_EQ(plan.sources().front().weight, 0);
}

TEST(PlanTest, NeighborsAreAscendingAndEachOnce) {
  const Plan plan(2, 9, 1, {{8, 1}, {0, 1}, {5, 1}}, {{5, 1}, {1, 1}, {8, 1}});
  EXPECT_EQ(plan.neighbors(), (std::vector<int>{0, 1, 5, 8}));
}

TEST(PlanTest, KeepsTheOrderOfItsSources) {
  const Plan plan(0, 4, 1, {{3, 0.5}, {1, 0.25}}, {});
  EXPECT_EQ(plan.sources(), (std::vector<Edge>{{3, 0.5}, {1, 0.25}}));
}

TEST(PlanTest, MayHaveNoNeighbours) {
  const Plan plan(0, 1, 1, {}, {});
  EXPECT_TRUE(plan.neighbors().empty());
  EXPECT_EQ(plan.describe(), "rank 0 of 1: 1*self -> {}");
}

TEST(PlanTest, DescribesItself) {
  EXPECT_EQ(Plan(2, 4, 0.5, {{1, 0.5}}, {{3, 1}}).describe(),
            "rank 2 of 4: 0.5*self + 0.5*[1] -> {3}");
  EXPECT_EQ(Plan(0, 4, 0.25, {{3, 0.25}, {1, 0.5}}, {{1, 2}, {2, 1}}).describe(),
            "rank 0 of 4: 0.25*self + 0.25*[3] + 0.5*[1] -> {1*2, 2}");
}

TEST(PlanTest, EqualPlansHaveEqualParts) {
  const Plan plan(0, 4, 0.5, {{1, 0.25}, {2, 0.25}}, {{3, 1}});
  EXPECT_EQ(plan, Plan(0, 4, 0.5, {{1, 0.25}, {2, 0.25}}, {{3, 1}}));
  EXPECT_NE(plan, Plan(0, 5, 0.5, {{1, 0.25}, {2, 0.25}}, {{3, 1}}));
  EXPECT_NE(plan, Plan(0, 4, 0.25, {{1, 0.25}, {2, 0.25}}, {{3, 1}}));
  EXPECT_NE(plan, Plan(0, 4, 0.5, {{1, 0.25}, {2, 0.5}}, {{3, 1}}));
  EXPECT_NE(plan, Plan(0, 4, 0.5, {{1, 0.25}, {2, 0.25}}, {{3, 2}}));
}

TEST(PlanTest, TheOrderOfAdditionIsPartOfAPlan) {
  EXPECT_NE(Plan(0, 4, 1, {{1, 1}, {2, 1}}, {}), Plan(0, 4, 1, {{2, 1}, {1, 1}}, {}));
}

TEST(PlanTest, OfCollectives) {
  EXPECT_EQ(all_to_all(1, 3, 0.5).describe(),
            "rank 1 of 3: 0.5*self + 0.5*[0] + 0.5*[2] -> {0, 2}");
  EXPECT_EQ(all_to_all(0, 1, 1).describe(), "rank 0 of 1: 1*self -> {}");
  EXPECT_EQ(from_root(2, 3, 2).describe(), "rank 2 of 3: 1*self -> {0, 1}");
  EXPECT_EQ(from_root(0, 3, 2).describe(), "rank 0 of 3: 1*self + 1*[2] -> {}");
}

}  // namespace
}  // namespace bluefog::test
