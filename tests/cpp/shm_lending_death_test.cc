// The end, and the standstill, of a process whose memory is lent, or that reads lent memory.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <random>
#include <thread>

#include "forked.h"
#include "graphs.h"
#include "lending.h"

namespace bluefog::test {
namespace {

constexpr std::size_t kChunk = 4096;
constexpr std::size_t kSize = 20 * kChunk + 100;
const Graph kZeroToOne{2, {{0, 1}}};
const Plan kLender = kZeroToOne.plan(0);
const Plan kReader = kZeroToOne.plan(1);
const Payload kNothing;

std::unique_ptr<shm::ShmTransport> connect(const Rendezvous& rendezvous, int rank) {
  return shm::ShmTransport::connect(rendezvous, rank, 2, shm_env(kChunk, 2), Deadline::in(kPlenty));
}

void expect_lost(const Arrival& arrival, int peer) {
  ASSERT_EQ(arrival.failures.size(), 1u);
  EXPECT_EQ(arrival.failures[0].peer, peer);
  EXPECT_EQ(arrival.failures[0].code, ErrorCode::kPeerLost) << arrival.failures[0].what;
}

// As DecentralizedDataParallel does: the same memory, step after step.
[[noreturn]] void lend_for_ever(const Rendezvous& rendezvous) {
  const auto transport = connect(rendezvous, 0);
  transport->attach();
  rendezvous.set("alive", "");
  Loan loan(*transport, Bytes(kSize));
  for (std::uint64_t sequence = 1;; ++sequence) {
    const Bytes bytes = pattern(0, sequence, kSize);
    std::copy(bytes.begin(), bytes.end(), loan.memory.get());
    exchange(*transport, kLender, sequence, loan.payload);
    loan.spoil();
  }
}

[[noreturn]] void read_for_ever(const Rendezvous& rendezvous) {
  const auto transport = connect(rendezvous, 1);
  transport->attach();
  rendezvous.set("alive", "");
  for (std::uint64_t sequence = 1;; ++sequence) {
    exchange(*transport, kReader, sequence, kNothing);
  }
}

// Kills after some operations, at any point of the next.
class Killer {
 public:
  Killer(const ForkedRank& victim, unsigned seed)
      : thread_([&victim, seed] {
          std::this_thread::sleep_for(std::chrono::microseconds(std::mt19937(seed)() % 20000));
          victim.signal(SIGKILL);
        }) {}
  ~Killer() { thread_.join(); }

 private:
  std::thread thread_;
};

TEST(ShmLendingDeathTest, ALenderThatDiesAtAnyMomentLeavesNoWrongByte) {
  int completed = 0;
  for (unsigned seed = 1; seed <= 25; ++seed) {
    Store store;
    ForkedRank victim(store, 0, lend_for_ever);
    const auto transport = connect(store.rendezvous(1), 1);
    store.get(0, "alive");
    const Killer killer(victim, seed);
    for (std::uint64_t sequence = 1;; ++sequence) {
      const Arrival arrival = exchange(*transport, kReader, sequence, kNothing);
      if (!arrival.failures.empty()) {
        expect_lost(arrival, 0);
        break;
      }
      ++completed;
      ASSERT_TRUE(arrival.bytes.at(0) == pattern(0, sequence, kSize)) << seed << " " << sequence;
    }
  }
  EXPECT_GT(completed, 25);
}

TEST(ShmLendingDeathTest, AReaderThatDiesAtAnyMomentSetsTheLenderFree) {
  int completed = 0;
  for (unsigned seed = 1; seed <= 25; ++seed) {
    Store store;
    ForkedRank victim(store, 1, read_for_ever);
    const auto transport = connect(store.rendezvous(0), 0);
    const Loan loan(*transport, pattern(0, seed, kSize));
    store.get(1, "alive");
    const Killer killer(victim, seed);
    const auto start = Deadline::Clock::now();
    for (std::uint64_t sequence = 1;; ++sequence) {
      const Arrival arrival = exchange(*transport, kLender, sequence, loan.payload);
      if (!arrival.failures.empty()) {
        expect_lost(arrival, 1);
        break;
      }
      ++completed;
    }
    EXPECT_LT(Deadline::Clock::now() - start, std::chrono::seconds(5)) << "and not 30";
  }
  EXPECT_GT(completed, 25);
}

TEST(ShmLendingDeathTest, AReaderThatDiesInTheMiddle) {
  Store store;
  ForkedRank victim(store, 1, [](const Rendezvous& rendezvous) {
    const auto transport = connect(rendezvous, 1);
    transport->attach();
    const auto exchange = transport->begin(request_of(kReader, 1, kNothing));
    exchange->meet();
    Piece piece;
    exchange->next(piece);
    rendezvous.set("reading", "");
    while (true) ::pause();
  });
  const auto transport = connect(store.rendezvous(0), 0);
  const Loan loan(*transport, pattern(0, 1, kSize));
  std::thread killer([&] {
    store.get(1, "reading");
    victim.signal(SIGKILL);
  });
  const auto start = Deadline::Clock::now();
  const Arrival arrival = exchange(*transport, kLender, 1, loan.payload);
  EXPECT_LT(Deadline::Clock::now() - start, std::chrono::seconds(5));
  killer.join();
  if (!arrival.failures.empty()) expect_lost(arrival, 1);
  expect_lost(exchange(*transport, kLender, 2, loan.payload), 1);
}

// What is published stays readable: the reader's mapping outlives the process.
TEST(ShmLendingDeathTest, ALenderThatDiesInTheMiddle) {
  for (int moment = 0; moment < 3; ++moment) {
    Store store;
    ForkedRank victim(store, 0, [](const Rendezvous& rendezvous) {
      const auto transport = connect(rendezvous, 0);
      transport->attach();
      const Loan loan(*transport, pattern(0, 1, kSize));
      const auto exchange = transport->begin(request_of(kLender, 1, loan.payload));
      rendezvous.set("lent", "");
      while (true) ::pause();
    });
    const auto transport = connect(store.rendezvous(1), 1);
    const auto exchange = transport->begin(request_of(kReader, 1, kNothing));
    store.get(0, "lent");
    const auto kill_at = [&](int when) {
      if (moment != when) return;
      victim.signal(SIGKILL);
      victim.wait();
    };
    kill_at(0);
    exchange->meet();
    kill_at(1);
    Bytes bytes;
    for (Piece piece; exchange->next(piece);) {
      if (bytes.empty()) kill_at(2);
      bytes.insert(bytes.end(), piece.sources[0].begin(), piece.sources[0].end());
    }
    EXPECT_TRUE(exchange->failures().empty()) << exchange->failures()[0].what;
    EXPECT_TRUE(bytes == pattern(0, 1, kSize)) << "killed at moment " << moment;
  }
}

// The memory changes under a reader that stands still within a piece; it must learn of that.
TEST(ShmLendingDeathTest, AReaderThatIsStoppedGetsAnError) {
  Store store;
  ForkedRank child(store, 1, [](const Rendezvous& rendezvous) {
    const auto transport = connect(rendezvous, 1);
    transport->attach();
    {
      rendezvous.set("ready", "");
      const auto exchange = transport->begin(request_of(kReader, 1, kNothing));
      exchange->meet();
      Piece piece;
      for (int i = 0; i < 3; ++i) EXPECT_TRUE(exchange->next(piece));
      ::raise(SIGSTOP);
      EXPECT_EQ(piece.sources[0][5], std::byte{0xdd}) << "it was not lent";
      while (exchange->next(piece)) {
      }
      const auto& failures = exchange->failures();
      EXPECT_TRUE(failures.size() == 1 && failures[0].what == "gave up on it in the middle");
    }
    expect_patterns(exchange(*transport, kReader, 2, kNothing), kReader, 2,
                    [](int) { return kSize; });
    transport->detach();
  });
  const auto transport = connect(store.rendezvous(0), 0);
  Loan loan(*transport, pattern(0, 1, kSize));
  store.get(1, "ready");
  const Arrival stopped = exchange(*transport, kLender, 1, loan.payload, {2 * kShort});
  loan.spoil();
  child.signal(SIGCONT);
  ASSERT_EQ(stopped.failures.size(), 1u);
  EXPECT_EQ(stopped.failures[0].code, ErrorCode::kTimeout);
  EXPECT_EQ(stopped.failures[0].what,
            concat("stopped in the middle (0 of ", kSize, " bytes moved)"));
  const Loan next(*transport, pattern(0, 2, kSize));
  expect_patterns(exchange(*transport, kLender, 2, next.payload), kLender, 2,
                  [](int) { return kSize; });
  EXPECT_EQ(child.wait(), 0);
}

}  // namespace
}  // namespace bluefog::test
