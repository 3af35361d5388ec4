// Rounds through the group's inner backend: one coalesced group of its sends and receives, which in
// both of torch's NCCL engines is one ncclGroup and one Work. So torch's watchdog, timeouts, flight
// recorder and streams serve neighbor operations too, and there is no second communicator that
// could deadlock against the first.
#pragma once

#include <functional>
#include <torch/csrc/distributed/c10d/Backend.hpp>

#include "transport/nccl/wire.h"

namespace bluefog::nccl {

class InnerWire : public Wire {
 public:
  /// The backend belongs to the caller and outlives the wire.
  explicit InnerWire(c10d::Backend* inner) : inner_(inner) {}

  c10::intrusive_ptr<c10d::Work> exchange(const Round& round) override;

  /// An all_reduce of one number: without it the first round would make the communicator, for which
  /// NCCL waits for all ranks.
  void connect(at::Device device) override;

  /// Nothing: who aborts the inner backend has ended its rounds.
  void abort() override {}

 private:
  c10d::Backend* const inner_;
};

}  // namespace bluefog::nccl
