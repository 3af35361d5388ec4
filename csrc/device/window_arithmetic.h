// What windows do with values on a device (window/arithmetic.h).
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <functional>
#include <optional>

#include "window/arithmetic.h"

namespace bluefog::device {

/// Works on every address that the device can use: its own memory, that of others which is mapped,
/// and that of the host which is pinned. Enqueues, and waits for it: on the current stream, so
/// behind what the caller has given that one, or on a stream of its own.
class WindowArithmetic : public window::Arithmetic {
 public:
  /// `pin` makes memory of the host usable for the device while its result lives; null where
  /// nothing of the host is used.
  using Pin = std::function<std::shared_ptr<void>(std::byte*, std::size_t)>;

  /// `rooms`: where allocate() takes memory, options of an at::Tensor.
  WindowArithmetic(at::Device device, at::TensorOptions rooms, Pin pin,
                   std::optional<c10::Stream> own_stream = {})
      : device_(device), rooms_(rooms), pin_(std::move(pin)), own_stream_(own_stream) {}

  void combine(DType dtype, std::byte* y, std::span<const Term> terms,
               std::size_t nbytes) const override;
  void show(std::byte* shown, const std::byte* x, std::size_t nbytes) const override {
    copy(shown, x, nbytes);
  }
  void look(std::byte* to, std::byte* shown, std::size_t nbytes) const override {
    copy(to, shown, nbytes);
  }
  window::Bytes allocate(std::size_t nbytes) const override;
  std::shared_ptr<void> reach(std::byte* data, std::size_t nbytes) const override;

 private:
  class Turn;  // for the time of a call: device and stream are current; ends when it is done
  at::Tensor tensor(const std::byte* data, std::size_t nbytes, at::ScalarType type) const;
  void copy(std::byte* to, const std::byte* from, std::size_t nbytes) const;

  const at::Device device_;
  const at::TensorOptions rooms_;
  const Pin pin_;
  const std::optional<c10::Stream> own_stream_;
};

/// `call`, to be made later by another thread: on `side`, behind what the current stream of this
/// thread has been given by now.
std::function<void()> behind_current(c10::Stream side, std::function<void()> call);

}  // namespace bluefog::device
