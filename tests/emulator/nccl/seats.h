// Which GPU each rank has.
#pragma once

#include "nccl/mesh.h"

namespace emulator::nccl {

/// Collective. Throws ncclInvalidUsage where two ranks have the same GPU: unless they are told that
/// this may be (NCCL_MULTI_RANK_GPU_ENABLE, from 2.30), or are ranks of different hosts by
/// NCCL_HOSTID, as with NCCL.
void check_gpus(const Mesh& mesh, int device, const Stop& stop);

}  // namespace emulator::nccl
