#include "transport/nccl/put_slots.h"

#include <algorithm>
#include <cstring>
#include <span>
#include <string>

#include "base/error.h"

namespace bluefog::nccl {
namespace {

constexpr std::size_t kAlignment = 256;  // of a slot: that of cudaMalloc

/// What a rank says of itself in the store.
struct Side {
  std::int64_t version;  // of NCCL
  std::int64_t can_put;
  std::int64_t nbytes;
  std::vector<int> sources;
  std::vector<int> destinations;
};

std::string key_of(int rank) { return concat("edges_", rank); }

std::vector<std::uint8_t> encode(const NcclApi& api, const PutEdges& edges) {
  std::vector<std::int64_t> words{api.version(), api.has_put_signal(),
                                  static_cast<std::int64_t>(edges.nbytes),
                                  static_cast<std::int64_t>(edges.sources.size())};
  words.insert(words.end(), edges.sources.begin(), edges.sources.end());
  words.insert(words.end(), edges.destinations.begin(), edges.destinations.end());
  std::vector<std::uint8_t> bytes(words.size() * sizeof(std::int64_t));
  std::memcpy(bytes.data(), words.data(), bytes.size());
  return bytes;
}

Side decode(const std::vector<std::uint8_t>& bytes, int rank) {
  std::vector<std::int64_t> words(bytes.size() / sizeof(std::int64_t));
  std::memcpy(words.data(), bytes.data(), words.size() * sizeof(std::int64_t));
  if (words.size() < 4 || words[3] < 0 || static_cast<std::size_t>(words[3]) > words.size() - 4) {
    fail(ErrorCode::kSystem, "what the store has of rank ", rank, "'s puts cannot be read");
  }
  const auto destinations = words.begin() + 4 + words[3];
  return {words[0], words[1], words[2], std::vector<int>(words.begin() + 4, destinations),
          std::vector<int>(destinations, words.end())};
}

Side read(c10d::Store& store, int rank, const PutEdges& mine, const Deadline& deadline) {
  try {
    // To a store, 0 is no time limit at all.
    store.wait({key_of(rank)}, std::max(deadline.left_in_ms(), std::chrono::milliseconds(1)));
    return decode(store.get(key_of(rank)), rank);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& failed) {
    fail(deadline.passed() ? ErrorCode::kTimeout : ErrorCode::kSystem, "rank ", mine.rank, " of ",
         mine.size, ": rank ", rank, " has not come to set up puts after ",
         deadline.elapsed_seconds(), " s: ", failed.what());
  }
}

bool has(const std::vector<int>& ranks, int rank) {
  return std::ranges::find(ranks, rank) != ranks.end();
}

void check_ranks(const std::vector<int>& ranks, int of, int size) {
  for (const int rank : ranks) {
    if (rank < 0 || rank >= size || rank == of) {
      fail(ErrorCode::kUsage, "rank ", of, " of ", size, " cannot have an edge with rank ", rank);
    }
  }
}

// Looks at the ranks in ascending order, so that all say the same.
void check(const std::vector<Side>& sides) {
  const int size = static_cast<int>(sides.size());
  for (int rank = 0; rank < size; ++rank) {
    check_ranks(sides[rank].sources, rank, size);
    check_ranks(sides[rank].destinations, rank, size);
    if (!sides[rank].can_put) {
      fail(ErrorCode::kUsage, "rank ", rank, " has NCCL ",
           dotted(static_cast<int>(sides[rank].version)),
           ", or was built for an older one, and cannot put into another rank's memory: that "
           "needs 2.29 or newer on all ranks");
    }
    if (sides[rank].nbytes < 1) {
      fail(ErrorCode::kUsage, "rank ", rank, " wants to put ", sides[rank].nbytes, " bytes");
    }
    if (sides[rank].nbytes != sides[0].nbytes) {
      fail(ErrorCode::kMismatch, "the ranks put different sizes: rank 0 has ", sides[0].nbytes,
           " bytes, rank ", rank, " has ", sides[rank].nbytes);
    }
  }
  for (int rank = 0; rank < size; ++rank) {
    for (int other = 0; other < size; ++other) {
      const bool sends = has(sides[rank].destinations, other);
      if (sends == has(sides[other].sources, rank)) continue;
      fail(ErrorCode::kMismatch, "the edge from rank ", rank, " to rank ", other,
           " is known to rank ", sends ? rank : other, " alone");
    }
  }
}

}  // namespace

PutSlots PutSlots::agree(const NcclApi& api, c10d::Store& store, const PutEdges& mine,
                         const Deadline& deadline) {
  store.set(key_of(mine.rank), encode(api, mine));
  std::vector<Side> sides;
  for (int rank = 0; rank < mine.size; ++rank) sides.push_back(read(store, rank, mine, deadline));
  check(sides);

  const std::size_t slot = (mine.nbytes + kAlignment - 1) / kAlignment * kAlignment;
  PutSlots slots;
  std::size_t next = 0;
  for (const int source : mine.sources) slots.landing[source] = slot * next++;
  for (const int destination : mine.destinations) {
    slots.outgoing[destination] = slot * next++;
    const auto& theirs = sides[destination].sources;
    slots.remote[destination] =
        static_cast<std::size_t>(std::ranges::find(theirs, mine.rank) - theirs.begin()) * slot;
  }
  std::size_t most = 1;  // a window of nothing is none
  for (const Side& side : sides) {
    most = std::max(most, side.sources.size() + side.destinations.size());
  }
  slots.bytes = most * slot;
  return slots;
}

}  // namespace bluefog::nccl
