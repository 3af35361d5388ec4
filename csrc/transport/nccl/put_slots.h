// Where the puts of a group lie. Every rank has memory of the same size, cut into equal slots:
// first one for each rank that puts into it, in the order of its sources, then one for each rank
// that it puts into. The ranks tell each other their edges through the Store: who writes has to
// know its slot at the target.
#pragma once

#include <chrono>
#include <cstddef>
#include <map>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "base/deadline.h"
#include "transport/nccl/api.h"

namespace bluefog::nccl {

/// What one rank brings; ranks of its group, none twice.
struct PutEdges {
  int rank;
  int size;
  std::size_t nbytes;             // of a put, the same on all ranks, at least 1
  std::vector<int> sources;       // that put into this rank
  std::vector<int> destinations;  // that this rank puts into
};

/// Offsets in bytes, by the rank at the other end.
struct PutSlots {
  std::map<int, std::size_t> landing;   // in this rank's memory
  std::map<int, std::size_t> outgoing;  // likewise
  std::map<int, std::size_t> remote;    // in the memory of the rank that is put into
  std::size_t bytes = 0;                // of everybody's memory, never 0

  /// Collective. All ranks see what all bring, and where that does not fit throw the same:
  /// Error(kUsage) where somebody's NCCL cannot put, Error(kMismatch) for different sizes and for
  /// an edge that only one of its ends knows. Error(kTimeout) names a rank that does not come,
  /// Error(kSystem) is the store's.
  static PutSlots agree(const NcclApi& api, c10d::Store& store, const PutEdges& mine,
                        const Deadline& deadline);
};

}  // namespace bluefog::nccl
