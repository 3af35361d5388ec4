#include "transport/nccl/own_wire.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "transport/nccl/own_work.h"

namespace bluefog::nccl {
namespace {

Operation describe(int rank, const Round& round) {
  Operation operation{round.operation, round.sequence, {}, round.bytes_sent()};
  for (const Transfer& transfer : round.transfers) {
    const auto edge = transfer.direction == Transfer::kSend ? std::pair(rank, transfer.peer)
                                                            : std::pair(transfer.peer, rank);
    if (std::ranges::find(operation.edges, edge) == operation.edges.end()) {
      operation.edges.push_back(edge);
    }
  }
  return operation;
}

std::vector<Communicator::Message> messages_of(const Round& round) {
  std::vector<Communicator::Message> messages;
  for (const Transfer& transfer : round.transfers) {
    if (transfer.tensor.nbytes() == 0) continue;
    void* const data = transfer.direction == Transfer::kSend
                           ? const_cast<void*>(transfer.tensor.const_data_ptr())
                           : transfer.tensor.mutable_data_ptr();
    messages.push_back({transfer.direction, transfer.peer, data, transfer.tensor.nbytes()});
  }
  return messages;
}

std::vector<at::Tensor> tensors_of(const Round& round) {
  std::vector<at::Tensor> tensors;
  for (const Transfer& transfer : round.transfers) tensors.push_back(transfer.tensor);
  return tensors;
}

std::string message_of(std::exception_ptr error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& known) {
    return known.what();
  }
}

}  // namespace

OwnWire::OwnWire(std::shared_ptr<NcclApi> api, c10::intrusive_ptr<c10d::Store> store,
                 Options options)
    : api_(std::move(api)),
      store_(std::move(store)),
      options_(std::move(options)),
      communicator_(*api_, {.rank = options_.rank,
                            .size = options_.size,
                            .degree = options_.degree,
                            .name = options_.name,
                            .key = options_.key}),
      watchdog_(std::make_unique<Watchdog>(
          Watchdog::Options{.rank = options_.rank,
                            .error = [this] { return communicator_.async_error(); },
                            .abort = [this] { abort_communicator(); },
                            .thread_start = options_.hooks.watchdog_thread,
                            .interval = options_.poll_interval})) {}

OwnWire::~OwnWire() {
  watchdog_.reset();
  abort_communicator();
}

void OwnWire::connect(at::Device device) {
  rethrow_failure();
  if (stream_ && stream_->device() == device) return;
  if (stream_) {
    fail(ErrorCode::kUsage, "rank ", options_.rank, "'s NCCL communicator is on ",
         stream_->device(), "; it cannot serve ", device, " too");
  }
  try {
    const c10::DeviceGuard guard(device);
    device_ = device;
    communicator_.connect(*store_, Deadline::in(options_.connect_timeout));
    stream_ = c10::impl::VirtualGuardImpl(device.type())
                  .getStreamFromGlobalPool(device, options_.high_priority);
  } catch (const Error& error) {
    watchdog_->fail(error);
    rethrow_failure();
  }
}

c10::intrusive_ptr<c10d::Work> OwnWire::exchange(const Round& round) {
  rethrow_failure();
  check(round);
  const Operation operation = describe(options_.rank, round);
  try {
    return enqueue(round, operation);
  } catch (const Error& error) {
    watchdog_->fail(Error(error.code(), concat(operation.describe(), ": ", error.what())));
  } catch (const std::exception& error) {  // of the device
    watchdog_->fail(Error(ErrorCode::kSystem, concat("rank ", options_.rank, ": ",
                                                     operation.describe(), ": ", error.what())));
  }
  rethrow_failure();
  return nullptr;
}

// Before anything is enqueued: the wire stays as it was.
void OwnWire::check(const Round& round) const {
  if (!stream_) {
    fail(ErrorCode::kUsage, "rank ", options_.rank, ": ", round.operation, " #", round.sequence,
         " comes before connect()");
  }
  for (const Transfer& transfer : round.transfers) {
    if (transfer.tensor.device() != stream_->device() || !transfer.tensor.is_contiguous()) {
      fail(ErrorCode::kUsage, "rank ", options_.rank, ": ", round.operation, " #", round.sequence,
           " wants contiguous tensors on ", stream_->device(), "; the one for the edge with rank ",
           transfer.peer, " is on ", transfer.tensor.device());
    }
  }
}

c10::intrusive_ptr<c10d::Work> OwnWire::enqueue(const Round& round, const Operation& operation) {
  const Deadline deadline = Deadline::in(round.timeout);
  const c10::DeviceGuard guard(stream_->device());
  const c10::Stream current = current_stream();
  const bool captured = is_captured(current);

  c10::Event before(stream_->device_type());
  before.record(current);
  before.block(*stream_);
  const auto messages = messages_of(round);
  if (!messages.empty()) communicator_.exchange(messages, stream_->native_handle(), deadline);
  c10::Event end(stream_->device_type());
  end.record(*stream_);

  auto work = c10::make_intrusive<OwnWork>(options_.rank, *stream_, std::move(end),
                                           tensors_of(round), round.sequence, captured);
  const std::uint64_t ticket = recorder_.enqueued(operation);
  if (captured) {
    recorder_.captured(ticket);
    return work;
  }
  const auto ended = [this, work, ticket](std::exception_ptr error) {
    work->end(error);
    if (error) {
      recorder_.failed(ticket, message_of(error));
    } else {
      recorder_.completed(ticket);
    }
  };
  watchdog_->watch({[work] { return work->reached(); }, ended, deadline, operation});
  return work;
}

void OwnWire::abort() {
  watchdog_->fail(
      Error(ErrorCode::kAborted, concat("rank ", options_.rank, "'s process group was aborted")));
}

void OwnWire::shutdown(std::chrono::milliseconds timeout) {
  rethrow_failure();
  if (!stream_) return;
  const c10::DeviceGuard guard(stream_->device());
  try {
    communicator_.finalize(Deadline::in(timeout));
  } catch (const Error& error) {
    watchdog_->fail(error);
    rethrow_failure();
  }
  watchdog_->poll_now();
}

void OwnWire::before_collective() {
  if (!stream_) return;
  const c10::Stream current = current_stream();
  if (is_captured(current) && !is_captured(*stream_)) return;
  c10::Event end(stream_->device_type());
  end.record(*stream_);
  end.block(current);
}

// By its future: wait() would let go of tensors that the collective still uses.
void OwnWire::after_collective(c10d::Work& work) {
  if (!stream_ || is_captured(current_stream())) return;
  const c10::StreamGuard guard(*stream_);
  work.getFuture()->wait();
}

c10::Stream OwnWire::current_stream() const {
  return c10::impl::VirtualGuardImpl(stream_->device_type()).getStream(stream_->device());
}

bool OwnWire::is_captured(const c10::Stream& stream) const {
  const auto& is_capturing = options_.hooks.is_capturing;
  return is_capturing && is_capturing(stream);
}

void OwnWire::rethrow_failure() const {
  if (const auto failure = watchdog_->failure()) std::rethrow_exception(failure);
}

// Also in the watchdog's thread, which has no device of its own yet.
void OwnWire::abort_communicator() noexcept {
  c10::OptionalDeviceGuard guard;
  try {
    guard.reset_device(device_.load());
  } catch (const std::exception&) {  // the device is lost
  }
  communicator_.abort();
}

}  // namespace bluefog::nccl
