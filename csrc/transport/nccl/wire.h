// How a round of neighbours' tensors crosses between GPUs.
//
// Two implementations, one contract: InnerWire goes through the group's inner NCCL backend and is
// the default; OwnWire has a communicator of its own. Not thread-safe: calls on one group come one
// after the other, as everywhere in c10d.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <vector>

namespace bluefog::nccl {

/// One tensor that goes to a neighbour, or the place of one that comes from it.
struct Transfer {
  enum Direction { kSend, kReceive } direction;
  int peer;
  at::Tensor tensor;  // contiguous, on a device
};

/// What one rank moves in one neighbor operation. The transfers are in the order that
/// `canonical_order` gives; those of one edge are in the order of the operation's tensors.
struct Round {
  std::vector<Transfer> transfers;
  const char* operation;   // "neighbor_allreduce"
  std::uint64_t sequence;  // of the operation in its group
  std::chrono::milliseconds timeout;

  std::uint64_t bytes_sent() const;
};

/// Sorts transfers by their edge (source, destination) in the group, so that all ranks bring the
/// edges of a round in the same order. Transfers of one edge keep theirs.
void canonical_order(int rank, std::vector<Transfer>& transfers);

class Wire {
 public:
  virtual ~Wire() = default;

  /// Enqueues a round, which is not empty, as one group, behind all that the current stream of its
  /// device has been given, and returns without waiting for it. The Work's wait() makes the current
  /// stream of then wait, not the host. The tensors must stay alive until the round is over.
  /// Throws what the library below says, and leaves no group open then.
  virtual c10::intrusive_ptr<c10d::Work> exchange(const Round& round) = 0;

  /// Collective over the group, before its first round: afterwards ranks with nothing to move may
  /// stay away from a round.
  virtual void connect(at::Device device) = 0;

  /// Around a collective of the group's inner backend on the device: where that has another
  /// communicator, the device must see both in the order of the host's calls, on all ranks alike.
  virtual void before_collective() {}
  virtual void after_collective(c10d::Work&) {}

  /// Waits until neighbours have fetched what was sent, and frees what there is; collective.
  virtual void shutdown(std::chrono::milliseconds) {}

  /// The last rounds as JSON; empty where another recorder has them.
  virtual std::string records() const { return ""; }

  /// Fails what is under way and what comes later; may be called from any thread.
  virtual void abort() = 0;
};

}  // namespace bluefog::nccl
