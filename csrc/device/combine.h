// The weighted average of one neighbor operation, from tensors that have arrived.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "plan/plan.h"

namespace bluefog::device {

/// The weights of a plan in the order of addition: this rank's own, then those of its sources.
std::vector<double> weights_of(const Plan& plan);

/// `combine` (combine_op.h), where as on the CPU a term of weight 0 does not count, whatever its
/// values, and a sum of no terms is zero.
void combine_terms(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                   const std::vector<at::Tensor>& arrivals, const std::vector<double>& weights);

}  // namespace bluefog::device
