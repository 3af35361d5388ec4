// The tensors in a call of an operator, as the CPU sees them, or meta kernels.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/ivalue.h>
#include <ATen/core/stack.h>

#include <optional>
#include <vector>

namespace emulator {

using torch::jit::Stack;

/// The same memory, seen by the CPU, and kept by nobody: on a GPU an operator does not keep it
/// either. A tensor of the host's is itself.
at::Tensor on_cpu(const at::Tensor& tensor);

/// The same, but of the host's tensors copies: the host may write to them when the call has
/// returned.
at::Tensor taken_along(const at::Tensor& tensor);

/// A number on the host stays one: meta kernels take it as the others do.
at::Tensor as_meta(const at::Tensor& tensor);

/// The GPUs that tensors in a call are on, that of the first one first.
std::vector<at::Device> devices_of(const Stack& stack);

/// All tensors in a value, replaced one by one; GPUs become `device`.
template <typename Replace>
c10::IValue replaced(const c10::IValue& value, at::Device device, const Replace& replace) {
  if (value.isTensor()) {
    return value.toTensor().defined() ? c10::IValue(replace(value.toTensor())) : value;
  }
  if (value.isDevice()) return value.toDevice().is_cuda() ? c10::IValue(device) : value;
  if (value.isTensorList()) {
    c10::List<at::Tensor> list;
    for (const at::Tensor& tensor : value.toTensorVector()) list.push_back(replace(tensor));
    return list;
  }
  if (value.isOptionalTensorList()) {
    c10::List<std::optional<at::Tensor>> list;
    for (const auto& tensor : value.toOptionalTensorVector()) {
      list.push_back(tensor && tensor->defined() ? std::optional(replace(*tensor)) : tensor);
    }
    return list;
  }
  return value;
}

template <typename Replace>
Stack replaced(const Stack& stack, at::Device device, const Replace& replace) {
  Stack result;
  for (const c10::IValue& value : stack) result.push_back(replaced(value, device, replace));
  return result;
}

}  // namespace emulator
