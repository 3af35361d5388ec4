// Payloads that neighbours read where they are: who waits for whom, and what an owner that fails or
// goes on may do to its readers.
#include <gtest/gtest.h>

#include <future>

#include "lending.h"
#include "tasks.h"
#include "transport/shm/handshake.h"

namespace bluefog::test {
namespace {

constexpr std::size_t kChunk = 4096;
constexpr int kPieces = 6;
constexpr std::size_t kSize = (kPieces - 1) * kChunk + 100;  // more than the ring
const Env kEnv = shm_env(kChunk, 2);

Arrival finish(Exchange& exchange, const Plan& plan) {
  Arrival arrival;
  take_all(exchange, plan, arrival, [](const Piece&) {});
  return arrival;
}

void expect_failure(const Exchange& exchange, int peer, ErrorCode code, const std::string& what) {
  ASSERT_EQ(exchange.failures().size(), 1u);
  EXPECT_EQ(exchange.failures()[0].peer, peer);
  EXPECT_EQ(exchange.failures()[0].code, code);
  EXPECT_EQ(exchange.failures()[0].what, what);
}

// Rank 0 sends to the others.
class ShmLendingTest : public ::testing::Test {
 protected:
  Transport& rank(int index) { return *transports_[index]; }
  static Plan plan(int rank) { return out_star(3).plan(rank); }

  std::unique_ptr<Exchange> begin(const Plan& plan, const Payload& payload,
                                  milliseconds timeout = kPlenty) {
    return rank(plan.rank()).begin(request_of(plan, sequence_, payload, timeout));
  }

  // Whether neighbours see what changes after the greeting.
  bool is_lent(const Payload& payload, std::byte* last) {
    const Plan sender = plan(0), readers[] = {plan(1), plan(2)};
    const auto lender = begin(sender, payload);
    const std::byte before = *last;
    *last = ~before;
    auto sent = std::async(std::launch::async, [&] {
      lender->meet();
      EXPECT_TRUE(finish(*lender, sender).failures.empty());
    });
    bool changed = false;
    for (const Plan& reader : readers) {
      const auto exchange = begin(reader, nothing_);
      exchange->meet();
      const Arrival arrival = finish(*exchange, reader);
      EXPECT_EQ(arrival.bytes.at(0).size(), payload.nbytes());
      changed = arrival.bytes.at(0).back() != before;
    }
    sent.get();
    ++sequence_;
    return changed;
  }

  bool is_lent(std::byte* data, std::size_t nbytes, bool steady = true) {
    Payload payload;
    payload.add(data, nbytes);
    payload.steady = steady;
    return is_lent(payload, data + nbytes - 1);
  }

  std::vector<std::unique_ptr<shm::ShmTransport>> transports_ = make_shm(3, kEnv);
  std::uint64_t sequence_ = 1;
  const Payload nothing_;
};

TEST_F(ShmLendingTest, OnlyLargeSteadyMemoryOfTheHeapIsLent) {
  const auto memory = rank(0).allocate(4 * kChunk);
  EXPECT_FALSE(is_lent(memory.get(), kChunk - 1));
  EXPECT_TRUE(is_lent(memory.get(), kChunk));
  EXPECT_TRUE(is_lent(memory.get(), kChunk + 1));
  EXPECT_TRUE(is_lent(memory.get(), 4 * kChunk));
  EXPECT_TRUE(is_lent(memory.get() + 64, 2 * kChunk)) << "a part of a block";
  EXPECT_FALSE(is_lent(memory.get(), 2 * kChunk, /*steady=*/false));

  Bytes ordinary(2 * kChunk);
  EXPECT_FALSE(is_lent(ordinary.data(), ordinary.size()));
  const auto of_another = rank(1).allocate(kChunk);
  EXPECT_FALSE(is_lent(of_another.get(), kChunk));

  Payload two;
  two.add(memory.get(), kChunk);
  two.add(memory.get() + kChunk, kChunk);
  two.steady = true;
  EXPECT_FALSE(is_lent(two, memory.get() + 2 * kChunk - 1));
}

TEST_F(ShmLendingTest, TheLenderWaitsForItsReaders) {
  const Plan sender = plan(0), quick = plan(1), slow = plan(2);
  Loan loan(rank(0), pattern(0, 1, kSize));
  auto sent = std::async(std::launch::async, [&] {
    const Arrival arrival = exchange(rank(0), sender, 1, loan.payload);
    loan.spoil();
    return arrival.failures.size();
  });
  const auto first = begin(quick, nothing_);
  first->meet();
  expect_patterns(finish(*first, quick), quick, 1, [](int) { return kSize; });

  const auto second = begin(slow, nothing_);
  second->meet();
  Bytes bytes;
  for (Piece piece; second->next(piece);) {
    EXPECT_EQ(sent.wait_for(milliseconds(40)), std::future_status::timeout) << bytes.size();
    bytes.insert(bytes.end(), piece.sources[0].begin(), piece.sources[0].end());
  }
  EXPECT_TRUE(bytes == pattern(0, 1, kSize));
  EXPECT_TRUE(second->failures().empty());
  EXPECT_EQ(sent.get(), 0u);
}

// Wherever it stops: before its greeting, after it (0), or with so many pieces in hand or read.
TEST_F(ShmLendingTest, AReaderThatStopsGetsAnErrorAndNoChangedMemory) {
  for (int stop = 0; stop <= kPieces; ++stop, ++sequence_) {
    const Plan sender = plan(0), stopper = plan(1), well = plan(2);
    Loan loan(rank(0), pattern(0, sequence_, kSize));
    auto lender = begin(sender, loan.payload, kShort / 3);
    const auto reader = begin(stopper, nothing_);
    reader->meet();
    Piece piece;
    for (int i = 0; i < stop; ++i) ASSERT_TRUE(reader->next(piece));
    {
      const auto other = begin(well, nothing_);
      other->meet();
      expect_patterns(finish(*other, well), well, sequence_, [](int) { return kSize; });
    }
    lender->meet();
    finish(*lender, sender);
    expect_failure(*lender, 1, ErrorCode::kTimeout,
                   concat("stopped in the middle (0 of ", kSize, " bytes moved)"));
    lender.reset();
    loan.spoil();
    while (reader->next(piece)) {
    }
    expect_failure(*reader, 0, ErrorCode::kTimeout, "gave up on it in the middle");
  }
  run_ranks(3, [&](int index) {
    const Plan all = complete(3).plan(index);
    expect_patterns(exchange(rank(index), all, sequence_, pattern(index, sequence_, kSize)), all,
                    sequence_, [](int) { return kSize; });
  });
}

TEST_F(ShmLendingTest, ALateReaderIsToldThatItIsTooLate) {
  const Plan sender = plan(0), late = plan(1);
  {
    Loan loan(rank(0), pattern(0, 1, kSize));
    const auto lender = begin(sender, loan.payload, milliseconds(1));
    lender->meet();
    finish(*lender, sender);
    ASSERT_EQ(lender->failures().size(), 2u);
    EXPECT_EQ(lender->failures()[0].what, "did not start it");
  }  // the memory has gone back to the kernel
  const auto reader = begin(late, nothing_);
  reader->meet();
  EXPECT_TRUE(finish(*reader, late).bytes.at(0).empty());
  expect_failure(*reader, 0, ErrorCode::kTimeout, "gave up on it before this rank came");
}

TEST_F(ShmLendingTest, AnAbortEndsTheWaitForReaders) {
  const Plan sender = plan(0), slow = plan(1), never = plan(2);
  Loan loan(rank(0), pattern(0, 1, kSize));
  auto sent = std::async(std::launch::async, [&] {
    return catch_error([&] { exchange(rank(0), sender, 1, loan.payload); });
  });
  const auto reader = begin(slow, nothing_);
  const auto never_reads = begin(never, nothing_);
  reader->meet();
  Piece piece;
  ASSERT_TRUE(reader->next(piece));
  EXPECT_EQ(sent.wait_for(milliseconds(40)), std::future_status::timeout);
  const auto start = Deadline::Clock::now();
  rank(0).abort();
  EXPECT_EQ(sent.get().code, ErrorCode::kAborted);
  EXPECT_LT(Deadline::Clock::now() - start, std::chrono::seconds(5));
  loan.spoil();
  while (reader->next(piece)) {
  }
  expect_failure(*reader, 0, ErrorCode::kTimeout, "gave up on it in the middle");
}

// Rank 0, by hand: a segment whose owner says what the test wants.
class Forger {
 public:
  explicit Forger(std::size_t heap_bytes)
      : segment_(shm::Segment::create(0, 2, kChunk, 2, heap_bytes)) {}

  void connect(Store& store) {
    shm::exchange_segments(store.rendezvous(0), 0, 2, &segment_, Deadline::in(kPlenty));
  }

  void lend(std::uint64_t sequence, std::uint64_t offset, std::uint64_t nbytes) {
    shm::Hello& hello = segment_.hello(sequence);
    hello.frame = Frame{};
    hello.frame.sequence = sequence;
    hello.frame.nbytes = nbytes;
    hello.first_chunk = 0;
    hello.lent = offset;
    hello.sequence = sequence;
    shm::EdgeView& edge = segment_.edge(sequence, 1);
    edge.sequence = sequence;
    edge.sends = 1;
    segment_.control().published.value = shm::position(sequence + 1, 0) - 1;
  }

  std::byte* heap() const { return segment_.heap(0); }

 private:
  const shm::Segment segment_;
};

TEST_F(ShmLendingTest, MemoryThatTheLenderDoesNotHaveIsRefused) {
  constexpr std::uint64_t kHeap = 8 * kChunk, kHuge = ~std::uint64_t{0};
  struct Case {
    std::uint64_t offset, nbytes;
    bool right;
  };
  const Plan plan = Graph{2, {{0, 1}}}.plan(1);
  for (const std::uint64_t heap : {kHeap, std::uint64_t{0}}) {
    Store store;
    Forger forger(heap);
    std::unique_ptr<shm::ShmTransport> reader;
    run_ranks(2, [&](int rank) {
      if (rank == 0) return forger.connect(store);
      reader = shm::ShmTransport::connect(store.rendezvous(1), 1, 2, kEnv, Deadline::in(kPlenty));
    });
    const Bytes bytes = pattern(0, 1, heap);
    std::copy(bytes.begin(), bytes.end(), forger.heap());
    std::uint64_t sequence = 0;
    for (const auto& [offset, nbytes, right] :
         {Case{0, heap, true}, Case{heap / 2, heap / 2, true}, Case{heap, 1, false},
          Case{0, heap + 1, false}, Case{heap / 2, heap / 2 + 1, false}, Case{0, kHuge, false},
          Case{kHuge - 1, kChunk, false}, Case{kHuge - kChunk + 1, kChunk, false},
          Case{kChunk, kHuge - kChunk + 1, false}}) {
      forger.lend(++sequence, offset, nbytes);
      const auto exchange = reader->begin(request_of(plan, sequence, nothing_));
      exchange->meet();
      const Arrival arrival = finish(*exchange, plan);
      if (right) {
        EXPECT_TRUE(exchange->failures().empty());
        EXPECT_TRUE(arrival.bytes.at(0) ==
                    Bytes(bytes.begin() + offset, bytes.begin() + offset + nbytes));
      } else {
        EXPECT_TRUE(arrival.bytes.at(0).empty());
        expect_failure(*exchange, 0, ErrorCode::kMismatch, "lends memory that it does not have");
      }
    }
  }
}

// Each rank's memory is spoilt as soon as it hears that its operation is over.
TEST(ShmLendingExecutorTest, ManyOperationsInFlight) {
  constexpr int kRanks = 5, kTasks = 60;
  constexpr std::size_t kCount = 5000;
  for (const Graph& graph : {ring(kRanks), one_way_ring(kRanks), complete(kRanks)}) {
    const auto transports = make_shm(kRanks, kEnv);
    run_ranks(kRanks, [&](int rank) {
      const Plan plan = graph.plan(rank);
      const std::vector<float> x = values(rank, kCount);
      std::vector<std::vector<float>> ys(kTasks, std::vector<float>(kCount));
      std::vector<std::unique_ptr<Loan>> loans;
      std::vector<Outcome> outcomes(kTasks);
      const auto* bytes = reinterpret_cast<const std::byte*>(x.data());
      for (int i = 0; i < kTasks; ++i) {
        loans.push_back(std::make_unique<Loan>(*transports[rank],
                                               Bytes(bytes, bytes + kCount * sizeof(float))));
      }
      Executor executor(transports[rank].get());
      for (int i = 0; i < kTasks; ++i) {
        Loan& loan = *loans[i];
        Task task = averaging(plan, x, ys[i], [&, done = outcomes[i].callback()](auto error) {
          loan.spoil();
          done(error);
        });
        task.payload = loan.payload;
        executor.submit(std::move(task));
      }
      for (int i = 0; i < kTasks; ++i) {
        EXPECT_EQ(outcomes[i].get().code, std::nullopt) << outcomes[i].get().what;
        EXPECT_TRUE(ys[i] == expected_sum(plan, kCount)) << "operation " << i;
      }
    });
  }
}

}  // namespace
}  // namespace bluefog::test
