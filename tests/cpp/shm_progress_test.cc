// Who waits for whom in shared memory. One thread plays all ranks, so that every order of steps can
// be written down.
#include <gtest/gtest.h>

#include <thread>

#include "graphs.h"
#include "traffic.h"

namespace bluefog::test {
namespace {

constexpr std::size_t kChunk = 4096;
constexpr std::size_t kRing = 2 * kChunk;

// A rank's part in one operation, a step at a time.
struct Side {
  Side(Transport& transport, Plan plan_, std::uint64_t sequence, std::size_t size,
       milliseconds timeout = kPlenty)
      : plan(std::move(plan_)), bytes(pattern(plan.rank(), sequence, size)) {
    payload.add(bytes.data(), bytes.size());
    exchange = transport.begin(request_of(plan, sequence, payload, timeout));
  }

  void finish() {
    exchange->meet();
    take_all(*exchange, plan, arrival, [](const Piece&) {});
  }

  const Plan plan;
  const Bytes bytes;
  Payload payload;
  std::unique_ptr<Exchange> exchange;
  Arrival arrival;
};

Failure only_failure(const Side& side) {
  const auto& failures = side.exchange->failures();
  EXPECT_EQ(failures.size(), 1u);
  return failures.empty() ? Failure{-1, ErrorCode::kUsage, "none"} : failures.front();
}

class ShmProgressTest : public ::testing::Test {
 protected:
  Transport& rank(int index) { return *transports_[index]; }

  // An operation of two ranks that goes well.
  void exchange_pair(int a, int b, std::uint64_t sequence) {
    const Graph pair{3, {{a, b}, {b, a}}};
    Side first(rank(a), pair.plan(a), sequence, 1000);
    Side second(rank(b), pair.plan(b), sequence, 1000);
    for (Side* side : {&first, &second}) {
      side->finish();
      expect_patterns(side->arrival, side->plan, sequence, [](int) { return 1000; });
    }
  }

  std::vector<std::unique_ptr<shm::ShmTransport>> transports_ =
      make_shm(3, shm_env(kChunk, kRing / kChunk));
  const Graph zero_to_one_{3, {{0, 1}}};
};

TEST_F(ShmProgressTest, AReaderThatStopsIsLeftBehind) {
  {
    Side reader(rank(1), zero_to_one_.plan(1), 1, 0);
    Side writer(rank(0), zero_to_one_.plan(0), 1, 3 * kChunk, kShort);
    reader.exchange->meet();
    writer.finish();
    EXPECT_EQ(only_failure(writer).peer, 1);
    EXPECT_EQ(only_failure(writer).code, ErrorCode::kTimeout);
    EXPECT_EQ(only_failure(writer).what, "stopped in the middle (8192 of 12288 bytes moved)");

    writer.exchange.reset();
    take_all(*reader.exchange, reader.plan, reader.arrival, [](const Piece&) {});
    EXPECT_EQ(only_failure(reader).code, ErrorCode::kTimeout);
    EXPECT_EQ(only_failure(reader).what, "gave up on it in the middle");
  }
  exchange_pair(0, 1, 2);
}

TEST_F(ShmProgressTest, AWriterThatStopsIsGivenUp) {
  {
    Side reader(rank(1), zero_to_one_.plan(1), 1, 0, kShort);
    Side writer(rank(0), zero_to_one_.plan(0), 1, 3 * kChunk);
    reader.finish();
    EXPECT_EQ(reader.arrival.bytes[0].size(), kRing);
    EXPECT_EQ(only_failure(reader).what, "stopped in the middle (8192 of 12288 bytes moved)");
    writer.finish();  // nobody reads any more
    EXPECT_TRUE(writer.arrival.failures.empty()) << writer.arrival.failures.front().what;
  }
  exchange_pair(0, 1, 2);
}

TEST_F(ShmProgressTest, ARankCanBeSomeOperationsAheadOfItsReaders) {
  transports_ = make_shm(3, shm_env(kChunk, 16));  // room is not what is missing
  const Graph pair{3, {{0, 1}, {1, 0}}};
  Side slow(rank(1), pair.plan(1), 1, 0);  // has greeted, and read nothing
  {
    Side fast(rank(0), pair.plan(0), 1, 100);
    fast.finish();
  }
  for (std::uint64_t sequence = 2; sequence <= shm::kHellos; ++sequence) {
    exchange_pair(0, 2, sequence);
  }
  slow.finish();
  expect_patterns(slow.arrival, slow.plan, 1, [](int) { return 100; });
  slow.exchange.reset();
  for (std::uint64_t sequence = shm::kHellos + 1; sequence < 20; ++sequence) {
    exchange_pair(0, 2, sequence);
  }
}

TEST_F(ShmProgressTest, AReaderTooManyOperationsLateIsToldSo) {
  transports_ = make_shm(3, shm_env(kChunk, 16));  // room is not what is missing
  const Graph pair{3, {{0, 1}, {1, 0}}};
  Side slow(rank(1), pair.plan(1), 1, 0);
  {
    Side fast(rank(0), pair.plan(0), 1, 100);
    fast.finish();
  }
  const std::uint64_t last = shm::kHellos + 1;
  for (std::uint64_t sequence = 2; sequence < last; ++sequence) exchange_pair(0, 2, sequence);

  const Graph others{3, {{0, 2}, {2, 0}}};
  Side friendly(rank(2), others.plan(2), last, 100);
  Side fast(rank(0), others.plan(0), last, 100, kShort);  // no place for its greeting until then
  fast.finish();
  friendly.finish();
  expect_patterns(fast.arrival, fast.plan, last, [](int) { return 100; });
  expect_patterns(friendly.arrival, friendly.plan, last, [](int) { return 100; });

  slow.finish();
  EXPECT_EQ(only_failure(slow).what, "gave up on it before this rank came");
  fast.exchange.reset();
  friendly.exchange.reset();
  slow.exchange.reset();
  exchange_pair(0, 1, last + 1);
}

TEST_F(ShmProgressTest, NobodyWaitsForARankThatNeverKnewOfTheEdge) {
  const auto start = Deadline::Clock::now();
  {
    Side other(rank(1), Plan(1, 3, 1, {}, {}), 1, 0);
    other.finish();
    Side mistaken(rank(0), zero_to_one_.plan(0), 1, 3 * kChunk);
    const Greeting greeting = mistaken.exchange->meet().at(0);
    EXPECT_FALSE(greeting.receives);
    mistaken.exchange->drop(1);
    take_all(*mistaken.exchange, mistaken.plan, mistaken.arrival, [](const Piece&) {});
    EXPECT_TRUE(mistaken.arrival.failures.empty());
  }
  for (std::uint64_t sequence = 2; sequence < 12; ++sequence) exchange_pair(0, 2, sequence);
  EXPECT_LT(Deadline::Clock::now() - start, kPlenty / 2);
}

TEST_F(ShmProgressTest, APieceThatIsHeldIsNotOverwritten) {
  Side reader(rank(1), zero_to_one_.plan(1), 1, 0);
  {
    Side writer(rank(0), zero_to_one_.plan(0), 1, kChunk);
    writer.finish();
    EXPECT_TRUE(writer.arrival.failures.empty());
  }
  reader.exchange->meet();
  Piece piece;
  ASSERT_TRUE(reader.exchange->next(piece));

  // The second chunk of the next operation belongs where the piece lies.
  const Graph zero_to_two{3, {{0, 2}}};
  Side next_reader(rank(2), zero_to_two.plan(2), 2, 0);
  Side writer(rank(0), zero_to_two.plan(0), 2, 2 * kChunk, kShort);
  writer.exchange->meet();
  EXPECT_EQ(Bytes(piece.sources[0].begin(), piece.sources[0].end()), pattern(0, 1, kChunk));

  // At the deadline the edge that is stuck loses, not the one that goes on.
  take_all(*writer.exchange, writer.plan, writer.arrival, [](const Piece&) {});
  EXPECT_TRUE(writer.arrival.failures.empty());
  next_reader.finish();
  expect_patterns(next_reader.arrival, next_reader.plan, 2, [](int) { return 2 * kChunk; });
  EXPECT_FALSE(reader.exchange->next(piece));
  EXPECT_EQ(only_failure(reader).what, "gave up on it in the middle");
}

TEST_F(ShmProgressTest, ARankAtAnotherOperationSaysWhere) {
  for (std::uint64_t sequence = 1; sequence <= shm::kHellos + 2; ++sequence) {
    exchange_pair(0, 2, sequence);
  }
  Side lost(rank(1), zero_to_one_.plan(1), 2, 0);
  lost.finish();
  EXPECT_EQ(only_failure(lost).code, ErrorCode::kMismatch);
  EXPECT_EQ(only_failure(lost).what,
            "is at a later operation already and had no exchange with rank 1 in this one");
}

}  // namespace
}  // namespace bluefog::test
