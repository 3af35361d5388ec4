// Runs neighbor operations, one at a time and in the order of submission.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "backend/sink.h"
#include "transport/transport.h"

namespace bluefog {

/// One neighbor operation with all that it needs; tensors it refers to are kept alive by `done`.
struct Task {
  Frame frame;  // its sequence is filled in by the executor
  std::shared_ptr<const Plan> plan;
  Payload payload;
  std::unique_ptr<Sink> sink;
  std::chrono::milliseconds timeout;
  std::function<void(std::exception_ptr)> done;  // called once, null for success; must not throw
};

/// Thread-safe. Owns the progress thread, which lives as long as the executor and carries this
/// rank's sign of life.
class Executor {
 public:
  /// The transport belongs to the caller and outlives the executor.
  explicit Executor(Transport* transport);
  ~Executor();  // shuts down

  /// Queues a task; `done` is called from the progress thread, after a shutdown from this one.
  void submit(Task task);

  /// Runs a task and returns when `done` has been called: on the calling thread where nothing is
  /// queued, which saves two thread switches.
  void run(Task task);

  /// Fails all pending and later tasks with kAborted and ends the progress thread. May be called
  /// twice and by several threads, but not from `done`.
  void shutdown();

  /// Tasks submitted so far: the sequence number of the last one.
  std::uint64_t sequence() const { return sequence_.load(std::memory_order_relaxed); }

  /// Payload bytes sent, counted once per destination.
  std::uint64_t bytes_sent() const { return bytes_sent_.load(std::memory_order_relaxed); }

 private:
  bool stopping() const;
  void loop();
  void perform(Task& task);
  void exchange(Task& task);

  Transport* const transport_;
  std::atomic<std::uint64_t> bytes_sent_{0};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> queue_;                  // under mutex_
  bool busy_ = false;                       // under mutex_: some thread performs a task
  bool stopping_ = false;                   // under mutex_
  std::atomic<std::uint64_t> sequence_{0};  // written under mutex_
  std::mutex join_mutex_;
  std::thread thread_;  // joined under join_mutex_
};

}  // namespace bluefog
