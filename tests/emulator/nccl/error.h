// What ends a call or an exchange of the emulated NCCL.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "nccl/api.h"

namespace emulator::nccl {

class Error : public std::runtime_error {
 public:
  Error(ncclResult_t result, const std::string& text) : std::runtime_error(text), result_(result) {}

  ncclResult_t result() const { return result_; }

 private:
  ncclResult_t result_;
};

/// Thrown out of whatever waits for a peer once its communicator has been aborted.
struct Aborted {};

/// Whether to throw Aborted; what waits asks at least every few milliseconds.
using Stop = std::function<bool()>;

}  // namespace emulator::nccl
