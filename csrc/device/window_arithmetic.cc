#include "device/window_arithmetic.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "device/combine_op.h"

namespace bluefog::device {
namespace {

at::ScalarType scalar_type(DType dtype) {
  switch (dtype) {
    case DType::kFloat16:
      return at::kHalf;
    case DType::kBFloat16:
      return at::kBFloat16;
    case DType::kFloat32:
      return at::kFloat;
    case DType::kFloat64:
      return at::kDouble;
    case DType::kInt32:
      return at::kInt;
    case DType::kInt64:
      return at::kLong;
  }
  return at::kByte;
}

c10::Stream current_stream(at::Device device) {
  return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
}

// `y` may be the first term. Weights are whole numbers, and sums wrap around.
void add_integers(at::Tensor y, const std::vector<at::Tensor>& terms,
                  const std::vector<double>& weights) {
  y.copy_(terms[0]).mul_(static_cast<std::int64_t>(weights[0]));
  for (std::size_t j = 1; j < terms.size(); ++j) {
    y.add_(terms[j], static_cast<std::int64_t>(weights[j]));
  }
}

}  // namespace

class WindowArithmetic::Turn {
 public:
  explicit Turn(const WindowArithmetic& arithmetic)
      : device_(arithmetic.device_), guard_(device_), stream_(arithmetic.own_stream_) {}

  /// Waits until what was enqueued is done, and throws what the device reports.
  void finish() const { current_stream(device_).synchronize(); }

 private:
  const at::Device device_;
  const c10::DeviceGuard guard_;
  const c10::OptionalStreamGuard stream_;
  const at::AutoDispatchBelowADInplaceOrView unseen_by_autograd_;
};

at::Tensor WindowArithmetic::tensor(const std::byte* data, std::size_t nbytes,
                                    at::ScalarType type) const {
  const auto count = static_cast<std::int64_t>(nbytes / c10::elementSize(type));
  return at::for_blob(const_cast<std::byte*>(data), {count})
      .options(at::TensorOptions(device_).dtype(type))
      .target_device(device_)  // or it would ask the driver where the address lies
      .make_tensor();
}

void WindowArithmetic::combine(DType dtype, std::byte* y, std::span<const Term> terms,
                               std::size_t nbytes) const {
  if (nbytes == 0) return;
  const Turn turn(*this);
  const at::ScalarType type = scalar_type(dtype);
  at::Tensor sum = tensor(y, nbytes, type);
  std::vector<at::Tensor> values;
  std::vector<double> weights;
  for (const Term& term : terms) {
    values.push_back(tensor(term.data, nbytes, type));
    weights.push_back(term.weight);
  }
  if (terms.empty()) {
    sum.zero_();
  } else if (is_integer(dtype)) {
    add_integers(sum, values, weights);
  } else {
    device::combine({sum}, {values[0]}, {values.begin() + 1, values.end()}, weights);
  }
  turn.finish();
}

void WindowArithmetic::copy(std::byte* to, const std::byte* from, std::size_t nbytes) const {
  if (nbytes == 0) return;
  const Turn turn(*this);
  tensor(to, nbytes, at::kByte).copy_(tensor(from, nbytes, at::kByte), /*non_blocking=*/true);
  turn.finish();
}

window::Bytes WindowArithmetic::allocate(std::size_t nbytes) const {
  const c10::DeviceGuard guard(device_);
  const at::Tensor room = at::empty({static_cast<std::int64_t>(nbytes)}, rooms_.dtype(at::kByte));
  return {static_cast<std::byte*>(room.mutable_data_ptr()), [room](std::byte*) {}};
}

std::shared_ptr<void> WindowArithmetic::reach(std::byte* data, std::size_t nbytes) const {
  const c10::DeviceGuard guard(device_);
  return pin_ ? pin_(data, nbytes) : nullptr;
}

std::function<void()> behind_current(c10::Stream side, std::function<void()> call) {
  const auto before = std::make_shared<c10::Event>(side.device_type());
  before->record(current_stream(side.device()));
  return [side, before, call = std::move(call)] {
    const c10::StreamGuard on_side(side);
    before->block(side);
    call();
  };
}

}  // namespace bluefog::device
