// Messages between the ranks of a mesh.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "nccl/mesh.h"

namespace emulator::nccl {

/// Which call a message is of; that of the receiver must be the same.
enum class Kind : std::uint32_t {
  kSendRecv,
  kAllReduce,
  kReduce,
  kBroadcast,
  kAllGather,
  kReduceScatter,
  kAllToAll,
  kGather,
  kScatter,
  kControl,
};

struct Transfer {
  enum class Direction { kSend, kReceive };

  Direction direction;
  int peer;
  void* data;  // a send only reads it
  std::size_t bytes;
  Kind kind;
};

/// All at the same time; those of one direction with one peer in their order. Throws Aborted, or an
/// Error where a peer has gone or its message is not the one expected.
void exchange(const Mesh& mesh, Channel channel, const std::vector<Transfer>& transfers,
              const Stop& stop);

/// Every rank's value, by rank, over the control channel.
template <typename T>
std::vector<T> gather_all(const Mesh& mesh, const T& own, const Stop& stop) {
  std::vector<T> all(mesh.size(), own);
  std::vector<Transfer> transfers;
  T copy = own;
  for (int peer = 0; peer < mesh.size(); ++peer) {
    if (peer == mesh.rank()) continue;
    using enum Transfer::Direction;
    transfers.push_back({kSend, peer, &copy, sizeof(T), Kind::kControl});
    transfers.push_back({kReceive, peer, &all[peer], sizeof(T), Kind::kControl});
  }
  exchange(mesh, Channel::kControl, transfers, stop);
  return all;
}

}  // namespace emulator::nccl
