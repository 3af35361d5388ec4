// Memory that the other ranks of a communicator may write to.
#pragma once

#include <sys/types.h>

#include <cstddef>
#include <memory>
#include <vector>

#include "nccl/communicator.h"

namespace emulator::nccl {

class Window {
 public:
  /// Collective: a job of the communicator.
  static Window* create(Communicator& communicator, void* memory, std::size_t bytes);

  void* memory() const { return memory_; }
  bool holds(const void* data, std::size_t bytes) const;
  bool fits(std::size_t offset, std::size_t bytes) const;
  /// What has been written is there before this returns.
  void put(int peer, std::size_t offset, const void* data, std::size_t bytes) const;

 private:
  struct Side {
    pid_t process;
    std::byte* memory;
    std::size_t bytes;
  };

  Window(void* memory, std::size_t bytes, std::vector<Side> sides);

  void* const memory_;
  const std::size_t bytes_;
  const std::vector<Side> sides_;  // by rank
};

}  // namespace emulator::nccl
