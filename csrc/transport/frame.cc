#include "transport/frame.h"

#include <algorithm>

#include "transport/transport.h"

namespace bluefog {

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::kNone:
      return "nothing";
    case Operation::kNeighborAllreduce:
      return "neighbor_allreduce";
    case Operation::kNeighborAllgather:
      return "neighbor_allgather";
    case Operation::kAllreduce:
      return "all_reduce";
    case Operation::kBroadcast:
      return "broadcast";
    case Operation::kAllgather:
      return "all_gather";
    case Operation::kReduceScatter:
      return "reduce_scatter";
    case Operation::kBarrier:
      return "barrier";
  }
  return "unknown operation";
}

std::size_t Piece::size() const {
  std::size_t most = 0;
  for (const auto& source : sources) {
    most = std::max(most, source.size());
  }
  return most;
}

}  // namespace bluefog
