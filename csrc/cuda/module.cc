// The Python module bluefog_pg._C_cuda: gives the operator bluefog::combine (device/combine_op.h)
// its kernel for CUDA. Can be imported where there is no GPU and no driver.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>

#include <array>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

#include "device/combine_aten.h"
#include "kernels/combine_cuda.h"

#ifdef BLUEFOG_NCCL  // nccl.h was found
#include "cuda/loaded_nccl.h"
#endif

namespace bluefog {
namespace {

Element element_of(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return Element::kFloat16;
    case at::kBFloat16:
      return Element::kBFloat16;
    case at::kDouble:
      return Element::kFloat64;
    case at::ScalarType::Float8_e4m3fn:
      return Element::kFloat8E4M3;
    case at::ScalarType::Float8_e5m2:
      return Element::kFloat8E5M2;
    default:
      return Element::kFloat32;  // check_combine lets no other pass
  }
}

// The tensors of one pair of types, as the launch wants them.
struct Group {
  Element own;
  Element payload;
  std::vector<std::size_t> tensors;

  void launch(at::TensorList outputs, at::TensorList inputs, at::TensorList arrivals,
              at::ArrayRef<double> weights, cudaStream_t stream) const {
    std::vector<void*> results;
    std::vector<const void*> own_values, payloads;
    std::vector<std::size_t> counts;
    for (const std::size_t t : tensors) {
      results.push_back(outputs[t].mutable_data_ptr());
      own_values.push_back(inputs[t].const_data_ptr());
      counts.push_back(static_cast<std::size_t>(outputs[t].numel()));
    }
    payloads.reserve(tensors.size() * (weights.size() - 1));
    for (std::size_t j = 0; j + 1 < weights.size(); ++j) {
      for (const std::size_t t : tensors) {
        payloads.push_back(arrivals[j * outputs.size() + t].const_data_ptr());
      }
    }
    const CombineList list{
        own, payload, results, own_values, payloads, counts, {weights.data(), weights.size()}};
    C10_CUDA_CHECK(launch_combine(list, stream));
  }
};

std::vector<Group> group_by_types(at::TensorList outputs, at::TensorList arrivals) {
  std::vector<Group> groups;
  for (std::size_t t = 0; t < outputs.size(); ++t) {
    const Element own = element_of(outputs[t].scalar_type());
    const Element payload = arrivals.empty() ? own : element_of(arrivals[t].scalar_type());
    auto group = std::find_if(groups.begin(), groups.end(), [&](const Group& known) {
      return known.own == own && known.payload == payload;
    });
    if (group == groups.end()) group = groups.insert(group, {own, payload, {}});
    group->tensors.push_back(t);
  }
  return groups;
}

void combine_on_cuda(at::TensorList outputs, at::TensorList inputs, at::TensorList arrivals,
                     at::ArrayRef<double> weights) {
  device::check_combine(outputs, inputs, arrivals, weights);
  if (weights.size() > kMaxTerms) {
    return device::combine_by_aten(outputs, inputs, arrivals, weights);
  }
  const c10::cuda::CUDAGuard guard(outputs[0].device());
  const cudaStream_t stream = c10::cuda::getCurrentCUDAStream().stream();
  for (const Group& group : group_by_types(outputs, arrivals)) {
    group.launch(outputs, inputs, arrivals, weights, stream);
  }
}

TORCH_LIBRARY_IMPL(bluefog, CUDA, library) { library.impl("combine", &combine_on_cuda); }

std::vector<std::string> architectures() {
  std::vector<std::string> names;
  std::istringstream list(BLUEFOG_CUDA_ARCHITECTURES);
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  return names;
}

}  // namespace
}  // namespace bluefog

PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) {
  module.doc() = "CUDA kernels of bluefog; load it with bluefog_pg._extension.load_cuda()";
  module.def("architectures", &bluefog::architectures);
  module.def("cuda_version", [] { return std::string(BLUEFOG_CUDA_VERSION); });
#ifdef BLUEFOG_NCCL
  bluefog::nccl::bind_nccl(module);
#endif
}
