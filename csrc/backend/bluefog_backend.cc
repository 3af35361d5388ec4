#include "backend/bluefog_backend.h"

#include <algorithm>
#include <utility>

#include "backend/connect.h"
#include "backend/gil.h"
#include "backend/windows.h"
#include "backend/work.h"
#include "base/env.h"
#include "base/error.h"
#include "base/process.h"

namespace bluefog {
namespace {

// For neighbours to fetch what they were sent; those that have died never do.
constexpr std::chrono::seconds kShutdownPatience{30};

}  // namespace

BluefogOptions::BluefogOptions(std::chrono::milliseconds timeout, std::string transport)
    : Options("bluefog", timeout), transport(std::move(transport)) {
  check_transport_name(this->transport);
}

BluefogBackend::BluefogBackend(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                               c10::intrusive_ptr<BluefogOptions> options, BackendPtr cpu,
                               Makers makers)
    : Backend(rank, size),
      store_(std::move(store)),
      options_(std::move(options)),
      cpu_(std::move(cpu)),
      makers_(std::move(makers)),
      pid_(process_id()),
      device_(std::make_unique<device::DeviceExecutor>(
          rank, [this](at::Device first) { return make_wire(first); },
          device::ExecutorOptions{.streams = options_->communication_streams,
                                  .high_priority = options_->high_priority,
                                  .max_neighbors = options_->max_neighbors})),
      windows_(std::make_unique<GroupWindows>(
          std::make_shared<messages::Service>(rank, size, Env::interface()))) {}

// The threads that are joined here may be waiting for Python's lock: the progress thread to call a
// future's callback, those of Gloo to drop a tensor's Python object. A forked child has none of
// these threads and must not join them.
BluefogBackend::~BluefogBackend() {
  if (process_id() != pid_) {
    executor_.release();
    transport_.release();
    device_.release();
    cuda_.release();
    cpu_.release();
    return;
  }
  const GilReleased released;
  windows_->close();
  executor_.reset();
  transport_.reset();
  device_.reset();
  cuda_.reset();
  cpu_.reset();
}

c10d::Backend& BluefogBackend::inner(at::Device device) {
  check_process();
  if (device.is_cpu()) {
    return *cpu_;
  }
  TORCH_CHECK_VALUE(device.is_cuda(),
                    "the process group serves cpu and cuda tensors, got a tensor on ", device);
  std::lock_guard lock(cuda_mutex_);
  if (!cuda_) {
    cuda_ = makers_.cuda();
    cuda_->setGroupUid(getGroupUid());
    std::optional<at::Device> bound = getBoundDeviceId();
    if (!bound && device.has_index()) bound = device;  // torch 2.15's engine would guess
    cuda_->setBoundDeviceId(bound);
  }
  return *cuda_;
}

BackendPtr BluefogBackend::cuda_if_made() {
  std::lock_guard lock(cuda_mutex_);
  return cuda_;
}

// On the CPU, batch_isend_irecv posts its operations one by one, as it does for Gloo.
bool BluefogBackend::supportsCoalescing() const { return at::hasCUDA(); }

void BluefogBackend::startCoalescing() {
  TORCH_CHECK(!coalescing_, "startCoalescing was called twice without endCoalescing");
  coalescing_ = true;
}

WorkPtr BluefogBackend::endCoalescing() {
  TORCH_CHECK(coalescing_, "endCoalescing was called without startCoalescing");
  coalescing_ = false;
  std::vector<WorkPtr> works = std::exchange(coalesced_, {});
  if (std::exchange(cuda_coalescing_, false)) {
    works.push_back(inner(at::kCUDA).endCoalescing());
    device_->after_collective(works.back().get());
  }
  if (works.size() == 1) {
    return works[0];
  }
  return c10::make_intrusive<CoalescedWork>(std::move(works));
}

bool BluefogBackend::supportsTensorAlloc(c10::DeviceIndex device) {
  const BackendPtr cuda = cuda_if_made();
  return cuda && cuda->supportsTensorAlloc(device);
}

at::Tensor BluefogBackend::allocateTensor(long size, at::TensorOptions options) {
  if (options.device().is_cuda()) {
    Backend& cuda = inner(options.device());
    return cuda.supportsTensorAlloc(options.device().index()) ? cuda.allocateTensor(size, options)
                                                              : at::empty({size}, options);
  }
  TORCH_CHECK_VALUE(options.device().is_cpu(),
                    "the process group serves cpu and cuda tensors, not ", options.device());
  executor();  // connects the group
  auto memory = transport_->allocate(size * options.dtype().itemsize());
  if (!memory) {
    return at::empty({size}, options);
  }
  void* const data = memory.get();
  return at::from_blob(data, {size}, [memory = std::move(memory)](void*) {}, options);
}

std::shared_ptr<c10::Allocator> BluefogBackend::getMemAllocator() {
  return inner(at::kCUDA).getMemAllocator();
}

void BluefogBackend::eagerConnectSingleDevice(at::Device device) {
  if (device.is_cuda()) {
    inner(device).eagerConnectSingleDevice(device);
  }
}

void BluefogBackend::setGroupUid(const std::string& uid) {
  Backend::setGroupUid(uid);
  cpu_->setGroupUid(uid);
  if (const BackendPtr cuda = cuda_if_made()) {
    cuda->setGroupUid(uid);
  }
}

void BluefogBackend::setTimeout(std::chrono::milliseconds timeout) {
  options_->timeout = timeout;
  cpu_->setTimeout(timeout);
  if (const BackendPtr cuda = cuda_if_made()) {
    cuda->setTimeout(timeout);
  }
}

void BluefogBackend::setSequenceNumberForGroup() { cpu_->setSequenceNumberForGroup(); }

uint64_t BluefogBackend::getSequenceNumberForGroup() {
  const BackendPtr cuda = cuda_if_made();
  return cuda ? cuda->getSequenceNumberForGroup() : cpu_->getSequenceNumberForGroup();
}

// torch < 2.14 calls it for the CPU and for CUDA, with the same store: both get the same backend.
BackendPtr BluefogBackend::split(const c10::intrusive_ptr<c10d::Store>& store,
                                 const std::vector<int>& ranks,
                                 const c10::intrusive_ptr<Options>& options) {
  if (last_split_ && last_split_->store == store) {
    return last_split_->child.lock();
  }
  ++split_count_;
  last_split_ = Split{store, c10::weak_intrusive_ptr<Backend>(BackendPtr())};
  const auto mine = std::find(ranks.begin(), ranks.end(), getRank());
  if (mine == ranks.end()) {
    return nullptr;
  }
  auto child = c10::dynamic_intrusive_pointer_cast<BluefogOptions>(options);
  if (child) {
    child = c10::make_intrusive<BluefogOptions>(*child);
  } else {
    child = c10::make_intrusive<BluefogOptions>(*options_);
    child->cuda = nullptr;
  }
  child->timeout = options->timeout;
  child->group_name = options->group_name;
  child->global_ranks_in_group = options->global_ranks_in_group;
  BackendPtr made = makers_.child(store, static_cast<int>(mine - ranks.begin()),
                                  static_cast<int>(ranks.size()), std::move(child));
  last_split_->child = c10::weak_intrusive_ptr<Backend>(made);
  return made;
}

void BluefogBackend::registerOnCompletionHook(
    std::function<void(std::shared_ptr<c10d::WorkInfo>)>&& hook) {
  inner(at::kCUDA).registerOnCompletionHook(std::move(hook));
}

void BluefogBackend::waitForPendingWorks() { inner(at::kCUDA).waitForPendingWorks(); }

void BluefogBackend::enableCollectivesTiming() {
  if (const BackendPtr cuda = cuda_if_made()) {
    cuda->enableCollectivesTiming();
  }
}

c10d::ErrorType BluefogBackend::getError() {
  const BackendPtr cuda = cuda_if_made();
  return cuda ? cuda->getError() : c10d::ErrorType::SUCCESS;
}

// The lock is held by a thread that connects, which looks at closed_ and may wait for Python's
// lock.
void BluefogBackend::abort() {
  const GilReleased released;
  closed_ = true;
  windows_->close();
  {
    std::lock_guard lock(connect_mutex_);
    if (transport_) transport_->abort();
  }
  cpu_->abort();
  device_->abort();
  if (const BackendPtr cuda = cuda_if_made()) {
    cuda->abort();
  }
}

void BluefogBackend::shutdown() {
  const bool first = !closed_.exchange(true);  // and not aborted
  if (process_id() != pid_) {
    return;  // the threads to end are the parent's
  }
  const GilReleased released;
  windows_->close();
  Executor* running = nullptr;
  {
    std::lock_guard lock(connect_mutex_);
    running = executor_.get();
  }
  try {
    if (first)
      device_->shutdown(std::min<std::chrono::milliseconds>(options_->timeout, kShutdownPatience));
  } catch (const std::exception& error) {
    TORCH_WARN("rank ", getRank(), " ends its process group with an error: ", error.what());
  }
  if (running) running->shutdown();  // without the lock: a callback may be starting an operation
  cpu_->shutdown();
  if (const BackendPtr cuda = cuda_if_made()) {
    cuda->shutdown();
  }
}

void BluefogBackend::check_process() const {
  if (process_id() != pid_) {
    fail(ErrorCode::kUsage, "rank ", getRank(), "'s process group was made in process ", pid_,
         " and cannot be used in process ", process_id(),
         ", which was forked from it; make a group in the child, or use "
         "the spawn or forkserver start method");
  }
}

uint64_t BluefogBackend::sequence() const {
  const Executor* running = connected_.load(std::memory_order_acquire);
  return device_->sequence() + (running ? running->sequence() : 0);
}

uint64_t BluefogBackend::hostCollectives() const {
  const Executor* running = connected_.load(std::memory_order_acquire);
  return running ? running->collectives() : 0;
}

uint64_t BluefogBackend::bytesSent() const {
  const Executor* running = connected_.load(std::memory_order_acquire);
  return device_->bytes_sent() + (running ? running->bytes_sent() : 0);
}

}  // namespace bluefog
