// The weighted combine on a CUDA device: kernels/combine.h for lists of tensors, in one pass over
// memory and one launch for as many tensors as fit into it (combine_launch.h).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/combine_launch.h"

namespace bluefog {

/// Enqueues the sums of `list` on `stream`, which belongs to the current device, as do all
/// pointers. Rounds as kernels/combine.h says, bit for bit, except that it may give another NaN.
/// Returns the error of the first launch that CUDA refused. Any thread; may be captured in a graph.
/// Throws Error(kUsage) for more than kMaxTerms terms.
cudaError_t launch_combine(const CombineList& list, cudaStream_t stream);

}  // namespace bluefog
