// The connections of a communicator: two unix sockets with each peer, one for what the streams'
// threads exchange and one for what the calls themselves do, as either may wait for the other.
#pragma once

#include <array>
#include <atomic>
#include <mutex>
#include <vector>

#include "nccl/error.h"

namespace emulator::nccl {

enum class Channel { kData, kControl };

class Mesh {
 public:
  Mesh(int rank, int size);
  ~Mesh();
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  /// Collective among the ranks of `id`.
  void connect(const ncclUniqueId& id, const Stop& stop);

  int rank() const { return rank_; }
  int size() const { return size_; }
  /// Non-blocking; of a peer, not of this rank itself.
  int socket(Channel channel, int peer) const;

  /// From any thread, connected or not: ends all exchanges of this rank, and has its peers notice.
  void abort();
  bool aborted() const { return aborted_; }

 private:
  void call(int peer, const ncclUniqueId& id, Channel channel, const Stop& stop);
  void admit(int caller, const Stop& stop);
  void keep(Channel channel, int peer, int socket);

  const int rank_;
  const int size_;
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  std::array<std::vector<int>, 2> sockets_;  // by channel and peer; -1 for none
};

}  // namespace emulator::nccl
