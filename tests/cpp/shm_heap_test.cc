#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <limits>
#include <random>

#include "forked.h"
#include "graphs.h"
#include "lending.h"
#include "transport/shm/heap.h"

namespace bluefog::test {
namespace {

using shm::Heap;
using shm::Segment;
using Block = std::shared_ptr<std::byte>;

constexpr std::size_t kPage = 4096;
constexpr std::size_t kPages = 64;

bool is_filled(const std::byte* data, std::size_t nbytes, std::byte with) {
  return std::all_of(data, data + nbytes, [&](std::byte byte) { return byte == with; });
}

class ShmHeapTest : public ::testing::Test {
 protected:
  Block allocate(std::size_t nbytes) { return heap_->allocate(nbytes); }

  // Memory that the kernel has given to the segment so far.
  std::size_t resident() const {
    struct stat status;
    EXPECT_EQ(::fstat(segment_->fd(), &status), 0);
    return static_cast<std::size_t>(status.st_blocks) * 512;
  }

  std::shared_ptr<const Segment> segment_ =
      std::make_shared<const Segment>(Segment::create(0, 2, kPage, 2, kPages* kPage));
  std::shared_ptr<Heap> heap_ = std::make_shared<Heap>(segment_);
};

TEST_F(ShmHeapTest, BlocksAreZerosOnPagesOfTheirOwn) {
  const std::vector<std::size_t> sizes{1, 0, kPage - 1, kPage, kPage + 1, 10 * kPage + 5, 3};
  std::vector<Block> blocks;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    blocks.push_back(allocate(sizes[i]));
    ASSERT_TRUE(blocks[i]);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(blocks[i].get()) % kPage, 0u);
    EXPECT_TRUE(is_filled(blocks[i].get(), sizes[i], std::byte{0}));
    std::fill_n(blocks[i].get(), sizes[i], static_cast<std::byte>(i + 1));
  }
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    EXPECT_TRUE(is_filled(blocks[i].get(), sizes[i], static_cast<std::byte>(i + 1))) << i;
  }
  std::sort(blocks.begin(), blocks.end());
  EXPECT_EQ(std::adjacent_find(blocks.begin(), blocks.end()), blocks.end());
}

TEST_F(ShmHeapTest, TheFirstGapThatIsLargeEnoughIsTaken) {
  const Block first = allocate(kPage);
  Block second = allocate(3 * kPage);
  const Block third = allocate(kPage);
  const std::byte* gap = second.get();
  std::fill_n(second.get(), 3 * kPage, std::byte{7});
  second.reset();

  const Block large = allocate(3 * kPage + 1);
  EXPECT_EQ(large.get(), third.get() + kPage);
  const Block small = allocate(2 * kPage);
  EXPECT_EQ(small.get(), gap);
  EXPECT_TRUE(is_filled(small.get(), 2 * kPage, std::byte{0})) << "what was there before";
  EXPECT_EQ(allocate(kPage).get(), gap + 2 * kPage);
  EXPECT_EQ(allocate(2 * kPage).get(), large.get() + 4 * kPage);
}

TEST_F(ShmHeapTest, GivesNothingWhereNoRoomIsLeft) {
  EXPECT_FALSE(allocate(kPages * kPage + 1));
  for (std::size_t huge : {std::size_t{1} << 50, std::numeric_limits<std::size_t>::max() - kPage,
                           std::numeric_limits<std::size_t>::max()}) {
    EXPECT_FALSE(allocate(huge)) << huge;
  }
  Block all = allocate(kPages * kPage);
  ASSERT_TRUE(all);
  EXPECT_FALSE(allocate(1));
  EXPECT_FALSE(allocate(0));
  all.reset();

  std::vector<Block> pages;
  while (Block page = allocate(1)) pages.push_back(page);
  EXPECT_EQ(pages.size(), kPages);
  for (std::size_t i = 0; i < kPages; i += 2) pages[i].reset();
  EXPECT_FALSE(allocate(kPage + 1)) << "half of it is free, but no two pages on end";
  pages.clear();
  EXPECT_TRUE(allocate(kPages * kPage));
}

TEST_F(ShmHeapTest, MemoryIsTakenAsItIsUsedAndGoesBack) {
  const std::size_t before = resident();
  Block block = allocate(50 * kPage);
  EXPECT_EQ(resident(), before);
  std::fill_n(block.get(), 20 * kPage, std::byte{1});
  EXPECT_EQ(resident(), before + 20 * kPage);
  const Block other = allocate(kPage);
  *other = std::byte{2};
  Block copy = block;
  block.reset();
  EXPECT_EQ(resident(), before + 21 * kPage) << "somebody has it still";
  copy.reset();
  EXPECT_EQ(resident(), before + kPage);
  EXPECT_EQ(*other, std::byte{2});
}

TEST_F(ShmHeapTest, KnowsWhatLiesInItAsAWhole) {
  std::byte* const begin = segment_->heap(0);
  constexpr std::size_t kAll = kPages * kPage;
  const auto at = [&](std::ptrdiff_t offset, std::size_t nbytes) {
    return heap_->offset_of(begin + offset, nbytes);
  };
  EXPECT_EQ(at(0, kAll), 0u);
  EXPECT_EQ(at(0, 0), 0u);
  EXPECT_EQ(at(5, kAll - 5), 5u);
  EXPECT_EQ(at(kAll - 1, 1), kAll - 1);
  EXPECT_EQ(at(-1, 1), std::nullopt);
  EXPECT_EQ(at(-1, kAll), std::nullopt);
  EXPECT_EQ(at(0, kAll + 1), std::nullopt);
  EXPECT_EQ(at(5, kAll - 4), std::nullopt);
  EXPECT_EQ(at(kAll - 1, 2), std::nullopt);
  EXPECT_EQ(at(kAll, 1), std::nullopt);
  EXPECT_EQ(at(kAll + 1, 0), std::nullopt);
  EXPECT_EQ(at(1, std::numeric_limits<std::size_t>::max()), std::nullopt);
  const std::byte elsewhere{};
  EXPECT_EQ(heap_->offset_of(&elsewhere, 1), std::nullopt);
  EXPECT_EQ(heap_->offset_of(nullptr, 1), std::nullopt);
}

TEST_F(ShmHeapTest, NeighboursSeeTheSameBytes) {
  const Segment theirs = Segment::map(UniqueFd(::dup(segment_->fd())), 0, 2);
  EXPECT_EQ(theirs.heap_bytes(), kPages * kPage);
  allocate(kPage).reset();
  const Block skipped = allocate(3 * kPage);
  const Block block = allocate(kPage);
  const std::size_t offset = *heap_->offset_of(block.get() + 9, 4);
  EXPECT_EQ(offset, 3 * kPage + 9);
  std::memcpy(block.get() + 9, "here", 4);
  EXPECT_EQ(std::memcmp(theirs.heap(offset), "here", 4), 0);
}

TEST_F(ShmHeapTest, ABlockKeepsItsMemoryAlive) {
  Block block = allocate(2 * kPage);
  const std::weak_ptr<const Segment> segment = segment_;
  segment_.reset();
  heap_.reset();
  std::fill_n(block.get(), 2 * kPage, std::byte{3});
  EXPECT_TRUE(is_filled(block.get(), 2 * kPage, std::byte{3}));
  EXPECT_FALSE(segment.expired());
  block.reset();
  EXPECT_TRUE(segment.expired());
}

TEST_F(ShmHeapTest, ThreadsAllocateAtTheSameTime) {
  const std::size_t before = resident();
  run_ranks(4, [&](int thread) {
    std::mt19937 random(thread);
    const auto mark = static_cast<std::byte>(thread + 1);
    for (int i = 0; i < 2000; ++i) {
      const std::size_t nbytes = random() % (8 * kPage);
      const Block block = allocate(nbytes);
      ASSERT_TRUE(block);  // four of the largest fit
      ASSERT_TRUE(is_filled(block.get(), nbytes, std::byte{0}));
      std::fill_n(block.get(), nbytes, mark);
      ASSERT_TRUE(is_filled(block.get(), nbytes, mark));
    }
  });
  EXPECT_EQ(resident(), before);
}

TEST(ShmHeapOfTransportTest, IsAsLargeAsAskedFor) {
  Env env = shm_env(kPage, 2);
  env.shm_heap_bytes = 3 * kPage - 1;  // whole pages of it
  auto transports = make_shm(2, env);
  Block block = transports[0]->allocate(2 * kPage);
  EXPECT_TRUE(block);
  EXPECT_FALSE(transports[0]->allocate(1));
  EXPECT_TRUE(transports[1]->allocate(1)) << "each rank has one of its own";

  transports.clear();
  std::fill_n(block.get(), 2 * kPage, std::byte{1});
}

TEST(ShmHeapOfTransportTest, MayBeNothing) {
  Env env = shm_env(kPage, 2);
  for (long bytes : {0L, 100L}) {
    env.shm_heap_bytes = bytes;
    const auto transports = make_shm(2, env);
    EXPECT_FALSE(transports[0]->allocate(0));
    EXPECT_FALSE(transports[0]->allocate(1));
    run_ranks(2, [&](int rank) {  // and all is copied
      const Plan plan = complete(2).plan(rank);
      expect_patterns(exchange(*transports[rank], plan, 1, pattern(rank, 1, 20000)), plan, 1,
                      [](int) { return 20000; });
    });
  }
}

TEST(ShmHeapOfTransportTest, RanksNeedNotHaveTheSame) {
  Store store;
  std::vector<std::unique_ptr<shm::ShmTransport>> transports(3);
  run_ranks(3, [&](int rank) {
    Env env = shm_env(kPage, 2);
    env.shm_heap_bytes = rank * 8 * kPage;
    transports[rank] =
        shm::ShmTransport::connect(store.rendezvous(rank), rank, 3, env, Deadline::in(kPlenty));
    const Plan plan = complete(3).plan(rank);
    const Bytes bytes = pattern(rank, 1, 5 * kPage);
    if (rank == 0) {
      EXPECT_FALSE(transports[rank]->allocate(1));
      expect_patterns(exchange(*transports[rank], plan, 1, bytes), plan, 1,
                      [](int) { return 5 * kPage; });
    } else {
      const Loan loan(*transports[rank], bytes);
      expect_patterns(exchange(*transports[rank], plan, 1, loan.payload), plan, 1,
                      [](int) { return 5 * kPage; });
    }
  });
}

std::size_t kilobytes_of_process(const std::string& key) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(key + ":")) return std::stoul(line.substr(key.size() + 1));
  }
  ADD_FAILURE() << "no " << key;
  return 0;
}

// ulimit: a file that is too large would end the process.
TEST(ShmHeapOfTransportTest, RespectsTheLimitsOfTheUser) {
  Store store;
  const auto connect_with = [](int rank, int resource, std::size_t most) {
    return [=](const Rendezvous& rendezvous) {
      const rlimit limit{most, most};
      ASSERT_EQ(::setrlimit(resource, &limit), 0);
      const auto transport =
          shm::ShmTransport::connect(rendezvous, rank, 2, Env{}, Deadline::in(kPlenty));
      EXPECT_TRUE(transport->reaches(1 - rank));
      EXPECT_TRUE(transport->allocate(kPage));
      EXPECT_FALSE(transport->allocate(most));
    };
  };
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  const int resource = RLIMIT_FSIZE;  // a sanitizer needs all of the address space
#else
  const int resource = RLIMIT_AS;
#endif
  constexpr std::size_t kMost = std::size_t{1} << 33;
  ForkedRank files(store, 0, connect_with(0, RLIMIT_FSIZE, kMost / 8));
  ForkedRank memory(store, 1, connect_with(1, resource, kMost));
  EXPECT_EQ(files.wait(), 0);
  EXPECT_EQ(memory.wait(), 0);
}

// The address space of a process is 2^47 bytes, and n ranks in one map n * n heaps.
TEST(ShmHeapOfTransportTest, ManyRanksOfOneProcessFitIntoIt) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "a sanitizer has most of the address space";
#endif
  constexpr int kRanks = 64;
  const std::size_t before = kilobytes_of_process("VmSize");
  const auto transports = make_shm(kRanks, Env{});
  EXPECT_LT((kilobytes_of_process("VmSize") - before) << 10, std::size_t{1} << 46);
  EXPECT_LT(kilobytes_of_process("VmRSS") << 10, std::size_t{1} << 30);
  for (int rank = 0; rank < kRanks; ++rank) {
    for (int peer = 0; peer < kRanks; ++peer) {
      ASSERT_TRUE(rank == peer || transports[rank]->reaches(peer)) << rank << " " << peer;
    }
    EXPECT_TRUE(transports[rank]->allocate(std::size_t{1} << 30)) << rank;
  }
}

}  // namespace
}  // namespace bluefog::test
