#include "nccl/communicator.h"

#include <chrono>
#include <cstdio>
#include <optional>
#include <thread>
#include <utility>

#include "nccl/seats.h"
#include "nccl/window.h"

namespace emulator::nccl {
namespace {

constexpr std::chrono::milliseconds kLook{5};

/// For what a call does on the communicator's device, whose default stream a null one is.
class OnDevice {
 public:
  explicit OnDevice(int device) {
    cudaGetDevice(&before_);
    cudaSetDevice(device);
  }
  ~OnDevice() { cudaSetDevice(before_); }
  OnDevice(const OnDevice&) = delete;
  OnDevice& operator=(const OnDevice&) = delete;

 private:
  int before_ = 0;
};

}  // namespace

Communicator::Communicator(int rank, int size, int device, bool blocking)
    : rank(rank), size(size), device(device), blocking(blocking), mesh_(rank, size) {}

Stop Communicator::stop() const {
  return [this] { return mesh_.aborted(); };
}

void Communicator::connect(const ncclUniqueId& id, const Stop& stop) {
  const Stop either = [&] { return mesh_.aborted() || (stop && stop()); };
  mesh_.connect(id, either);
  check_gpus(mesh_, device, either);
  signals_.connect(mesh_, either);
}

ncclResult_t Communicator::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

void Communicator::check_ready() const {
  const std::lock_guard lock(mutex_);
  if (state_ == ncclInProgress) {
    throw Error(ncclInvalidArgument, "the communicator's earlier call is still in progress");
  }
  if (state_ != ncclSuccess) throw Error(state_, "the communicator has failed: " + failure_);
  if (finalized_) throw Error(ncclInvalidArgument, "the communicator has been finalized");
}

void Communicator::fail(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    if (state_ != ncclSuccess && state_ != ncclInProgress) return;
    state_ = error.result();
    failure_ = error.what();
  }
  changed_.notify_all();
  std::fprintf(stderr, "emulated NCCL: rank %d of %d: %s\n", rank, size, error.what());
}

void Communicator::begin_job() {
  const std::lock_guard lock(mutex_);
  ++jobs_;
  if (state_ == ncclSuccess) state_ = ncclInProgress;
}

ncclResult_t Communicator::run_job(const std::function<void()>& job) {
  try {
    job();
  } catch (const Aborted&) {
    const std::lock_guard lock(mutex_);
    state_ = ncclInternalError;
    failure_ = "the communicator was aborted during a call";
  } catch (const Error& error) {
    fail(error);
  }
  ncclResult_t result = ncclSuccess;
  {
    const std::lock_guard lock(mutex_);
    if (--jobs_ == 0 && state_ == ncclInProgress) state_ = ncclSuccess;
    if (state_ != ncclInProgress) result = state_;
  }
  changed_.notify_all();
  return result;
}

void Communicator::enqueue(cudaStream_t stream, bool in_turn, std::function<void()> work) {
  const OnDevice guard(device);
  const bool captured = is_capturing(stream);
  const std::lock_guard enqueuing(enqueue_mutex_);
  std::optional<Turns::Ticket> ticket;
  if (in_turn && !captured) ticket = turns_.draw();
  if (!captured) count(enqueued_, 1);
  emulator::enqueue(stream,
                    [self = shared_from_this(), work = std::move(work), in_turn, captured, ticket] {
                      self->count(self->running_, 1);
                      if (in_turn) self->turns_.begin(ticket, self->stop());
                      self->run(work);
                      if (in_turn) self->turns_.end(ticket);
                      self->count(self->running_, -1);
                      if (!captured) self->count(self->enqueued_, -1);
                    });
}

void Communicator::run(const std::function<void()>& work) noexcept {
  try {
    if (!mesh_.aborted()) work();
  } catch (const Aborted&) {
  } catch (const Error& error) {
    fail(error);
    while (!mesh_.aborted()) std::this_thread::sleep_for(kLook);
  }
}

void Communicator::count(int& counter, int change) {
  {
    const std::lock_guard lock(mutex_);
    counter += change;
  }
  changed_.notify_all();
}

void Communicator::finalize() {
  std::unique_lock lock(mutex_);
  finalized_ = true;
  const auto ended = [this] {
    const bool failed = state_ != ncclSuccess && state_ != ncclInProgress;
    return enqueued_ == 0 || failed || mesh_.aborted();
  };
  while (!ended()) changed_.wait_for(lock, kLook);
}

bool Communicator::idle() const {
  const std::lock_guard lock(mutex_);
  return enqueued_ == 0 && running_ == 0 && jobs_ == 0;
}

void Communicator::abort() {
  mesh_.abort();
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return running_ == 0 && jobs_ == 0; });
}

void Communicator::add(Window* window) {
  const std::lock_guard lock(mutex_);
  windows_.insert(window);
}

void Communicator::remove(Window* window) {
  const std::lock_guard lock(mutex_);
  if (windows_.erase(window) == 0) {
    throw Error(ncclInvalidArgument, "no such window in this communicator");
  }
}

bool Communicator::has(Window* window) const {
  const std::lock_guard lock(mutex_);
  return windows_.contains(window);
}

bool Communicator::in_window(const void* data, std::size_t bytes) const {
  const std::lock_guard lock(mutex_);
  for (const Window* window : windows_) {
    if (window->holds(data, bytes)) return true;
  }
  return false;
}

}  // namespace emulator::nccl
