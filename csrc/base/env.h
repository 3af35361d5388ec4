// Every environment variable that the data plane reads, with its default and meaning. Read once per
// group.
#pragma once

#include <cstddef>
#include <string>

namespace bluefog {

struct Env {
  /// BLUEFOG_SHM_CHUNK_BYTES: unit in which an ordinary tensor is published to neighbours of the
  /// same host; a multiple of 4096.
  std::size_t shm_chunk_bytes = 128 << 10;

  /// BLUEFOG_SHM_CHUNKS: chunks in a rank's ring; a writer can be this far ahead of its slowest
  /// reader. The default ring, a little over 1 MiB, stays in cache.
  std::size_t shm_chunks = 9;

  /// BLUEFOG_SHM_HEAP_BYTES: most memory of bluefog_pg.empty() and of DecentralizedDataParallel
  /// that neighbours of the same host read in place; it is taken page by page as it is used. The
  /// default, -1, means as much as the host has, or as limits on files and address space allow; 0
  /// means none, so that all is copied.
  long shm_heap_bytes = -1;

  /// BLUEFOG_SPIN_US: microseconds that a rank polls shared memory before it sleeps in the kernel;
  /// after the first 30, or from the start where ranks outnumber cores, it gives way to other
  /// threads between two looks.
  int spin_us = 300;

  /// BLUEFOG_HOST_COLLECTIVES: 1, or 0 to send standard collectives to Gloo also where all ranks of
  /// a group are on one host. The same on all ranks.
  bool host_collectives = true;

  /// GLOO_SOCKET_IFNAME, which Gloo reads as well: the network interface at which other hosts reach
  /// this rank; of several, separated by commas, the first. Empty, the default, means the
  /// one with the address of the host's name.
  static std::string interface();

  /// Reads the other variables; throws Error(kUsage) that names the variable when a value is no
  /// number or out of range.
  static Env read();
};

}  // namespace bluefog
