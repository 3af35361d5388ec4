#include "transport/nccl/puts.h"

#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <thread>
#include <utility>

namespace bluefog::nccl {
namespace {

// Between looks at an event: longer and longer, as what is late is seldom late by little.
constexpr std::chrono::microseconds kShortestPause{20};
constexpr std::chrono::microseconds kLongestPause{1000};

std::size_t slot_of(const std::map<int, std::size_t>& slots, int rank, int peer, const char* what) {
  const auto slot = slots.find(peer);
  if (slot == slots.end()) {
    fail(ErrorCode::kUsage, "rank ", peer, " is not among rank ", rank, "'s ", what);
  }
  return slot->second;
}

}  // namespace

Puts::Puts(std::shared_ptr<NcclApi> api, c10d::Store& store, Options options)
    : api_(std::move(api)),
      options_(std::move(options)),
      communicator_(
          *api_,
          {.rank = options_.edges.rank, .size = options_.edges.size, .name = options_.name}) {
  const c10::DeviceGuard guard(options_.device);
  set_up(store);
}

void Puts::set_up(c10d::Store& store) {
  const Deadline deadline = Deadline::in(options_.timeout);
  const int rank = options_.edges.rank;
  slots_ = PutSlots::agree(*api_, store, options_.edges, deadline);
  communicator_.connect(store, deadline);
  memory_.emplace(*api_, slots_.bytes, rank);
  communicator_.register_window(memory_->data(), slots_.bytes, window_, deadline);
  if (window_ == nullptr) {
    fail(ErrorCode::kSystem, "rank ", rank, ": NCCL ", dotted(api_->version()),
         " has no windows between the devices of these ", options_.edges.size, " ranks");
  }
  const c10::impl::VirtualGuardImpl impl(options_.device.type());
  putting_ = impl.getStreamFromGlobalPool(options_.device, /*isHighPriority=*/true);
  waiting_ = impl.getStreamFromGlobalPool(options_.device, /*isHighPriority=*/true);
  raise_first_signal(deadline);
}

// What NCCL needs for signals it makes with a communicator's first one-sided call, and all ranks
// together: without this a rank's first put would wait for ranks that put nothing.
void Puts::raise_first_signal(const Deadline& deadline) {
  const int rank = options_.edges.rank, size = options_.edges.size;
  if (size == 1) return;
  communicator_.signal((rank + 1) % size, putting_->native_handle(), deadline);
  const int before = (rank + size - 1) % size;
  poll(enqueue_wait(before, deadline), before, deadline);
}

Puts::~Puts() {
  try {
    const c10::DeviceGuard guard(options_.device);
    const bool ended = own_puts_ended();
    if (ended && !failure_) {
      communicator_.deregister_window(window_, Deadline::in(options_.patience));
    }
    communicator_.abort();
    if (!ended) memory_->keep();
    memory_.reset();
  } catch (const std::exception&) {
    // The device is lost, or NCCL has failed: the members' destructors free what they can.
  }
}

std::byte* Puts::landing(int from) const {
  return memory_->data() + slot_of(slots_.landing, options_.edges.rank, from, "sources");
}

std::byte* Puts::outgoing(int to) const {
  return memory_->data() + slot_of(slots_.outgoing, options_.edges.rank, to, "destinations");
}

void Puts::put(int to, c10::Stream behind) {
  const std::byte* const from = outgoing(to);
  attempt([&] {
    const c10::DeviceGuard guard(options_.device);
    const std::lock_guard calls(calls_mutex_);
    c10::Event before(options_.device.type());
    before.record(behind);
    before.block(*putting_);
    communicator_.put_signal(from, options_.edges.nbytes, to, window_, slots_.remote.at(to),
                             putting_->native_handle(), Deadline::in(options_.timeout));
    last_put_.emplace(options_.device.type());
    last_put_->record(*putting_);
  });
}

void Puts::await(int from, const Deadline& deadline) {
  landing(from);
  attempt([&] {
    // Else the looks at the event would break captures of other threads.
    if (options_.hooks.watchdog_thread) options_.hooks.watchdog_thread();
    const c10::DeviceGuard guard(options_.device);
    poll(enqueue_wait(from, deadline), from, deadline);
  });
}

c10::Event Puts::enqueue_wait(int from, const Deadline& deadline) {
  const std::lock_guard calls(calls_mutex_);
  communicator_.wait_signal(from, waiting_->native_handle(), deadline);
  c10::Event landed(options_.device.type());
  landed.record(*waiting_);
  return landed;
}

// The communicator is asked after the device and believed before it: what an error has cut short
// has ended too.
void Puts::poll(const c10::Event& landed, int from, const Deadline& deadline) {
  auto pause = kShortestPause;
  for (;;) {
    const bool ended = landed.query();
    if (const auto error = communicator_.async_error()) throw *error;
    if (ended) return;
    if (deadline.passed()) {
      fail(ErrorCode::kTimeout, "rank ", options_.edges.rank, ": a put of rank ", from,
           " has not landed after ", deadline.elapsed_seconds(), " s, timeout ",
           deadline.timeout_seconds(), " s");
    }
    std::unique_lock lock(mutex_);
    if (failed_.wait_for(lock, pause, [this] { return failure_.has_value(); })) throw *failure_;
    pause = std::min(2 * pause, kLongestPause);
  }
}

void Puts::abort() noexcept {
  end(Error(ErrorCode::kAborted, concat("rank ", options_.edges.rank,
                                        "'s puts were aborted, with its window or group")));
}

template <typename Call>
void Puts::attempt(Call&& call) {
  rethrow_failure();
  try {
    call();
  } catch (const Error& error) {
    end(error);
  } catch (const std::exception& error) {
    end(Error(ErrorCode::kSystem, concat("rank ", options_.edges.rank,
                                         ": a put failed on its device: ", error.what())));
  }
  rethrow_failure();  // also another thread's, which makes events look as if all had gone well
}

// The first failure counts, and is known before the communicator ends: that makes calls fail.
void Puts::end(const Error& error) noexcept {
  {
    const std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_.emplace(error);
  }
  failed_.notify_all();
  c10::OptionalDeviceGuard guard;
  try {
    guard.reset_device(options_.device);
  } catch (const std::exception&) {  // the device is lost
  }
  communicator_.abort();
}

void Puts::rethrow_failure() const {
  const std::lock_guard lock(mutex_);
  if (failure_) throw *failure_;
}

// Nothing tells when a put has ended but its stream: the target's word is the caller's affair.
bool Puts::own_puts_ended() noexcept {
  const Deadline deadline = Deadline::in(options_.patience);
  try {
    while (last_put_ && !last_put_->query()) {
      if (deadline.passed()) return false;
      std::this_thread::sleep_for(kLongestPause);
    }
  } catch (const std::exception&) {  // the device is lost
  }
  return true;
}

}  // namespace bluefog::nccl
