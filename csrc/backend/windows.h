// The windows of a group, and a window of a tensor.
#pragma once

#include <ATen/ATen.h>
#include <c10/core/Stream.h>

#include <memory>
#include <mutex>
#include <vector>

#include "transport/messages/service.h"
#include "window/queue.h"
#include "window/window.h"

namespace bluefog {

/// Thread-safe.
struct GroupWindows {
  explicit GroupWindows(std::shared_ptr<messages::Service> service) : service(std::move(service)) {}

  /// Closes all windows and ends the threads that carry out their calls. Waits for nobody.
  void close();

  const std::shared_ptr<window::Queue> queue = std::make_shared<window::Queue>();
  const std::shared_ptr<messages::Service> service;

  std::mutex mutex;
  std::vector<std::weak_ptr<window::Window>> open;  // under mutex; some may have gone
  std::uint64_t made = 0;                           // under mutex; the same on all ranks
};

/// A window whose own value is a tensor, which update changes in place. Calls that do not wait are
/// carried out by the group's queue; others by the caller, after those of this window that are in
/// the queue. On a GPU a call reads what the current stream has been given before, and is over when
/// the GPU has done it. Thread-safe.
class TensorWindow {
 public:
  using Handle = std::shared_future<void>;
  using Edges = std::vector<Edge>;

  struct Options {
    bool require_mutex;
    bool async;
  };

  TensorWindow(at::Tensor tensor, std::shared_ptr<window::Window> window,
               std::shared_ptr<window::Queue> queue, std::chrono::milliseconds timeout);
  ~TensorWindow();

  /// Throws Error(kUsage) or TypeError for a tensor that cannot be a window's value.
  static void check(const at::Tensor& tensor, const std::string& window);

  const at::Tensor& tensor() const { return tensor_; }

  /// A handle if async, else none. `x` has the window's dtype and shape.
  std::optional<Handle> send(window::Sending kind, const at::Tensor& x, Edges to,
                             double self_weight, Options options);
  std::optional<Handle> get(Edges from, Options options);

  /// Returns the window's tensor, or, to clone, a new one.
  at::Tensor update(double self_weight, const Edges& from, bool reset, bool clone,
                    bool require_mutex);

  std::pair<at::Tensor, double> value_of(int rank);
  std::pair<at::Tensor, double> outstanding(int rank);

  void lock(bool as_owner, const std::vector<int>& ranks);
  void unlock(bool as_owner, const std::vector<int>& ranks);
  void free();
  void close();

  /// What needs no tensor.
  window::Window& window() { return *window_; }

  /// Waits for the calls of this window that are queued.
  void drain();

  /// And until what they have sent is in the mailboxes; as Window::flush.
  void flush();

 private:
  window::Call call(bool require_mutex) const;
  std::byte* data_of(const at::Tensor& x) const;
  std::optional<Handle> run(std::function<void()> call, bool async);
  void leave_queue();

  const at::Tensor tensor_;
  const at::ScalarType dtype_;
  const std::vector<int64_t> sizes_;
  const std::shared_ptr<window::Window> window_;
  const std::shared_ptr<window::Queue> queue_;
  const std::chrono::milliseconds timeout_;
  std::optional<c10::Stream> side_;  // for the queue's calls; none on the CPU

  std::mutex mutex_;
  Handle last_;        // under mutex_: what was queued last
  bool left_ = false;  // under mutex_: the queue has been released
};

}  // namespace bluefog
