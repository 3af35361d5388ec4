#include "device/combine.h"

#include <span>

#include "device/combine_op.h"

namespace bluefog::device {
namespace {

// An arrival that comes first has to be of the outputs' type.
std::vector<at::Tensor> widened(std::span<const at::Tensor> tensors,
                                const std::vector<at::Tensor>& outputs) {
  std::vector<at::Tensor> wide;
  for (std::size_t t = 0; t < tensors.size(); ++t) {
    wide.push_back(tensors[t].to(outputs[t].scalar_type()));
  }
  return wide;
}

}  // namespace

std::vector<double> weights_of(const Plan& plan) {
  std::vector<double> weights{plan.self_weight()};
  for (const Edge& source : plan.sources()) weights.push_back(source.weight);
  return weights;
}

void combine_terms(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
                   const std::vector<at::Tensor>& arrivals, const std::vector<double>& weights) {
  std::vector<double> counting;
  std::vector<at::Tensor> first, others;
  for (std::size_t term = 0; term < weights.size(); ++term) {
    if (weights[term] == 0) continue;
    const auto tensors =
        term == 0 ? std::span(inputs)
                  : std::span(arrivals).subspan((term - 1) * outputs.size(), outputs.size());
    if (counting.empty()) {
      first = term == 0 ? inputs : widened(tensors, outputs);
    } else {
      others.insert(others.end(), tensors.begin(), tensors.end());
    }
    counting.push_back(weights[term]);
  }
  if (counting.empty()) {
    for (const at::Tensor& output : outputs) output.zero_();
  } else {
    combine(outputs, first, others, counting);
  }
}

}  // namespace bluefog::device
