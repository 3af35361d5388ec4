// torch's operators on the emulated GPU: whatever has a CUDA kernel is enqueued on the current
// stream as a call of the same operator on CPU tensors over the same memory. Sizes of results come
// from the operator's meta kernel; where it has none, or a result is a number, the host waits.
#include <ATen/Context.h>
#include <ATen/cuda/CUDAEvent.h>
#include <ATen/ops/empty_strided.h>
#include <ATen/ops/from_blob.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/library.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <optional>
#include <set>
#include <string>

#include "cuda/stream.h"

namespace {

using torch::jit::Stack;

// All tensors of a call, replaced one by one; devices become `device`.
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

// The same memory, seen by the CPU, and kept by nobody: on a GPU an operator does not keep it
// either.
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

// The host may write to its own tensors when the call has returned.
at::Tensor taken_along(const at::Tensor& tensor) {
  return tensor.is_cuda() ? on_cpu(tensor) : tensor.clone();
}

// A number on the host stays one: meta kernels take it as the others do.
at::Tensor as_meta(const at::Tensor& tensor) {
  if (tensor.unsafeGetTensorImpl()->is_wrapped_number()) return tensor;
  return at::empty_strided(tensor.sizes(), tensor.strides(),
                           tensor.options().device(at::kMeta).pinned_memory(false));
}

bool writes(const c10::Argument& argument) {
  return argument.alias_info() != nullptr && argument.alias_info()->isWrite();
}

// The devices of the tensors in a call, the first one's first.
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

void let_wait(at::Device device, at::Device for_other) {
  at::cuda::CUDAEvent event;
  event.record(c10::cuda::getCurrentCUDAStream(for_other.index()));
  event.block(c10::cuda::getCurrentCUDAStream(device.index()));
}

/// One call of an operator with tensors on the emulated GPU.
class Call {
 public:
  Call(const c10::OperatorHandle& op, Stack arguments)
      : op_(op), schema_(op.schema()), arguments_(std::move(arguments)) {}

  /// On the first tensor's device, in order with what is done on the others' current streams.
  Stack run() {
    const std::vector<at::Device> devices = devices_of(arguments_);
    if (devices.empty()) return run_here();
    check_together(devices);
    const c10::cuda::CUDAGuard guard(devices[0]);
    for (std::size_t i = 1; i < devices.size(); ++i) let_wait(devices[0], devices[i]);
    Stack results = run_here();
    for (std::size_t i = 1; i < devices.size(); ++i) let_wait(devices[i], devices[0]);
    return results;
  }

 private:
  void check_together(const std::vector<at::Device>& devices) const {
    const std::string& name = op_.operator_name().name;
    TORCH_CHECK(
        devices.size() == 1 || name == "aten::copy_" || name.rfind("aten::_foreach", 0) == 0, name,
        ": Expected all tensors to be on the same device, but found ", devices[0], " and ",
        devices[1]);
  }

  Stack run_here() {
    Stack meta;
    if (!can_be_enqueued() || !ask_meta(meta)) return run_now();
    Stack results = resize_and_allocate(meta);
    Stack inputs = replaced(arguments_, at::kCPU, taken_along);
    std::vector<at::Tensor> places;
    for (std::size_t i = 0; i < results.size(); ++i) {
      if (!is_argument(i)) places.push_back(on_cpu(results[i].toTensor()));
    }
    emulator::enqueue(stream(), [op = op_, inputs = std::move(inputs), places = std::move(places)] {
      compute(op, inputs, places);
    });
    return results;
  }

  static cudaStream_t stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

  bool is_argument(std::size_t result) const {
    return schema_.returns()[result].alias_info() != nullptr;
  }

  // Not where a result is no tensor, chance is involved, or the host's memory is written.
  bool can_be_enqueued() const {
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

  bool ask_meta(Stack& results) const {
    meta_arguments_ = replaced(arguments_, at::kMeta, as_meta);
    results = meta_arguments_;
    try {
      op_.callBoxed(results);
      return true;
    } catch (const std::exception&) {
      return false;  // it has no meta kernel, or the CPU will say what is wrong
    }
  }

  Stack resize_and_allocate(const Stack& meta) const {
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

  // The argument that a result is.
  c10::IValue written(std::size_t result) const {
    const auto* alias = schema_.returns()[result].alias_info();
    for (std::size_t i = 0; i < arguments_.size(); ++i) {
      const auto* other = schema_.arguments()[i].alias_info();
      if (other != nullptr && other->beforeSets() == alias->beforeSets()) return arguments_[i];
    }
    TORCH_CHECK(false, "a result of ", op_.operator_name(), " is none of its arguments");
  }

  static void compute(const c10::OperatorHandle& op, Stack stack,
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

  Stack run_now() const {
    TORCH_CHECK(!emulator::is_capturing(stream()), op_.operator_name(),
                " cannot be captured on the emulated GPU");
    emulator::synchronize(stream());
    const Stack inputs = replaced(arguments_, at::kCPU, on_cpu);
    Stack results = inputs;
    op_.callBoxed(results);
    for (std::size_t i = 0; i < results.size(); ++i) {
      results[i] = is_argument(i) ? written(i) : to_gpu(results[i]);
    }
    for (std::size_t i = 0; i < arguments_.size(); ++i) bring_back(arguments_[i], inputs[i]);
    return results;
  }

  static at::Tensor copied(const at::Tensor& tensor) {
    at::Tensor copy =
        at::empty_strided(tensor.sizes(), tensor.strides(), tensor.options().device(at::kCUDA));
    on_cpu(copy).copy_(tensor);
    return copy;
  }
  static c10::IValue to_gpu(const c10::IValue& value) {
    return replaced(value, at::kCUDA, [](const at::Tensor& tensor) { return copied(tensor); });
  }

  // An `out` that the operator has made larger lies elsewhere now.
  static void bring_back(const c10::IValue& argument, const c10::IValue& seen) {
    if (!argument.isTensor() || !argument.toTensor().defined()) return;
    const at::Tensor& tensor = argument.toTensor();
    if (!tensor.is_cuda() || seen.toTensor().sizes() == tensor.sizes()) return;
    tensor.resize_(seen.toTensor().sizes());
    on_cpu(tensor).copy_(seen.toTensor());
  }

  const c10::OperatorHandle op_;
  const c10::FunctionSchema& schema_;
  const Stack arguments_;
  mutable Stack meta_arguments_;
};

// A chance operator's generator is the CPU's.
void on_emulated_gpu(const c10::OperatorHandle& op, Stack* stack) {
  const std::size_t count = op.schema().arguments().size();
  Stack arguments(stack->end() - count, stack->end());
  stack->erase(stack->end() - count, stack->end());
  for (std::size_t i = 0; i < count; ++i) {
    if (op.schema().arguments()[i].name() == "generator") arguments[i] = c10::IValue();
  }
  for (c10::IValue& result : Call(op, std::move(arguments)).run()) {
    stack->push_back(std::move(result));
  }
}

// What only makes tensors, or looks at them, is torch's own.
const std::set<std::string> kKept = {
    "aten::empty.memory_format", "aten::empty_strided",  "aten::resize_",
    "aten::record_stream",       "aten::as_strided",     "aten::view",
    "aten::_reshape_alias",      "aten::unfold",         "aten::is_set_to",
    "aten::view_as_real",        "aten::view_as_complex"};

bool is_kept(const c10::OperatorName& name) {
  const std::string text = c10::toString(name);
  return name.name.rfind("aten::", 0) != 0 || name.name == "aten::set_" || kKept.contains(text);
}

// torch warns of kernels that are replaced.
class Silence : public c10::WarningHandler {
  void process(const c10::Warning&) override {}
};

torch::Library& replace_kernels() {
  Silence silence;
  const c10::WarningUtils::WarningHandlerGuard guard(&silence);
  at::globalContext().setUserEnabledCuDNN(false);  // whose operators no CPU has
  static torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::CUDA, __FILE__,
                                __LINE__);
  auto names = c10::Dispatcher::singleton().getRegistrationsForDispatchKey(c10::DispatchKey::CUDA);
  names.push_back({"aten::copy_", ""});
  for (const c10::OperatorName& name : names) {
    if (is_kept(name)) continue;
    library.impl(c10::toString(name).c_str(),
                 torch::CppFunction::makeFromBoxedFunction<&on_emulated_gpu>());
  }
  return library;
}

[[maybe_unused]] torch::Library& replaced_kernels = replace_kernels();

}  // namespace
