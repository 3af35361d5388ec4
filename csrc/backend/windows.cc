#include "backend/windows.h"

#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <utility>

#include "backend/bluefog_backend.h"
#include "backend/call.h"
#include "backend/schema.h"
#include "base/error.h"
#include "device/window_arithmetic.h"

namespace bluefog {

void GroupWindows::close() {
  std::vector<std::weak_ptr<window::Window>> all;
  {
    const std::lock_guard lock(mutex);
    all = std::move(open);
    open.clear();
  }
  for (auto& weak : all) {
    if (auto window = weak.lock()) window->close();
  }
  queue->shutdown();
  service->shutdown();
}

// As edges are in neighbor operations.
static window::Route route_of(const std::string& transport) {
  if (!shares_memory(transport)) return window::Route::kMessages;
  return transport == "shm" ? window::Route::kShared : window::Route::kAny;
}

std::shared_ptr<window::Window> BluefogBackend::makeWindow(window::Spec spec,
                                                           const at::Tensor& own) {
  executor();                                     // connects the group
  Transport* const transport = transport_.get();  // outlives the windows: see ~BluefogBackend
  spec.lost = [transport](int rank) { return transport->lost(rank); };
  spec.route = route_of(options_->transport);
  spec.service = windows_->service;
  if (!own.is_cpu()) spec.device = window_device(own.device(), spec);
  std::uint64_t number;
  {
    const std::lock_guard lock(windows_->mutex);
    number = ++windows_->made;
  }
  spec.channel = number;
  std::shared_ptr<window::Window> window = window::Window::create(
      std::move(spec), bytes_of(own), rendezvous_at(concat("window/", number, "/"), "a window"),
      Deadline::in(options_->timeout));
  const std::lock_guard lock(windows_->mutex);
  std::erase_if(windows_->open, [](auto& weak) { return weak.expired(); });
  windows_->open.push_back(window);
  return window;
}

const std::shared_ptr<window::Queue>& BluefogBackend::windowQueue() const {
  return windows_->queue;
}

TensorWindow::TensorWindow(at::Tensor tensor, std::shared_ptr<window::Window> window,
                           std::shared_ptr<window::Queue> queue, std::chrono::milliseconds timeout)
    : tensor_(std::move(tensor)),
      dtype_(tensor_.scalar_type()),
      sizes_(tensor_.sizes().vec()),
      window_(std::move(window)),
      queue_(std::move(queue)),
      timeout_(timeout) {
  if (!tensor_.is_cpu()) {
    const c10::impl::VirtualGuardImpl device(tensor_.device().type());
    side_ = device.getStreamFromGlobalPool(tensor_.device(), /*isHighPriority=*/true);
  }
  queue_->retain();
}

TensorWindow::~TensorWindow() { close(); }

void TensorWindow::check(const at::Tensor& tensor, const std::string& window) {
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided && (tensor.is_cpu() || tensor.is_cuda()),
                    "window '", window, "' needs a dense tensor on the CPU or a GPU, got ",
                    tensor.layout(), " on ", tensor.device());
  TORCH_CHECK_VALUE(tensor.is_contiguous(), "window '", window,
                    "' needs a contiguous tensor, got sizes ", tensor.sizes(), " with strides ",
                    tensor.strides(), "; pass tensor.contiguous()");
}

std::byte* TensorWindow::data_of(const at::Tensor& x) const {
  check(x, window_->spec().name);
  TORCH_CHECK_TYPE(x.scalar_type() == dtype_, "window '", window_->spec().name, "' has ",
                   dtype_name(dtype_), ", got a tensor of ", dtype_name(x.scalar_type()));
  TORCH_CHECK_VALUE(x.sizes() == at::IntArrayRef(sizes_), "window '", window_->spec().name,
                    "' has the shape ", at::IntArrayRef(sizes_), ", got a tensor of ", x.sizes());
  TORCH_CHECK_VALUE(x.device() == tensor_.device(), "window '", window_->spec().name, "' is on ",
                    tensor_.device(), ", got a tensor on ", x.device());
  return static_cast<std::byte*>(x.data_ptr());
}

window::Call TensorWindow::call(bool require_mutex) const {
  return {data_of(tensor_), require_mutex, Deadline::in(timeout_)};
}

void TensorWindow::drain() {
  Handle last;
  {
    const std::lock_guard lock(mutex_);
    last = last_;
  }
  if (last.valid()) last.wait();
}

void TensorWindow::flush() {
  drain();
  window_->flush(Deadline::in(timeout_));
}

std::optional<TensorWindow::Handle> TensorWindow::run(std::function<void()> call, bool async) {
  if (!async) {
    drain();
    call();
    return std::nullopt;
  }
  const std::lock_guard lock(mutex_);
  if (left_) {
    fail(ErrorCode::kAborted, "window '", window_->spec().name, "' of rank ", window_->spec().rank,
         " has been freed");
  }
  last_ = queue_->submit(side_ ? device::behind_current(*side_, std::move(call)) : std::move(call));
  return last_;
}

std::optional<TensorWindow::Handle> TensorWindow::send(window::Sending kind, const at::Tensor& x,
                                                       Edges to, double self_weight,
                                                       Options options) {
  data_of(x);  // a wrong tensor is the caller's error, also where nobody waits for it
  auto send = [this, kind, x, to = std::move(to), self_weight, options] {
    window_->send(kind, data_of(x), to, self_weight, call(options.require_mutex));
    if (self_weight != 1 && !x.is_inference()) x.unsafeGetTensorImpl()->bump_version();
  };
  return run(std::move(send), options.async);
}

std::optional<TensorWindow::Handle> TensorWindow::get(Edges from, Options options) {
  auto get = [this, from = std::move(from), options] {
    window_->get(from, call(options.require_mutex));
  };
  return run(std::move(get), options.async);
}

at::Tensor TensorWindow::update(double self_weight, const Edges& from, bool reset, bool clone,
                                bool require_mutex) {
  drain();
  const at::NoGradGuard no_grad;
  const at::Tensor y = clone ? at::empty(sizes_, tensor_.options()) : tensor_;
  window_->update(data_of(y), self_weight, from, reset, call(require_mutex));
  if (!clone && !y.is_inference()) y.unsafeGetTensorImpl()->bump_version();
  return y;
}

std::pair<at::Tensor, double> TensorWindow::value_of(int rank) {
  drain();
  const at::Tensor y = at::empty(sizes_, tensor_.options());
  const double p = window_->value_of(rank, data_of(y), Deadline::in(timeout_));
  return {y, p};
}

std::pair<at::Tensor, double> TensorWindow::outstanding(int rank) {
  drain();
  const at::Tensor y = at::empty(sizes_, tensor_.options());
  const double p = window_->outstanding(rank, data_of(y));
  return {y, p};
}

void TensorWindow::lock(bool as_owner, const std::vector<int>& ranks) {
  window_->lock(window_->keys(as_owner, ranks), Deadline::in(timeout_));
}

void TensorWindow::unlock(bool as_owner, const std::vector<int>& ranks) {
  window_->unlock(window_->keys(as_owner, ranks));
}

void TensorWindow::free() {
  drain();
  try {
    window_->free(Deadline::in(timeout_));
  } catch (...) {
    leave_queue();
    throw;
  }
  leave_queue();
}

void TensorWindow::close() {
  if (window_->forked()) return;
  window_->close();
  drain();
  leave_queue();
}

void TensorWindow::leave_queue() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(left_, true)) return;
  }
  queue_->release();
}

}  // namespace bluefog
