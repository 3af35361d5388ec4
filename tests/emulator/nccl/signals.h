// The signals of one-sided calls: counters in memory that all ranks of a communicator share.
#pragma once

#include <sys/types.h>

#include <atomic>
#include <cstdint>
#include <mutex>
#include <vector>

#include "nccl/mesh.h"

namespace emulator::nccl {

class Signals {
 public:
  Signals() = default;
  ~Signals();
  Signals(const Signals&) = delete;
  Signals& operator=(const Signals&) = delete;

  /// Collective.
  void connect(const Mesh& mesh, const Stop& stop);

  pid_t process_of(int peer) const { return processes_[peer]; }
  void raise(int from, int peer);
  /// Waits for `wanted` signals of the peer that no other wait has had.
  void wait(const Mesh& mesh, int peer, std::uint64_t wanted, const Stop& stop);

 private:
  using Counter = std::atomic<std::uint64_t>;

  bool take(int rank, int peer, std::uint64_t wanted);

  std::vector<pid_t> processes_;    // by rank
  std::vector<Counter*> counters_;  // by rank that is signalled; each then by rank that signals
  std::mutex mutex_;
  std::vector<std::uint64_t> taken_;
};

}  // namespace emulator::nccl
