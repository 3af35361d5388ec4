// torch's operators on the emulated GPU: whatever has a CUDA kernel is enqueued on the current
// stream as a call of the same operator on CPU tensors over the same memory. Sizes of results come
// from the operator's meta kernel; where it has none, or a result is a number, the host waits.
#include <ATen/Context.h>
#include <torch/library.h>

#include <set>
#include <string>

#include "operators/call.h"

namespace emulator {
namespace {

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
}  // namespace emulator
