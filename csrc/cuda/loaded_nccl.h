// The NCCL that torch has loaded: a second copy in one process would be another version with its
// own state.
#pragma once

#include <pybind11/pybind11.h>

#include <memory>

#include "transport/nccl/api.h"
#include "transport/nccl/own_wire.h"

namespace bluefog::nccl {

/// Throws Error(kSystem) where torch has loaded no libnccl.so.2 (it may be linked into torch, or
/// torch is built without), where it is older than 2.18, which has no ncclCommSplit, or lacks a
/// call.
std::unique_ptr<NcclApi> load_nccl();

/// What OwnWire asks of CUDA.
DeviceHooks cuda_hooks();

/// nccl_version(), of the loaded library: (2, 28, 9).
void bind_nccl(pybind11::module_& module);

}  // namespace bluefog::nccl
