#include "operators/views.h"

#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>

namespace emulator {

at::Tensor on_cpu(const at::Tensor& tensor) {
  if (!tensor.is_cuda()) return tensor;
  at::Tensor seen = at::from_blob(tensor.data_ptr(), tensor.sizes(), tensor.strides(),
                                  at::TensorOptions(at::kCPU).dtype(tensor.dtype()));
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) {
    seen.unsafeGetTensorImpl()->set_wrapped_number(true);
  }
  if (tensor.is_conj()) seen._set_conj(true);
  if (tensor.is_neg()) seen._set_neg(true);
  return seen;
}

at::Tensor taken_along(const at::Tensor& tensor) {
  return tensor.is_cuda() ? on_cpu(tensor) : tensor.clone();
}

at::Tensor as_meta(const at::Tensor& tensor) {
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return tensor;
  return at::empty_strided(tensor.sizes(), tensor.strides(),
                           tensor.options().device(at::kMeta).pinned_memory(false));
}

std::vector<at::Device> devices_of(const Stack& stack) {
  std::vector<at::Device> devices;
  const auto note = [&](const at::Tensor& tensor) {
    const at::Device device = tensor.device();
    if (device.is_cuda() && std::find(devices.begin(), devices.end(), device) == devices.end()) {
      devices.push_back(device);
    }
    return tensor;
  };
  replaced(stack, at::kCUDA, note);
  return devices;
}

}  // namespace emulator
