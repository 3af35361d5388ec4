// ncclComm_t, and what it stands for.
#pragma once

#include <memory>

#include "nccl/communicator.h"

namespace emulator::nccl {

/// Registers it; the handle is never another's.
ncclComm_t add_handle(std::shared_ptr<Communicator> communicator);
void remove_handle(ncclComm_t handle);
/// Throws for what is none, or none any more.
std::shared_ptr<Communicator> find(ncclComm_t handle);

}  // namespace emulator::nccl
