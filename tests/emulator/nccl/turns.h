// The order of a communicator's work, which is on several streams: that of its calls, as NCCL's
// kernels have it.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>

#include "nccl/error.h"

namespace emulator::nccl {

class Turns {
 public:
  using Ticket = std::uint64_t;

  /// By the call. Work that a graph replays has none, and comes between that which has.
  Ticket draw();

  /// By the work, which must call end() too, whatever happens. Work behind aborted work runs at
  /// once, and out of order: it is to find the communicator aborted.
  void begin(std::optional<Ticket> ticket, const Stop& stop);
  void end(std::optional<Ticket> ticket);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  Ticket drawn_ = 0;
  Ticket next_ = 0;
  int running_ = 0;
};

}  // namespace emulator::nccl
