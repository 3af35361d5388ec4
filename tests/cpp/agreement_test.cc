#include "backend/agreement.h"

#include <gtest/gtest.h>

#include <cstring>

#include "tasks.h"
#include "traffic.h"
#include "transport/greeting.h"

namespace bluefog::test {
namespace {

// The verdicts of ranks 0 and 1 about each other; by default they agree.
struct Verdicts {
  Frame frame0 = frame_of(3);
  Frame frame1 = frame_of(3);
  Plan plan0{0, 2, 1, {{1, 1}}, {{1, 1}}};
  Plan plan1{1, 2, 1, {{0, 1}}, {{0, 1}}};

  // What both say; they must say the same.
  std::string both() const {
    const Payload payload;
    const Request request0{frame0, &plan0, &payload, Deadline::in(kPlenty)};
    const Request request1{frame1, &plan1, &payload, Deadline::in(kPlenty)};
    const auto said0 = disagreement(request0, 1, greeting_for(request1, 0));
    const auto said1 = disagreement(request1, 0, greeting_for(request0, 1));
    EXPECT_EQ(said0, said1);
    return said0.value_or("nothing");
  }
};

TEST(AgreementTest, SaysNothingOfTheSame) { EXPECT_EQ(Verdicts().both(), "nothing"); }

TEST(AgreementTest, WeightsSequencesRowsAndSizesMayDiffer) {
  Verdicts verdicts;
  verdicts.plan0 = Plan(0, 2, 0.5, {{1, 0.25}}, {{1, 2}});
  verdicts.frame0.rows = 4;
  verdicts.frame0.nbytes = 100;
  EXPECT_EQ(verdicts.both(), "nothing");
}

TEST(AgreementTest, Versions) {
  const Verdicts verdicts;
  const Payload payload;
  const Request request{verdicts.frame0, &verdicts.plan0, &payload, Deadline::in(kPlenty)};
  Greeting other;  // of another build, where everything else may mean something else
  other.frame.version = 7;
  EXPECT_EQ(disagreement(request, 1, other),
            "the ranks run different versions of bluefog_pg: rank 0 has 2, rank 1 has 7");
}

TEST(AgreementTest, Operations) {
  Verdicts verdicts;
  verdicts.frame0.operation = Operation::kNeighborAllgather;
  EXPECT_EQ(verdicts.both(),
            "the ranks call different operations: rank 0 has neighbor_allgather, rank 1 has "
            "neighbor_allreduce");
}

TEST(AgreementTest, Steps) {
  Verdicts verdicts;
  verdicts.frame0.round = 4;
  verdicts.frame1.round = 5;
  EXPECT_EQ(verdicts.both(),
            "the ranks are at different steps of the topology: rank 0 has topology step 4, rank 1 "
            "has topology step 5");
  verdicts.frame1.round = -1;
  EXPECT_NE(verdicts.both().find("rank 1 has weights given by the call"), std::string::npos);
}

TEST(AgreementTest, Shapes) {
  Verdicts verdicts;
  verdicts.frame1 = frame_of(4);
  EXPECT_EQ(verdicts.both(),
            "the ranks bring different tensors: rank 0 has 1 tensor: float32[3], rank 1 has 1 "
            "tensor: float32[4]");
}

TEST(AgreementTest, Places) {
  Verdicts verdicts;
  add_places(verdicts.frame0, {"allocation 1 + 0 bytes"});
  EXPECT_EQ(
      verdicts.both(),
      "the ranks bring different tensors: rank 0 has 1 tensor: float32[3] in allocation 1 + 0 "
      "bytes, rank 1 has 1 tensor: float32[3]");
  verdicts.frame1 = verdicts.frame0;
  EXPECT_EQ(verdicts.both(), "nothing");
  verdicts.frame1 = frame_of(3);
  add_places(verdicts.frame1, {"allocation 1 + 64 bytes"});
  EXPECT_NE(verdicts.both().find("float32[3] in allocation 1 + 64 bytes"), std::string::npos);
}

TEST(AgreementTest, PlacesOfManyTensors) {
  Verdicts verdicts;
  std::vector<std::string> places(20, "allocation 1 + 0 bytes");
  add_places(verdicts.frame0, places);
  places.back() = "";
  add_places(verdicts.frame1, places);
  EXPECT_NE(verdicts.both().find("(they differ after the part shown)"), std::string::npos);
  EXPECT_EQ(std::string(verdicts.frame0.text).size(), Frame::kTextSize - 1);
}

TEST(AgreementTest, NumbersOfTensors) {
  Verdicts verdicts;
  verdicts.frame1.tensors = 2;
  verdicts.frame1.schema = 9;
  std::strcpy(verdicts.frame1.text, "float32[3], float32[1]");
  EXPECT_NE(verdicts.both().find("rank 1 has 2 tensors: float32[3], float32[1]"),
            std::string::npos);
}

TEST(AgreementTest, TextsThatWereCutOff) {
  Verdicts verdicts;
  verdicts.frame1.schema = 9;
  std::memset(verdicts.frame0.text, 'x', Frame::kTextSize);
  std::memset(verdicts.frame1.text, 'x', Frame::kTextSize);
  const std::string said = verdicts.both();
  EXPECT_NE(said.find("(they differ after the part shown)"), std::string::npos);
  EXPECT_NE(said.find(std::string(Frame::kTextSize, 'x')), std::string::npos);
}

TEST(AgreementTest, ASenderThatNobodyListensTo) {
  Verdicts verdicts;
  verdicts.plan1 = Plan(1, 2, 1, {}, {{0, 1}});
  EXPECT_EQ(verdicts.both(),
            "rank 0 sends to rank 1, but rank 1 does not have rank 0 among its sources");
}

TEST(AgreementTest, AReceiverThatNobodySendsTo) {
  Verdicts verdicts;
  verdicts.plan1 = Plan(1, 2, 1, {{0, 1}}, {});
  EXPECT_EQ(verdicts.both(),
            "rank 0 wants to receive from rank 1, but rank 1 does not have rank 0 among its "
            "destinations");
}

TEST(AgreementTest, TwoSendersWithoutAReceiver) {
  Verdicts verdicts;
  verdicts.plan0 = Plan(0, 2, 1, {}, {{1, 1}});
  verdicts.plan1 = Plan(1, 2, 1, {}, {{0, 1}});
  EXPECT_EQ(verdicts.both(),
            "rank 0 sends to rank 1, but rank 1 does not have rank 0 among its sources");
}

}  // namespace
}  // namespace bluefog::test
