#include "device/executor.h"

#include <ATen/ops/mul.h>
#include <ATen/ops/zeros_like.h>
#include <ATen/record_function.h>
#include <c10/core/Event.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <utility>

#include "base/error.h"

namespace bluefog::device {
namespace {

// NCCL moves bytes; there is no need to ask whether it has a name for what they are. Floats keep
// theirs, for those who read a trace.
at::Tensor as_payload(const at::Tensor& tensor) {
  if (tensor.is_floating_point() && tensor.element_size() > 1) return tensor;
  return tensor.view({-1}).view(at::kByte);
}

void append(Tensors& to, const Tensors& from) { to.insert(to.end(), from.begin(), from.end()); }

std::uint64_t bytes_of(const Operation& operation) {
  std::uint64_t bytes = 0;
  for (const at::Tensor& tensor : operation.read_in_place ? operation.inputs : operation.sent) {
    bytes += tensor.nbytes();
  }
  return bytes * operation.plan->destinations().size();
}

}  // namespace

// All ranks have told NCCL the number. What it does with more peers, it does not say.
void DeviceExecutor::check_neighbors(const Operation& operation) const {
  const auto most = static_cast<std::size_t>(options_.max_neighbors);
  const std::size_t neighbors = operation.plan->neighbors().size();
  if (most > 0 && neighbors > most) {
    fail(ErrorCode::kUsage, "rank ", rank_, " has ", neighbors, " neighbours in this ",
         operation.name, ", more than BluefogOptions(max_neighbors=", most,
         "): give the most that any rank will have, or 0 for any number");
  }
}

WorkPtr DeviceExecutor::run(Operation operation, bool async) {
  check_neighbors(operation);
  Sides& sides = prepare(operation.device);
  const c10::impl::VirtualGuardImpl impl(operation.device.type());
  const c10::Stream current = impl.getStream(operation.device);
  sequence_.fetch_add(1, std::memory_order_relaxed);
  RECORD_FUNCTION_WITH_SCOPE(
      at::RecordScope::USER_SCOPE, operation.title,
      std::vector<c10::IValue>(operation.inputs.begin(), operation.inputs.end()));

  Tensors held;
  const nccl::Round round = round_of(operation, held);
  const WorkPtr moved = round.transfers.empty() ? nullptr : wire_->exchange(round);
  bytes_sent_.fetch_add(bytes_of(operation), std::memory_order_relaxed);
  if (!async) {
    if (moved) moved->wait();
    finish(operation, current);
    return nullptr;
  }

  const c10::Stream side = sides.next(operation.read_in_place);
  c10::Event end(operation.device.type());
  {
    const c10::StreamGuard on_side(side);
    if (moved) {
      moved->wait();  // which is behind the caller's stream
    } else {
      c10::Event before(operation.device.type());
      before.record(current);
      before.block(side);
    }
    finish(operation, side);
    end.record(side);
  }
  append(held, operation.inputs);
  append(held, operation.sent);
  append(held, operation.outputs);
  append(held, operation.scratch);
  for (const Tensors& tensors : operation.arrivals) append(held, tensors);
  return c10::make_intrusive<StreamWork>(
      rank_, Enqueued{current, side, std::move(end), moved, std::move(operation.outputs),
                      std::move(held)});
}

// Requires that `on` is the current stream. Within one stream order needs no event, which a graph
// that is captured on it could not wait for.
void DeviceExecutor::finish(const Operation& operation, c10::Stream on) {
  if (operation.read_in_place && last_in_place_ && last_stream_ != on) last_in_place_->block(on);
  operation.finish();
  if (operation.read_in_place) {
    last_in_place_.emplace(on.device_type());
    last_in_place_->record(on);
    last_stream_ = on;
  }
}

// Nothing goes where there is nothing to send, which both ends of an edge see alike.
nccl::Round DeviceExecutor::round_of(const Operation& operation, Tensors& held) const {
  nccl::Round round{{}, operation.name, sequence(), operation.timeout};
  const auto add = [&](nccl::Transfer::Direction direction, int peer, const at::Tensor& tensor) {
    if (tensor.numel() > 0) round.transfers.push_back({direction, peer, as_payload(tensor)});
  };
  for (const Edge& destination : operation.plan->destinations()) {
    for (const at::Tensor& tensor : operation.sent) {
      if (destination.weight == 1) {
        add(nccl::Transfer::kSend, destination.rank, tensor);
      } else {
        // The receiver's term of weight 0 does not count, whatever its values.
        held.push_back(destination.weight == 0 ? at::zeros_like(tensor)
                                               : at::mul(tensor, destination.weight));
        add(nccl::Transfer::kSend, destination.rank, held.back());
      }
    }
  }
  for (std::size_t j = 0; j < operation.arrivals.size(); ++j) {
    for (const at::Tensor& tensor : operation.arrivals[j]) {
      add(nccl::Transfer::kReceive, operation.plan->sources()[j].rank, tensor);
    }
  }
  nccl::canonical_order(rank_, round.transfers);
  return round;
}

DeviceExecutor::Sides& DeviceExecutor::prepare(at::Device device) {
  const auto known = sides_.find(device);
  if (known != sides_.end()) return known->second;
  if (!wire_) {
    wire_ = make_wire_(device);
    made_ = wire_.get();
  }
  wire_->connect(device);
  const c10::impl::VirtualGuardImpl impl(device.type());
  Sides sides;
  for (int i = 0; i < options_.streams; ++i) {
    sides.streams.push_back(impl.getStreamFromGlobalPool(device, options_.high_priority));
  }
  return sides_.emplace(device, std::move(sides)).first->second;
}

c10::Stream DeviceExecutor::Sides::next(bool read_in_place) {
  return read_in_place ? streams.front() : streams[used++ % streams.size()];
}

void DeviceExecutor::before_collective() {
  if (wire_) wire_->before_collective();
}

void DeviceExecutor::after_collective(c10d::Work* work) {
  if (wire_ && work) wire_->after_collective(*work);
}

void DeviceExecutor::shutdown(std::chrono::milliseconds timeout) {
  if (wire_) wire_->shutdown(timeout);
}

void DeviceExecutor::abort() {
  if (nccl::Wire* const wire = made_.load()) wire->abort();
}

std::string DeviceExecutor::records() const {
  const nccl::Wire* const wire = made_.load();
  return wire ? wire->records() : "";
}

}  // namespace bluefog::device
