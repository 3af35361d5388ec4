// Every environment variable that the data plane reads, with its default and meaning. Read once per
// group.
#pragma once

#include <cstddef>

namespace bluefog {

struct Env {
  /// BLUEFOG_SHM_CHUNK_BYTES: unit in which an ordinary tensor is published to neighbours of the
  /// same host; a multiple of 4096.
  std::size_t shm_chunk_bytes = 256 << 10;

  /// BLUEFOG_SHM_CHUNKS: chunks in a rank's ring; a writer can be this far ahead of its slowest
  /// reader.
  std::size_t shm_chunks = 16;

  /// BLUEFOG_SPIN_US: microseconds that a rank polls shared memory before it sleeps in the kernel.
  /// The default, -1, means 30 where every rank of the host has a core of its own and 0 where ranks
  /// outnumber cores.
  int spin_us = -1;

  /// Reads the variables; throws Error(kUsage) that names the variable when a value is no number or
  /// out of range.
  static Env read();
};

}  // namespace bluefog
