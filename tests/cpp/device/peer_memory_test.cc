// Memory that ranks read of each other: what is registered, until when, and when the ranks agree
// to.
#include <gtest/gtest.h>

#include <limits>

#include "base/error.h"
#include "device/peer_ranks.h"

namespace bluefog::test {
namespace {

TEST(PeerMemoryTest, ServesWhatIsRegisteredAndOfTheTopology) {
  Ranks ranks(2);
  ranks.host.run([&](int rank) {
    PeerMemory& memory = ranks[rank];
    const at::Tensor elsewhere = at::zeros({4}, kFloat), none = at::empty({0}, kFloat);
    EXPECT_FALSE(memory.serves({elsewhere}, true));
    const at::Tensor x = memory.allocate(100, kFloat);
    EXPECT_TRUE(memory.serves({x}, true));
    EXPECT_TRUE(memory.serves({none, x.slice(0, 50)}, true));
    EXPECT_TRUE(memory.serves({x.view({10, 10}).t()}, true));
    EXPECT_FALSE(memory.serves({x}, false));
    EXPECT_FALSE(memory.serves({x, elsewhere}, true));
    EXPECT_FALSE(memory.serves({x.slice(0, 0, 100, 2)}, true));
    EXPECT_FALSE(memory.serves({x.slice(0, 0, 1).expand({200})}, true));
    EXPECT_FALSE(memory.serves({none}, true));
    EXPECT_FALSE(memory.serves({}, true));
    EXPECT_EQ(memory.place_of(elsewhere), "");
  });
}

TEST(PeerMemoryTest, RefusesToScaleBeforeAnythingIsSignalled) {
  Ranks ranks(2);
  ranks.host.run([&](int rank) {
    const at::Tensor x = ranks[rank].allocate(4, kFloat), y = at::empty_like(x);
    const Plan plan(rank, 2, 0.5, {{1 - rank, 0.5}}, {{1 - rank, 0.5}});
    try {
      ranks[rank].exchange({plan, {x}, {y}}, combine);
      ADD_FAILURE() << "no error";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kUsage);
    }
    EXPECT_TRUE(ranks.host.log[rank].empty());
  });
}

TEST(PeerMemoryTest, FreedMemoryIsForgottenAtOnce) {
  const std::size_t blocks = FakeAllocator::instance().blocks();
  const int handles = FakeSymmetricMemory::alive;
  Ranks ranks(2);
  ranks.host.run([&](int rank) {
    PeerMemory& memory = ranks[rank];
    at::Tensor kept = memory.allocate(8, kFloat);
    for (int i = 0; i < 20; ++i) {  // of sizes that make malloc give out the same places
      at::Tensor x = memory.allocate(16 + 16 * (i % 3), kFloat);
      const at::Tensor view = x.slice(0, 4, 8);
      x.reset();
      EXPECT_EQ(memory.place_of(view), concat("allocation ", 2 + i, " + 16 bytes"));
      const at::Tensor stranger = at::from_blob(view.data_ptr(), {4}, kFloat);
      EXPECT_TRUE(memory.serves({stranger}, true));
      const_cast<at::Tensor&>(view).reset();
      EXPECT_FALSE(memory.serves({stranger}, true));
    }
    EXPECT_TRUE(memory.serves({kept}, true));
  });
  EXPECT_EQ(FakeAllocator::instance().blocks(), blocks);
  EXPECT_EQ(FakeSymmetricMemory::alive, handles);
}

TEST(PeerMemoryTest, NewMemoryAroundWhereOldWasIsFound) {
  std::vector<float> room(100);
  Ranks ranks(1);
  PeerMemory& memory = ranks[0];
  ranks.host.next_place[0] = &room[40];
  memory.allocate(8, kFloat);
  ranks.host.next_place[0] = &room[0];
  const at::Tensor x = memory.allocate(100, kFloat);
  EXPECT_EQ(memory.place_of(x.slice(0, 50)), "allocation 2 + 200 bytes");
}

TEST(PeerMemoryTest, TensorsOutliveIt) {
  Ranks ranks(2);
  const int handles = FakeSymmetricMemory::alive;
  std::vector<at::Tensor> kept(2);
  ranks.host.run([&](int rank) {
    kept[rank] = ranks[rank].allocate(8, kFloat).fill_(rank + 1);
    ranks.memories[rank].reset();
  });
  EXPECT_EQ(kept[1].sum().item<float>(), 16);
  EXPECT_EQ(FakeSymmetricMemory::alive, handles + 2);
  kept.clear();
  EXPECT_EQ(FakeSymmetricMemory::alive, handles);
}

/// What prevents it on one rank turns the path off on all, and for memory that was registered too.
void expect_off_on_all(Ranks& ranks, const std::function<void()>& then, const char* why) {
  ranks.host.run([&](int rank) {
    const at::Tensor before = ranks[rank].allocate(8, kFloat);
    if (ranks.host.all_agree(rank, true) && rank == 0) then();
    ranks.host.all_agree(rank, true);
    EXPECT_FALSE(ranks[rank].allocate(8, kFloat).defined());
    EXPECT_FALSE(ranks[rank].allocate(8, kFloat).defined());
    EXPECT_EQ(ranks[rank].refusal().find(rank == 1 ? why : "another rank"), 0u)
        << ranks[rank].refusal();
    if (before.defined()) {
      EXPECT_FALSE(ranks[rank].serves({before}, true));
      EXPECT_NE(ranks[rank].place_of(before), "");
    }
  });
}

TEST(PeerMemoryTest, OneRankThatCannotMapTurnsItOffForAll) {
  Ranks ranks(3);
  expect_off_on_all(ranks, [&] { ranks.host.without_mapping = {1}; }, "cannot map");
}

TEST(PeerMemoryTest, OneRankWithoutDirectAccessTurnsItOffForAll) {
  Ranks ranks(3);
  expect_off_on_all(ranks, [&] { ranks.host.without_access = {1}; }, "a device cannot be reached");
}

TEST(PeerMemoryTest, OneRankThatIsNotReachableTurnsItOffForAll) {
  Ranks ranks(3);
  ranks.unreachable = {1};
  expect_off_on_all(ranks, [] {}, "not all devices");
}

TEST(PeerMemoryTest, AnotherImplementationIsNotUsed) {
  Ranks ranks(1);
  PeerGroup group = ranks.group(0);
  group.implementation = "CUDA";
  PeerMemory memory(at::kCPU, group);
  EXPECT_FALSE(memory.allocate(8, kFloat).defined());
  EXPECT_NE(memory.refusal().find("is not CUDA"), std::string::npos) << memory.refusal();
}

TEST(PeerMemoryTest, OutOfMemoryOnOneRankIsForNowOnly) {
  Ranks ranks(2);
  ranks.host.without_memory = {1};
  ranks.host.run([&](int rank) { EXPECT_FALSE(ranks[rank].allocate(8, kFloat).defined()); });
  ranks.host.without_memory = {};
  ranks.host.run([&](int rank) {
    EXPECT_EQ(ranks[rank].place_of(ranks[rank].allocate(8, kFloat)), "allocation 1 + 0 bytes");
    EXPECT_FALSE(ranks[rank].allocate(0, kFloat).defined());
    EXPECT_EQ(ranks[rank].refusal(), "");
  });
}

}  // namespace
}  // namespace bluefog::test
