// What neighbor operations and collectives share on the way from tensors to a task.
#pragma once

#include <c10/core/InferenceMode.h>

#include <functional>
#include <memory>
#include <optional>

#include "backend/bluefog_backend.h"

namespace bluefog {

inline constexpr const char* kTitleAllreduce = "bluefog:neighbor_allreduce";  // in torch.profiler
inline constexpr const char* kTitleAllgather = "bluefog:neighbor_allgather";

/// A task, and what becomes of it. The outputs may come into being with the arrival of the data.
struct BluefogBackend::Call {
  Task task;
  c10d::OpType type;
  const char* title;  // in torch.profiler
  Tensors inputs;     // packed; kept alive until the operation is over
  std::shared_ptr<const Tensors> outputs;
  std::function<void()> deliver;  // called after success
};

/// The tensors of one averaging, kept alive until its Work is complete.
struct BluefogBackend::Averaging {
  Tensors inputs;       // packed
  Tensors sent;         // what goes to neighbours: the inputs, or these rounded to a narrower dtype
  Tensors outputs;      // the user's
  Tensors results;      // packed: an output itself, or a stand-in for one with other strides
  bool narrow = false;  // what is sent is rounded

  /// Memory for what each source of the plan sends, by source and there by tensor.
  std::vector<Tensors> make_arrivals(const Plan& plan) const;

  /// Makes the results of the inputs and of what has arrived.
  void combine(const Plan& plan, const std::vector<Tensors>& arrivals) const;

  /// Autograd learns of the writing, as it does for any in-place operation. Modes belong to the
  /// caller's thread; this may be another one.
  void deliver() {
    for (std::size_t t = 0; t < outputs.size(); ++t) {
      std::optional<c10::InferenceMode> inference;
      if (outputs[t].is_inference()) inference.emplace();
      const at::NoGradGuard no_grad;
      if (results[t].unsafeGetTensorImpl() != outputs[t].unsafeGetTensorImpl()) {
        outputs[t].copy_(results[t]);
      } else if (!outputs[t].is_inference()) {
        outputs[t].unsafeGetTensorImpl()->bump_version();
      }
    }
  }
};

/// The type in which numbers are summed; nothing for those that are not.
inline std::optional<DType> summed_as(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return DType::kFloat16;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    default:
      return std::nullopt;
  }
}

/// Plain memory with the tensor's values in row-major order; the tensor itself where it is that
/// already.
inline at::Tensor packed(const at::Tensor& tensor) {
  return tensor.detach().resolve_conj().resolve_neg().contiguous();
}

inline bool is_packed(const at::Tensor& tensor) {
  return tensor.is_contiguous() && !tensor.is_neg() && !tensor.is_conj();
}

inline const std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<const std::byte*>(tensor.const_data_ptr());
}

/// To be written past autograd and copy-on-write: a packed tensor's own memory.
inline std::byte* mutable_bytes_of(const at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.unsafeGetTensorImpl()->mutable_data());
}

}  // namespace bluefog
