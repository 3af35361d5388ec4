#include "device/combine_op.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <torch/library.h>

#include "device/combine_aten.h"

namespace bluefog::device {
namespace {

void checked_combine_by_aten(at::TensorList outputs, at::TensorList inputs, at::TensorList arrivals,
                             at::ArrayRef<double> weights) {
  check_combine(outputs, inputs, arrivals, weights);
  combine_by_aten(outputs, inputs, arrivals, weights);
}

// A fragment, because another library may define operators of this name space as well.
TORCH_LIBRARY_FRAGMENT(bluefog, library) {
  library.def(
      "combine(Tensor(a!)[] outputs, Tensor[] inputs, Tensor[] arrivals, float[] weights) -> ()");
}

TORCH_LIBRARY_IMPL(bluefog, CompositeExplicitAutograd, library) {
  library.impl("combine", &checked_combine_by_aten);
}

}  // namespace

void combine(const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
             const std::vector<at::Tensor>& arrivals, const std::vector<double>& weights) {
  static const auto op =
      c10::Dispatcher::singleton()
          .findSchemaOrThrow("bluefog::combine", "")
          .typed<void(at::TensorList, at::TensorList, at::TensorList, at::ArrayRef<double>)>();
  // Past autograd's fallback, which takes every call apart for its warning.
  const at::AutoDispatchBelowADInplaceOrView below_autograd;
  op.call(outputs, inputs, arrivals, weights);
}

}  // namespace bluefog::device
