// The operator bluefog::combine of torch's dispatcher: the weighted combine of lists of tensors, on
// any device. `bluefog_pg._C_cuda` gives it a kernel for CUDA; elsewhere, and where that module is
// not there, torch's own operations do it (combine_aten.h).
//
//   combine(Tensor(a!)[] outputs, Tensor[] inputs, Tensor[] arrivals, float[] weights) -> ()
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace bluefog::device {

/// outputs[t] = weights[0] * inputs[t] + sum over j of weights[j + 1] * arrivals[j * T + t], for T
/// tensors and weights.size() - 1 sources. All of it is on one device; on CUDA it is enqueued on
/// the current stream, and who calls keeps the tensors alive for that stream.
///
/// Rounds as kernels/combine.h promises: in the order of the sources, without fused multiply-add,
/// half types accumulated in float32 and rounded once. outputs[t] may be inputs[t], and must not
/// overlap anything else. Tensors are contiguous; only the number of elements is compared, not the
/// shape. Inputs are of the outputs' type; arrivals too, or of a narrower one: bfloat16 for
/// float32, float8_e4m3fn or float8_e5m2 for float32, float16 and bfloat16. Autograd does not see
/// what is written, as with torch's collectives.
///
/// Throws c10::ValueError, or c10::TypeError for a type, where that is not so. Any thread.
void combine(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
             const std::vector<at::Tensor>& arrivals, const std::vector<double>& weights);

}  // namespace bluefog::device
