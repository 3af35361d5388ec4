#include "device/fake_device.h"

#include <ATen/EmptyTensor.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/view_native.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

#include <atomic>
#include <cstring>

#include "base/error.h"

namespace bluefog::fake {
namespace {

struct ThreadState {
  std::vector<std::string> log;
  std::int64_t current = 0;
  std::int64_t streams = 0;  // made so far
  std::intptr_t events = 0;
};
thread_local ThreadState state;
std::atomic<bool> events_done{true};

class FakeGuard : public c10::impl::DeviceGuardImplInterface {
 public:
  static constexpr c10::DeviceType static_type = c10::DeviceType::PrivateUse1;
  c10::DeviceType type() const override { return static_type; }
  c10::Device exchangeDevice(c10::Device) const override { return device(); }
  c10::Device getDevice() const override { return device(); }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }

  c10::Stream getStream(c10::Device) const override { return stream(state.current); }
  c10::Stream getDefaultStream(c10::Device) const override { return stream(0); }
  c10::Stream getStreamFromGlobalPool(c10::Device, bool high_priority) const override {
    return stream(++state.streams + (high_priority ? 0 : kLowPriority));
  }
  c10::Stream exchangeStream(c10::Stream next) const override {
    return stream(std::exchange(state.current, next.id()));
  }
  void* getStreamNativeHandle(const c10::Stream stream) const override {
    return reinterpret_cast<void*>(stream.id());
  }

  void record(void** event, const c10::Stream& stream, const c10::DeviceIndex,
              const c10::EventFlag) const override {
    if (*event == nullptr) *event = reinterpret_cast<void*>(++state.events);
    state.log.push_back(concat("record ", number(*event), " on ", stream.id()));
  }
  void block(void* event, const c10::Stream& stream) const override {
    state.log.push_back(concat("wait for ", number(event), " on ", stream.id()));
  }
  bool queryEvent(void*) const override { return events_done; }
  void synchronizeStream(const c10::Stream& stream) const override {
    state.log.push_back(concat("synchronize ", stream.id()));
  }
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream& stream) const override {
    state.log.push_back(concat("uses memory on ", stream.id()));
  }

 private:
  static c10::Stream stream(std::int64_t id) {
    return c10::Stream(c10::Stream::UNSAFE, device(), id);
  }
  static std::intptr_t number(void* event) { return reinterpret_cast<std::intptr_t>(event); }
};

C10_REGISTER_GUARD_IMPL(PrivateUse1, FakeGuard);

struct FakeAllocator : c10::Allocator {
  c10::DataPtr allocate(std::size_t nbytes) override {
    c10::DataPtr memory = c10::GetCPUAllocator()->allocate(nbytes);
    void* const data = memory.get();
    return {data, memory.release_context(), c10::GetCPUAllocator()->raw_deleter(), device()};
  }
  c10::DeleterFnPtr raw_deleter() const override { return c10::GetCPUAllocator()->raw_deleter(); }
  void copy_data(void* to, const void* from, std::size_t count) const override {
    std::memcpy(to, from, count);
  }
} allocator;

at::Tensor empty(c10::IntArrayRef size, std::optional<at::ScalarType> dtype,
                 std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>,
                 std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &allocator,
                                   c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                   dtype.value_or(at::kFloat), format);
}

at::Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride,
                         std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                         std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &allocator,
                                           c10::DispatchKeySet(c10::DispatchKey::PrivateUse1),
                                           dtype.value_or(at::kFloat));
}

// The same memory, seen as a CPU tensor.
at::Tensor on_host(const at::Tensor& tensor) {
  return at::from_blob(tensor.mutable_data_ptr(), tensor.sizes(), tensor.strides(),
                       tensor.options().device(at::kCPU));
}

at::Tensor copy_from(const at::Tensor& self, const at::Tensor& to, bool) {
  const auto host = [](const at::Tensor& tensor) {
    return tensor.is_cpu() ? tensor : on_host(tensor);
  };
  host(to).copy_(host(self));
  return to;
}

at::Tensor copy_from_and_resize(const at::Tensor& self, const at::Tensor& to) {
  return copy_from(self, to, false);
}

void combine(at::TensorList outputs, at::TensorList inputs, at::TensorList arrivals,
             c10::ArrayRef<double> weights) {
  state.log.push_back(concat("combine on ", state.current));
  for (std::size_t t = 0; t < outputs.size(); ++t) {
    at::Tensor sum = on_host(inputs[t]).mul(weights[0]);
    for (std::size_t j = 1; j < weights.size(); ++j) {
      sum += on_host(arrivals[(j - 1) * outputs.size() + t]).mul(weights[j]);
    }
    on_host(outputs[t]).copy_(sum);
  }
}

void run_on_cpu(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  at::native::cpu_fallback(op, stack);
}

}  // namespace

// What else there is runs on the CPU.
TORCH_LIBRARY_IMPL(_, PrivateUse1, library) {
  library.fallback(torch::CppFunction::makeFromBoxedFunction<&run_on_cpu>());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, library) {
  library.impl("empty.memory_format", empty);
  library.impl("empty_strided", empty_strided);
  library.impl("as_strided", at::native::as_strided_tensorimpl);
  library.impl("view", at::native::view);
  library.impl("_copy_from", copy_from);
  library.impl("_copy_from_and_resize", copy_from_and_resize);
}

TORCH_LIBRARY_IMPL(bluefog, PrivateUse1, library) { library.impl("combine", combine); }

at::Tensor tensor(std::int64_t numel, at::ScalarType dtype) {
  at::Tensor made = at::empty({numel}, at::TensorOptions(device()).dtype(dtype));
  if (numel > 0) std::memset(made.mutable_data_ptr(), 0, made.nbytes());
  return made;
}

std::vector<float> values(const at::Tensor& tensor) {
  const float* const data = static_cast<const float*>(tensor.const_data_ptr());
  return {data, data + tensor.numel()};
}

void set(const at::Tensor& tensor, const std::vector<float>& values) {
  std::memcpy(tensor.mutable_data_ptr(), values.data(), tensor.nbytes());
}

std::vector<std::string>& log() { return state.log; }

void reset() { state = {}; }

std::int64_t current_stream() { return state.current; }

void set_events_done(bool done) { events_done = done; }

}  // namespace bluefog::fake
