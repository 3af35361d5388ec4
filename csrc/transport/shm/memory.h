// Memory that ranks of one host map: a sealed memfd, which has no name and cannot be truncated
// under a reader.
#pragma once

#include <cstddef>

#include "base/fd.h"

namespace bluefog::shm {

/// A mapping of it. Movable.
class Memory {
 public:
  /// Makes `nbytes` of zeros, which take no room until they are written; `name` shows in
  /// /proc/PID/maps. Throws Error(kSystem).
  static Memory create(const char* name, std::size_t nbytes);

  /// The same for this process alone, without a descriptor.
  static Memory create_private(std::size_t nbytes);

  /// Maps what `rank` has made in another process. Throws Error(kSystem), also for a file that its
  /// owner could still truncate or that has less than `least` bytes.
  static Memory map(UniqueFd fd, std::size_t least, int rank);

  Memory(Memory&& other) noexcept;
  Memory& operator=(Memory&&) = delete;
  ~Memory();

  int fd() const { return fd_.get(); }  // of one's own; of a peer's the mapping is enough
  std::byte* data() const { return data_; }
  std::size_t nbytes() const { return nbytes_; }

 private:
  Memory(UniqueFd fd, std::size_t nbytes);

  UniqueFd fd_;
  std::size_t nbytes_;
  std::byte* data_;
};

}  // namespace bluefog::shm
