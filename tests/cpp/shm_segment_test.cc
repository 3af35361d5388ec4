#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <filesystem>
#include <set>
#include <thread>

#include "ranks.h"
#include "transport/shm/segment.h"

namespace bluefog::test {
namespace {

using shm::Segment;

UniqueFd duplicate(const Segment& segment) { return UniqueFd(::dup(segment.fd())); }

std::set<std::string> files_of(const char* folder) {
  std::set<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.insert(entry.path().string());
  }
  return names;
}

std::string refusal(UniqueFd fd, int rank, int size) {
  const Caught caught = catch_error([&] { Segment::map(std::move(fd), rank, size); });
  EXPECT_EQ(caught.code, ErrorCode::kSystem);
  return caught.what;
}

TEST(ShmSegmentTest, HasNoName) {
  const auto before = files_of("/dev/shm");
  const Segment segment = Segment::create(0, 2, 4096, 2);
  EXPECT_EQ(files_of("/dev/shm"), before);
  const auto link = "/proc/self/fd/" + std::to_string(segment.fd());
  EXPECT_EQ(std::filesystem::read_symlink(link), "/memfd:bluefog (deleted)");
}

TEST(ShmSegmentTest, NobodyCanChangeItsSize) {
  const Segment segment = Segment::create(0, 2, 4096, 2);
  for (off_t size : {0, 4096, 1 << 20}) {
    EXPECT_EQ(::ftruncate(segment.fd(), size), -1);
    EXPECT_EQ(errno, EPERM);
  }
  EXPECT_EQ(::fcntl(segment.fd(), F_ADD_SEALS, F_SEAL_WRITE), -1) << "seals are sealed too";
}

TEST(ShmSegmentTest, IsNotInheritedByPrograms) {
  const Segment segment = Segment::create(0, 2, 4096, 2);
  EXPECT_TRUE(::fcntl(segment.fd(), F_GETFD) & FD_CLOEXEC);
}

TEST(ShmSegmentTest, TwoMappingsAreTheSameMemory) {
  const Segment own = Segment::create(1, 3, 4096, 2);
  const Segment theirs = Segment::map(duplicate(own), 1, 3);
  ASSERT_NE(own.chunk(0), theirs.chunk(0));
  for (std::uint64_t index : {0, 1}) own.chunk(index)[4095] = static_cast<std::byte>(7 + index);
  own.released(2).value = 11;
  own.barred(2).value = 12;
  own.hello(5).first_chunk = 13;
  own.edge(5, 2).weight = 14;
  own.control().published.value = 15;
  EXPECT_EQ(theirs.chunk(0)[4095], std::byte{7});
  EXPECT_EQ(theirs.chunk(1)[4095], std::byte{8});
  EXPECT_EQ(theirs.released(2).value, 11u);
  EXPECT_EQ(theirs.barred(2).value, 12u);
  EXPECT_EQ(theirs.hello(5).first_chunk, 13u);
  EXPECT_EQ(theirs.edge(5, 2).weight, 14);
  EXPECT_EQ(theirs.control().published.value, 15u);
}

TEST(ShmSegmentTest, ItsPartsDoNotOverlap) {
  constexpr int kSize = 5;
  const Segment segment = Segment::create(0, kSize, 8192, 3);
  std::vector<std::pair<const void*, std::size_t>> parts{
      {&segment.control(), sizeof(shm::Control)}};
  for (int peer = 0; peer < kSize; ++peer) {
    parts.emplace_back(&segment.released(peer), sizeof(shm::Counter));
    parts.emplace_back(&segment.barred(peer), sizeof(shm::Counter));
  }
  for (std::uint64_t sequence = 0; sequence < shm::kHellos; ++sequence) {
    parts.emplace_back(&segment.hello(sequence), sizeof(shm::Hello));
    for (int peer = 0; peer < kSize; ++peer) {
      parts.emplace_back(&segment.edge(sequence, peer), sizeof(shm::EdgeView));
    }
  }
  for (std::uint64_t index = 0; index < 3; ++index) parts.emplace_back(segment.chunk(index), 8192);
  std::sort(parts.begin(), parts.end());
  for (std::size_t i = 1; i < parts.size(); ++i) {
    EXPECT_LE(static_cast<const char*>(parts[i - 1].first) + parts[i - 1].second,
              static_cast<const char*>(parts[i].first));
  }
  EXPECT_EQ(segment.chunk(3), segment.chunk(0));
  EXPECT_EQ(&segment.hello(shm::kHellos), &segment.hello(0));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(segment.chunk(1)) % 4096, 0u);
}

TEST(ShmSegmentTest, RefusesWhatIsNoSegment) {
  UniqueFd unsealed(::memfd_create("test", MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(unsealed.get(), 1 << 20), 0);
  EXPECT_EQ(refusal(std::move(unsealed), 1, 2),
            "rank 1 sent a file that is not a sealed segment of this group");

  UniqueFd zeros(::memfd_create("test", MFD_ALLOW_SEALING));
  ASSERT_EQ(::ftruncate(zeros.get(), 1 << 20), 0);
  ASSERT_EQ(::fcntl(zeros.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  EXPECT_NE(refusal(std::move(zeros), 1, 2).find("same version of bluefog_pg"), std::string::npos);

  UniqueFd tiny(::memfd_create("test", MFD_ALLOW_SEALING));
  ASSERT_EQ(::fcntl(tiny.get(), F_ADD_SEALS, F_SEAL_SHRINK), 0);
  refusal(std::move(tiny), 1, 2);

  std::array<int, 2> pipe;
  ASSERT_EQ(::pipe(pipe.data()), 0);
  const UniqueFd other_end(pipe[1]);
  refusal(UniqueFd(pipe[0]), 1, 2);
}

TEST(ShmSegmentTest, RefusesTheSegmentOfAnotherRank) {
  const Segment segment = Segment::create(1, 3, 4096, 2);
  const std::string what = refusal(duplicate(segment), 2, 3);
  EXPECT_NE(what.find("sent the segment of rank 1 of 3"), std::string::npos) << what;
  EXPECT_NE(what.find("expected rank 2 of 3"), std::string::npos) << what;
  refusal(duplicate(segment), 1, 4);
}

TEST(ShmSegmentTest, TheEndOfItsThreadIsDeath) {
  const Segment own = Segment::create(0, 2, 4096, 2);
  const Segment theirs = Segment::map(duplicate(own), 0, 2);
  EXPECT_FALSE(theirs.owner_died()) << "not born yet";
  std::thread([&] {
    own.hold_life();
    EXPECT_FALSE(theirs.owner_died());
  }).join();
  EXPECT_TRUE(theirs.owner_died());
  EXPECT_FALSE(theirs.owner_left());
}

TEST(ShmSegmentTest, AGoodbyeIsNotDeath) {
  const Segment own = Segment::create(0, 2, 4096, 2);
  const Segment theirs = Segment::map(duplicate(own), 0, 2);
  std::thread([&] {
    own.hold_life();
    own.say_goodbye();
  }).join();
  EXPECT_FALSE(theirs.owner_died());
  EXPECT_TRUE(theirs.owner_left());
}

}  // namespace
}  // namespace bluefog::test
