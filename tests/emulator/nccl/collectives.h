// What NCCL's two-sided calls send, receive and compute.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <vector>

#include "nccl/api.h"
#include "nccl/communicator.h"
#include "nccl/exchange.h"

namespace emulator::nccl {

/// Of ncclRedOpCreatePreMulSum.
struct Scalar {
  const void* on_device;  // null where it is in `value`
  std::array<std::byte, 8> value;

  const void* data() const { return on_device == nullptr ? value.data() : on_device; }
};

/// A call's arguments.
struct Call {
  Kind kind;
  const void* send;
  void* receive;
  std::size_t count;
  ncclDataType_t type;
  int peer = 0;  // or root
  ncclRedOp_t op = ncclSum;
  std::shared_ptr<const Scalar> scalar = nullptr;
  bool is_send = false;  // ncclSend, else ncclRecv, where it is one of the two
};

/// All the calls of a group at the same time.
void perform(const Communicator& communicator, const std::vector<Call>& calls);

}  // namespace emulator::nccl
