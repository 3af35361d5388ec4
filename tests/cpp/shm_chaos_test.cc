// Ranks that stop, skip, drop and time out at random. Whatever happens, no rank takes a wrong byte
// for a right one, nobody waits for long, and afterwards all is well.
#include <gtest/gtest.h>

#include <barrier>
#include <random>

#include "graphs.h"
#include "lending.h"

namespace bluefog::test {
namespace {

enum class Mood {
  kWell,
  kHurried,
  kSkips,
  kLeavesBeforeMeeting,
  kLeavesAfterMeeting,
  kLeavesReading,
  kDrops
};

struct Chaos {
  Graph graph;
  std::vector<std::size_t> sizes;  // by rank
  std::vector<Mood> moods;         // by rank
};

std::vector<Chaos> random_chaos(int n, int count, std::size_t most, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Chaos> list;
  for (int i = 0; i < count; ++i) {
    const bool last = i + 1 == count;  // in which all meet: who skipped what came before is seen
    Chaos& chaos =
        list.emplace_back(Chaos{last ? complete(n) : random_graph(n, random, 0.6), {}, {}});
    for (int rank = 0; rank < n; ++rank) {
      chaos.sizes.push_back(random() % (most + 1));
      const bool well = last || random() % 4 != 0;
      chaos.moods.push_back(well ? Mood::kWell : static_cast<Mood>(random() % 7));
    }
  }
  return list;
}

// The part of a rank in one operation. True where it got to the end, with or without failures.
bool play(Transport& transport, const Plan& plan, std::uint64_t sequence, Mood mood,
          const Bytes& bytes, Arrival& arrival) {
  if (mood == Mood::kSkips) return false;
  Payload payload;
  payload.add(bytes.data(), bytes.size());
  const milliseconds timeout = mood == Mood::kHurried ? milliseconds(1) : kPlenty;
  const auto exchange = transport.begin(request_of(plan, sequence, payload, timeout));
  if (mood == Mood::kLeavesBeforeMeeting) return false;
  exchange->meet();
  if (mood == Mood::kLeavesAfterMeeting) return false;
  if (mood == Mood::kDrops && !plan.neighbors().empty()) {
    exchange->drop(plan.neighbors().front());
  }
  Piece piece;
  if (mood == Mood::kLeavesReading) {
    exchange->next(piece);
    return false;
  }
  take_all(*exchange, plan, arrival, [](const Piece&) {});
  return true;
}

// Ranks below `lenders` lend their payloads, and spoil them as soon as they have left an operation.
void run_chaos(const Env& env, int n, int count, unsigned seed, int lenders = 0) {
  std::vector<std::unique_ptr<Transport>> transports;
  for (auto& transport : make_shm(n, env)) transports.push_back(std::move(transport));
  for (int rank = 0; rank < lenders; ++rank) {
    transports[rank] = std::make_unique<LendingTransport>(std::move(transports[rank]));
  }
  const auto list = random_chaos(n, count, 3 * env.shm_chunk_bytes * env.shm_chunks, seed);
  std::atomic<int> completed{0};
  std::barrier<> over(n);
  const auto start = Deadline::Clock::now();
  run_ranks(n, [&](int rank) {
    std::uint64_t sequence = 0;
    for (const Chaos& chaos : list) {
      ++sequence;
      const Plan plan = chaos.graph.plan(rank);
      const Mood mood = chaos.moods[rank];
      Arrival arrival;
      if (!play(*transports[rank], plan, sequence, mood, pattern(rank, sequence, chaos.sizes[rank]),
                arrival)) {
        continue;
      }
      for (const Edge& source : plan.sources()) {
        const bool dropped = mood == Mood::kDrops && source.rank == plan.neighbors().front();
        if (dropped || arrival.failed().count(source.rank)) continue;
        ++completed;
        EXPECT_TRUE(arrival.bytes[source.rank] ==
                    pattern(source.rank, sequence, chaos.sizes[source.rank]))
            << "seed " << seed << " operation " << sequence << ": " << source.rank << " to "
            << rank;
      }
    }
    over.arrive_and_wait();
    for (int i = 0; i < 6; ++i) {
      ++sequence;
      const Plan plan = complete(n).plan(rank);
      expect_patterns(exchange(*transports[rank], plan, sequence, pattern(rank, sequence, 9000)),
                      plan, sequence, [](int) { return 9000; });
    }
  });
  EXPECT_GT(completed, count) << "most operations went well";
  EXPECT_LT(Deadline::Clock::now() - start, kPlenty / 2) << "seed " << seed << ": somebody waited";
}

TEST(ShmChaosTest, SmallRings) {
  for (unsigned seed = 1; seed <= 5; ++seed) run_chaos(shm_env(4096, 2), 5, 60, seed);
}

TEST(ShmChaosTest, LargerRings) {
  for (unsigned seed = 11; seed <= 13; ++seed) run_chaos(shm_env(4096, 16), 4, 60, seed);
}

TEST(ShmChaosTest, LentPayloads) {
  for (unsigned seed = 21; seed <= 25; ++seed) run_chaos(shm_env(4096, 2), 5, 60, seed, 5);
}

TEST(ShmChaosTest, SomeLentPayloads) {
  for (unsigned seed = 31; seed <= 33; ++seed) run_chaos(shm_env(4096, 4), 5, 60, seed, 2);
}

}  // namespace
}  // namespace bluefog::test
