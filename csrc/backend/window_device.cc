// Where the values of a window on a GPU lie: in memory that the GPUs of a host map into each other;
// or in each GPU's own, with NCCL between them; or in pinned memory of the host, which GPUs read
// and write as well.
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "backend/bluefog_backend.h"
#include "base/error.h"
#include "base/process.h"
#include "device/window_arithmetic.h"
#include "transport/nccl/puts.h"
#include "window/window.h"

namespace bluefog {
namespace {

using device::WindowArithmetic;

at::TensorOptions pinned_memory() { return at::TensorOptions(at::kCPU).pinned_memory(true); }

// A forked child, which cannot use the device, leaves it pinned.
WindowArithmetic::Pin pin_by(const Makers& makers) {
  return [pin = makers.pin, unpin = makers.unpin](std::byte* data, std::size_t nbytes) {
    try {
      pin(reinterpret_cast<std::uintptr_t>(data), nbytes);
    } catch (const std::exception& error) {
      fail(ErrorCode::kSystem, nbytes,
           " bytes of host memory for a window cannot be pinned: ", error.what());
    }
    return std::shared_ptr<void>(data, [unpin, maker = process_id()](void* pinned) {
      if (process_id() == maker) unpin(reinterpret_cast<std::uintptr_t>(pinned));
    });
  };
}

// Outside of the window it has no life of its own: nothing is under way when it ends, but for what
// stop() has ended.
class NcclCarrier : public window::Carrier {
 public:
  NcclCarrier(std::unique_ptr<nccl::Puts> puts, c10::Stream stream,
              std::chrono::milliseconds timeout)
      : puts_(std::move(puts)), stream_(stream), timeout_(timeout) {}

  std::byte* outgoing(int to) const override { return puts_->outgoing(to); }
  std::byte* landing(int from) const override { return puts_->landing(from); }
  // Behind nothing: what has filled outgoing() has been waited for.
  void put(int to) override { puts_->put(to, stream_); }

  void await(int from) override {
    const Awaiting awaiting(awaiting_);
    if (stopped_) fail(ErrorCode::kAborted, "the window has been freed");
    puts_->await(from, Deadline::in(timeout_));
  }

  void stop() noexcept override {
    stopped_ = true;
    if (awaiting_ > 0) puts_->abort();
  }

 private:
  struct Awaiting {
    explicit Awaiting(std::atomic<int>& count) : count(count) { ++count; }
    ~Awaiting() { --count; }
    std::atomic<int>& count;
  };

  const std::unique_ptr<nccl::Puts> puts_;
  const c10::Stream stream_;
  const std::chrono::milliseconds timeout_;
  std::atomic<int> awaiting_{0};
  std::atomic<bool> stopped_{false};
};

}  // namespace

window::Device BluefogBackend::window_device(at::Device device, window::Spec& spec) {
  auto values = shared_values(device, spec);
  if (values.calls) return values;
  values = carried_values(device, spec);
  if (values.calls) return values;
  window::Device pinned;
  pinned.memory = "pinned memory";
  pinned.calls = std::make_shared<WindowArithmetic>(device, pinned_memory(), pin_by(makers_));
  return pinned;
}

window::Device BluefogBackend::shared_values(at::Device device, window::Spec& spec) {
  window::Device shared;
  if (!options_->symmetric_memory || !shares_memory(options_->transport)) return shared;
  const std::size_t largest = over_all_ranks(spec.in_neighbors.size(), c10d::ReduceOp::MAX);
  const std::size_t nbytes = window::Segment::value_bytes(spec.shape, largest);
  const at::Tensor values = peers(device).allocate(static_cast<std::int64_t>(nbytes),
                                                   at::device(device).dtype(at::kByte));
  if (!values.defined()) return shared;
  spec.shape.apart = true;
  shared.memory = "symmetric memory";
  shared.calls = std::make_shared<WindowArithmetic>(device, at::TensorOptions(device), nullptr);
  shared.values_of = [this, values](int rank) {
    return window::Bytes(peers_->address_at(rank, values), [values](std::byte*) {});
  };
  return shared;
}

window::Device BluefogBackend::carried_values(at::Device device, window::Spec& spec) {
  window::Device carried;
  if (!options_->own_communicator || spec.shape.nbytes == 0) return carried;
  const bool can = makers_.nccl()->nccl->has_put_signal();
  if (over_all_ranks(can, c10d::ReduceOp::MIN) == 0) return carried;
  const c10::Stream side = c10::impl::VirtualGuardImpl(device.type())
                               .getStreamFromGlobalPool(device, /*isHighPriority=*/true);
  spec.shape.apart = true;
  spec.route = window::Route::kMessages;
  carried.memory = "own memory, with NCCL between GPUs";
  carried.calls = std::make_shared<WindowArithmetic>(device, pinned_memory(), nullptr);
  carried.parcels = std::make_shared<WindowArithmetic>(device, at::TensorOptions(device), nullptr);
  carried.service = std::make_shared<WindowArithmetic>(device, pinned_memory(), nullptr, side);
  carried.carrier = std::make_shared<NcclCarrier>(
      makePuts(device, spec.shape.nbytes, spec.in_neighbors, spec.out_neighbors), side,
      options_->timeout);
  const auto nbytes = window::Segment::value_bytes(spec.shape, spec.in_neighbors.size());
  carried.values_of = [nbytes, options = at::TensorOptions(device).dtype(at::kByte)](int) {
    const at::Tensor values = at::empty({static_cast<std::int64_t>(nbytes)}, options);
    return window::Bytes(static_cast<std::byte*>(values.mutable_data_ptr()),
                         [values](std::byte*) {});
  };
  return carried;
}

std::int64_t BluefogBackend::over_all_ranks(std::int64_t value, c10d::ReduceOp::RedOpType op) {
  std::vector all{at::full({1}, value, at::kLong)};
  c10d::AllreduceOptions options;
  options.reduceOp = op;
  cpu_->allreduce(all, options)->wait();
  return all[0].item<std::int64_t>();
}

}  // namespace bluefog
