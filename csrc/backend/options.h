// What a user can set for one group: init_process_group("bluefog", pg_options=BluefogOptions(...)).
#pragma once

#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>

namespace bluefog {

struct BluefogOptions : c10d::Backend::Options {
  explicit BluefogOptions(std::chrono::milliseconds timeout = kBackendDefaultTimeout,
                          std::string transport = "auto");

  /// Not `override`: torch before 2.14 has no such method, and copies options in Python instead.
  virtual c10::intrusive_ptr<c10d::Backend::Options> clone() const {
    return c10::make_intrusive<BluefogOptions>(*this);
  }

  /// How neighbours are reached on the CPU: "auto" (shared memory on the same host, TCP elsewhere),
  /// "shm" (an error where some rank is on another host), "tcp" or "gloo". The same on all ranks.
  std::string transport;

  /// Whether standard collectives on the CPU go through shared memory where all ranks of the group
  /// are on one host. The same on all ranks.
  bool host_collectives = true;

  /// Whether neighbor operations on the GPU have an NCCL communicator of their own, instead of the
  /// one of ProcessGroupNCCL. The same on all ranks.
  bool own_communicator = false;

  /// Whether memory of `allocateShared` on the GPU is mapped into all ranks of the group, where
  /// they are on one host and their GPUs reach each other, so that neighbours read it in place. The
  /// same on all ranks.
  bool symmetric_memory = true;

  /// On how many streams async neighbor operations on the GPU end, in turn; at least 1.
  int communication_streams = 1;

  /// Whether these, and the one of our own communicator, go before others on the device.
  bool high_priority = true;

  /// The most neighbours, in and out, that any rank has in a neighbor operation on the GPU, for
  /// NCCL to size its channels by; 0 for any number. The same on all ranks.
  int max_neighbors = 0;

  /// Options of ProcessGroupNCCL for the CUDA side of the group, or null for its defaults.
  c10::intrusive_ptr<c10d::Backend::Options> cuda;
};

}  // namespace bluefog
