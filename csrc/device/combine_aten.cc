#include "device/combine_aten.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/_foreach_add.h>
#include <ATen/ops/_foreach_mul.h>

#include <vector>

namespace bluefog::device {
namespace {

bool is_own_type(at::ScalarType type) {
  return type == at::kHalf || type == at::kBFloat16 || type == at::kFloat || type == at::kDouble;
}

void check_place(const at::Tensor& tensor, const at::Tensor& output, const char* list,
                 std::size_t index) {
  TORCH_CHECK_VALUE(tensor.defined(), "combine: ", list, "[", index, "] is undefined");
  TORCH_CHECK_VALUE(tensor.device() == output.device(), "combine: ", list, "[", index, "] is on ",
                    tensor.device(), ", but outputs[0] is on ", output.device());
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided && tensor.is_contiguous(), "combine: ", list,
                    "[", index, "] is not contiguous; pass .contiguous()");
}

void check_count(const at::Tensor& tensor, const at::Tensor& output, const char* list,
                 std::size_t index, std::size_t t) {
  TORCH_CHECK_VALUE(tensor.numel() == output.numel(), "combine: ", list, "[", index, "] has ",
                    tensor.numel(), " elements, but outputs[", t, "] has ", output.numel());
}

// In the type of accumulation, flat.
at::Tensor widened(const at::Tensor& tensor) {
  return tensor.view(-1).to(tensor.scalar_type() == at::kDouble ? at::kDouble : at::kFloat);
}

}  // namespace

bool is_narrower(at::ScalarType payload, at::ScalarType own) {
  if (payload == at::kBFloat16) return own == at::kFloat;
  const bool is_float8 =
      payload == at::ScalarType::Float8_e4m3fn || payload == at::ScalarType::Float8_e5m2;
  return is_float8 && is_own_type(own) && own != at::kDouble;
}

void check_combine(at::TensorList outputs, at::TensorList inputs, at::TensorList arrivals,
                   at::ArrayRef<double> weights) {
  const std::size_t tensors = outputs.size();
  TORCH_CHECK_VALUE(!weights.empty(), "combine: no weights; the first is that of the inputs");
  TORCH_CHECK_VALUE(inputs.size() == tensors, "combine: ", inputs.size(), " inputs for ", tensors,
                    " outputs");
  const std::size_t sources = weights.size() - 1;
  TORCH_CHECK_VALUE(arrivals.size() == sources * tensors, "combine: ", arrivals.size(),
                    " arrivals for ", tensors, " outputs and ", sources,
                    " sources (one weight for each source after the first weight); it takes ",
                    sources * tensors);
  for (std::size_t t = 0; t < tensors; ++t) {
    const at::Tensor& output = outputs[t];
    const at::Tensor& input = inputs[t];
    check_place(output, outputs[0], "outputs", t);
    check_place(input, outputs[0], "inputs", t);
    TORCH_CHECK_TYPE(is_own_type(output.scalar_type()),
                     "combine: it adds float16, bfloat16, float32 and float64, but outputs[", t,
                     "] is ", output.scalar_type());
    TORCH_CHECK_TYPE(input.scalar_type() == output.scalar_type(), "combine: inputs[", t, "] is ",
                     input.scalar_type(), ", but outputs[", t, "] is ", output.scalar_type());
    check_count(input, output, "inputs", t, t);
    for (std::size_t i = t; i < arrivals.size(); i += tensors) {
      check_place(arrivals[i], outputs[0], "arrivals", i);
      const auto payload = arrivals[i].scalar_type();
      TORCH_CHECK_TYPE(
          payload == output.scalar_type() || is_narrower(payload, output.scalar_type()),
          "combine: arrivals[", i, "] is ", payload, ", which is not added to ",
          output.scalar_type());
      TORCH_CHECK_TYPE(payload == arrivals[t].scalar_type(), "combine: arrivals[", i, "] is ",
                       payload, ", but the one before for the same tensor is ",
                       arrivals[t].scalar_type());
      check_count(arrivals[i], output, "arrivals", i, t);
    }
  }
}

void combine_by_aten(at::TensorList outputs, at::TensorList inputs, at::TensorList arrivals,
                     at::ArrayRef<double> weights) {
  const std::size_t tensors = outputs.size();
  if (tensors == 0) return;
  // Written as by a collective. Otherwise parameters would refuse to be written in place.
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  std::vector<at::Tensor> terms(tensors);
  for (std::size_t t = 0; t < tensors; ++t) terms[t] = widened(inputs[t]);
  std::vector<at::Tensor> sums = at::_foreach_mul(terms, weights[0]);
  for (std::size_t j = 0; j + 1 < weights.size(); ++j) {
    for (std::size_t t = 0; t < tensors; ++t) terms[t] = widened(arrivals[j * tensors + t]);
    // Not _foreach_add with alpha: that may be a fused multiply-add.
    at::_foreach_add_(sums, at::_foreach_mul(terms, weights[j + 1]));
  }
  for (std::size_t t = 0; t < tensors; ++t) outputs[t].view(-1).copy_(sums[t]);
}

}  // namespace bluefog::device
