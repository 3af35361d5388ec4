#include "operators/call.h"

#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty_strided.h>
#include <c10/cuda/CUDAGuard.h>

#include <cstdio>
#include <cstdlib>

#include "cuda/stream.h"

namespace emulator {
namespace {

cudaStream_t current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

void let_wait(at::Device device, at::Device for_other) {
  at::cuda::CUDAEvent event;
  event.record(c10::cuda::getCurrentCUDAStream(for_other.index()));
  event.block(c10::cuda::getCurrentCUDAStream(device.index()));
}

bool writes(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

// The operator itself, on the stream's thread.
void compute(const c10::OperatorHandle& op, Stack stack,
             const std::vector<at::Tensor>& places) noexcept {
  const at::NoGradGuard no_grad;
  try {
    op.callBoxed(stack);
    std::size_t next = 0;
    for (std::size_t i = 0; i < stack.size(); ++i) {
      if (op.schema().returns()[i].alias_info() != nullptr) continue;
      const at::Tensor& place = places[next++];
      const at::Tensor& result = stack[i].toTensor();
      if (place.defined() && result.defined()) place.copy_(result);
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s on the emulated GPU: %s\n", op.operator_name().name.c_str(),
                 error.what());
    std::abort();
  }
}

at::Tensor copied(const at::Tensor& tensor) {
  at::Tensor copy =
      at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kCUDA));
  on_cpu(copy).copy_(tensor);
  return copy;
}
c10::IValue to_gpu(const c10::IValue& value) {
  return replaced(value, at::kCUDA, [](const at::Tensor& tensor) { return copied(tensor); });
}

// An `out` that the operator has made larger lies elsewhere now.
void bring_back(const c10::IValue& argument, const c10::IValue& seen) {
  if (!argument.isTensor() || !argument.toTensor().defined()) return;
  const at::Tensor& tensor = argument.toTensor();
  if (!tensor.is_cuda() || seen.toTensor().sizes() == tensor.sizes()) return;
  tensor.resize_(seen.toTensor().sizes());
  on_cpu(tensor).copy_(seen.toTensor());
}

}  // namespace

Stack Call::run() {
  const std::vector<at::Device> devices = devices_of(arguments_);
  if (devices.empty()) return run_here();
  check_together(devices);
  const c10::cuda::CUDAGuard guard(devices[0]);
  for (std::size_t i = 1; i < devices.size(); ++i) let_wait(devices[0], devices[i]);
  Stack results = run_here();
  for (std::size_t i = 1; i < devices.size(); ++i) let_wait(devices[i], devices[0]);
  return results;
}

void Call::check_together(const std::vector<at::Device>& devices) const {
  const std::string& name = op_.operator_name().name;
  TORCH_CHECK(devices.size() == 1 || name == "aten::copy_" || name.rfind("aten::_foreach", 0) == 0,
              name, ": Expected all tensors to be on the same device, but found ", devices[0],
              " and ", devices[1]);
}

Stack Call::run_here() {
  Stack meta;
  if (!can_be_enqueued() || !ask_meta(meta)) return run_now();
  Stack results = resize_and_allocate(meta);
  Stack inputs = replaced(arguments_, at::kCPU, taken_along);
  std::vector<at::Tensor> places;
  for (std::size_t i = 0; i < results.size(); ++i) {
    if (!is_argument(i)) places.push_back(on_cpu(results[i].toTensor()));
  }
  enqueue(current_stream(), [op = op_, inputs = std::move(inputs), places = std::move(places)] {
    compute(op, inputs, places);
  });
  return results;
}

Stack Call::run_now() const {
  TORCH_CHECK(!is_capturing(current_stream()), op_.operator_name(),
              " cannot be captured on the emulated GPU");
  synchronize(current_stream());
  const Stack inputs = replaced(arguments_, at::kCPU, on_cpu);
  Stack results = inputs;
  op_.callBoxed(results);
  for (std::size_t i = 0; i < results.size(); ++i) {
    results[i] = is_argument(i) ? written(i) : to_gpu(results[i]);
  }
  for (std::size_t i = 0; i < arguments_.size(); ++i) bring_back(arguments_[i], inputs[i]);
  return results;
}

// Not where a result is no tensor, chance is involved, or the host's memory is written.
bool Call::can_be_enqueued() const {
  for (const c10::Argument& result : schema_.returns()) {
    if (result.type()->kind() != c10::TypeKind::TensorType) return false;
  }
  for (std::size_t i = 0; i < arguments_.size(); ++i) {
    const c10::Argument& argument = schema_.arguments()[i];
    if (argument.name() == "generator") return false;
    if (writes(argument) && arguments_[i].isTensor() && !arguments_[i].toTensor().is_cuda()) {
      return false;
    }
  }
  return true;
}

bool Call::ask_meta(Stack& results) {
  meta_arguments_ = replaced(arguments_, at::kMeta, as_meta);
  results = meta_arguments_;
  try {
    op_.callBoxed(results);
    return true;
  } catch (const std::exception&) {
    return false;  // it has no meta kernel, or the CPU will say what is wrong
  }
}

Stack Call::resize_and_allocate(const Stack& meta) const {
  for (std::size_t i = 0; i < arguments_.size(); ++i) {
    if (!arguments_[i].isTensor() || !writes(schema_.arguments()[i])) continue;
    const at::Tensor& tensor = arguments_[i].toTensor();
    const at::Tensor& wanted = meta_arguments_[i].toTensor();
    if (tensor.sizes() != wanted.sizes()) tensor.resize_(wanted.sizes());
  }
  Stack results;
  for (std::size_t i = 0; i < meta.size(); ++i) {
    const at::Tensor& like = meta[i].toTensor();
    results.push_back(is_argument(i) ? written(i)
                      : like.defined()
                          ? c10::IValue(at::empty_strided(like.sizes(), like.strides(),
                                                          like.options().device(at::kCUDA)))
                          : c10::IValue(at::Tensor()));
  }
  return results;
}

c10::IValue Call::written(std::size_t result) const {
  const auto* alias = schema_.returns()[result].alias_info();
  for (std::size_t i = 0; i < arguments_.size(); ++i) {
    const auto* other = schema_.arguments()[i].alias_info();
    if (other != nullptr && other->beforeSets() == alias->beforeSets()) return arguments_[i];
  }
  TORCH_CHECK(false, "a result of ", op_.operator_name(), " is none of its arguments");
}

}  // namespace emulator
