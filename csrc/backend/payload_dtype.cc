#include "backend/payload_dtype.h"

#include <ATen/ops/clamp.h>

#include <limits>

#include "backend/schema.h"
#include "device/combine_aten.h"

namespace bluefog {

void check_payload(const at::Tensor& input, at::ScalarType payload, std::size_t index) {
  TORCH_CHECK_TYPE(device::is_narrower(payload, input.scalar_type()), "neighbor_allreduce: tensor ",
                   index, " is ", dtype_name(input.scalar_type()), ", which cannot go as ",
                   dtype_name(payload),
                   "; float32 goes as bfloat16, and float32, float16 and bfloat16 go as "
                   "float8_e4m3fn or float8_e5m2; without payload_dtype tensors go as they are");
}

void check_unscaled(const Plan& plan) {
  for (const Edge& destination : plan.destinations()) {
    TORCH_CHECK_VALUE(destination.weight == 1, "neighbor_allreduce: rank ", plan.rank(),
                      " scales what it sends to rank ", destination.rank, " by ",
                      destination.weight,
                      ", but with payload_dtype dst_weights must be 1: give the weight to the "
                      "receiver's src_weights");
  }
}

at::Tensor rounded(const at::Tensor& input, at::ScalarType payload) {
  const auto saturated = [&](float largest) { return at::clamp(input, -largest, largest); };
  switch (payload) {
    case at::ScalarType::Float8_e4m3fn:
      return saturated(std::numeric_limits<c10::Float8_e4m3fn>::max()).to(payload);
    case at::ScalarType::Float8_e5m2:
      return saturated(std::numeric_limits<c10::Float8_e5m2>::max()).to(payload);
    default:
      return input.to(payload);
  }
}

std::vector<double> difference_weights_of(const Plan& plan) {
  double received = 0;
  std::vector<double> weights{0, 0};
  for (const Edge& source : plan.sources()) {
    received += source.weight;
    weights.push_back(source.weight);
  }
  weights[0] = plan.self_weight() + received;
  weights[1] = -received;
  return weights;
}

}  // namespace bluefog
