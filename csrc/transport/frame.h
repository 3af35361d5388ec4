// The fixed header that goes with every message, both ways along every edge, before any payload is
// used.
//
// It lets both ends of an edge see that they disagree (dtype, shape, number of tensors, step,
// direction) before an output is touched, and raise the same error with both values.
#pragma once

#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

namespace bluefog {

enum class Operation : std::uint32_t {
  kNone,  // this rank takes no part in an exchange that others may wait for it in
  kNeighborAllreduce,
  kNeighborAllgather,
  kAllreduce,
  kBroadcast,
  kAllgather,
  kReduceScatter,
  kBarrier
};

const char* name_of(Operation operation);

/// Whether all ranks of the group take part, whatever its topology.
inline bool is_collective(Operation operation) { return operation >= Operation::kAllreduce; }

/// What a rank says of one of its operations. Plain bytes: it is copied through shared memory and
/// sockets.
struct Frame {
  static constexpr std::uint32_t kMagic = 0x62466f67;
  static constexpr std::uint32_t kVersion = 2;
  static constexpr std::size_t kTextSize = 184;

  std::uint32_t magic = kMagic;
  std::uint32_t version = kVersion;
  Operation operation = Operation::kNeighborAllreduce;
  std::uint32_t tensors = 0;   // how many tensors are exchanged as one
  std::uint64_t number = 0;    // for people: the group's n-th neighbor operation or collective
  std::uint64_t sequence = 0;  // of this exchange: ascending, the same on all ranks, with gaps
  std::int64_t round = -1;     // step of the topology, -1 where weights were given by the call
  std::uint64_t schema =
      0;  // digest of dtypes and shapes (an allgather on the CPU leaves out the first dimension)
  std::uint64_t nbytes = 0;   // payload
  std::int64_t rows = 0;      // first dimension of an allgather's tensor
  char text[kTextSize] = {};  // dtypes and shapes for people: "float32[3, 4], float32[4]"
};
static_assert(std::is_trivially_copyable_v<Frame>);

/// Also says in the frame where its tensors lie, for operations that find each other's by that: one
/// place for each, empty for what lies nowhere in particular.
void add_places(Frame& frame, const std::vector<std::string>& places);

/// A neighbour's frame, and how that neighbour sees its edge with this rank.
struct Greeting {
  Frame frame;
  double weight = 0;           // scale that the neighbour gives to what it sends here
  std::uint32_t sends = 0;     // whether it sends to this rank
  std::uint32_t receives = 0;  // whether it receives from this rank
};
static_assert(std::is_trivially_copyable_v<Greeting>);

}  // namespace bluefog
