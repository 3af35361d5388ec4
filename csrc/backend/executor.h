// Runs operations among ranks, one at a time and in the order of submission.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>
#include <vector>

#include "backend/sink.h"
#include "transport/transport.h"

namespace bluefog {

/// What goes out in one exchange, and where what arrives goes.
struct Stage {
  Payload payload;
  std::unique_ptr<Sink> sink;
};

/// One operation with all that it needs; tensors it refers to are kept alive by `done`.
struct Task : Stage {
  Frame frame;  // the executor fills in its numbers
  std::shared_ptr<const Plan> plan;
  std::optional<Stage> then;  // a second exchange, begun once the first one has succeeded
  std::chrono::milliseconds timeout;

  /// Called once, before the next task begins; null for success. Must not throw, nor start tasks.
  std::function<void(std::exception_ptr)> done;

  /// Called after `done`, if given; may start tasks and wait for them. Must not throw.
  std::function<void()> after;
};

/// Thread-safe. Owns the progress threads: one, which lives as long as the executor and carries
/// this rank's sign of life, and others that take over while it is in some task's `after`.
class Executor {
 public:
  /// The transport belongs to the caller and outlives the executor.
  explicit Executor(Transport* transport);
  ~Executor();  // shuts down

  /// Queues a task; `done` is called from a progress thread, after a shutdown from this one.
  void submit(Task task);

  /// Runs a task and returns when `done` has been called: on the calling thread where nothing is
  /// queued, which saves two thread switches.
  void run(Task task);

  /// Fails all pending and later tasks with kAborted and ends the progress threads. May be called
  /// twice and by several threads, but not from a task's `done` or `after`.
  void shutdown();

  /// Neighbor operations submitted so far, the number of the last one; collectives the same.
  std::uint64_t sequence() const { return counts_[0].load(std::memory_order_relaxed); }
  std::uint64_t collectives() const { return counts_[1].load(std::memory_order_relaxed); }

  /// Payload bytes that neighbor operations have sent, counted once per destination.
  std::uint64_t bytes_sent() const { return bytes_sent_.load(std::memory_order_relaxed); }

 private:
  bool stopping() const;
  void start_thread();
  void loop();
  void enlist(Task& task);
  std::function<void()> perform_next(std::unique_lock<std::mutex>& lock);
  void hand_over();
  void perform(Task& task);
  void run_stages(Task& task);
  void exchange(const Request& request, Sink& sink);
  void withdraw(Request request) noexcept;

  Transport* const transport_;
  std::atomic<std::uint64_t> bytes_sent_{0};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> queue_;                  // under mutex_
  bool busy_ = false;                       // under mutex_: some thread performs a task
  bool stopping_ = false;                   // under mutex_
  std::atomic<std::uint64_t> counts_[2]{};  // written under mutex_
  std::uint64_t next_exchange_ = 1;         // under mutex_
  int idle_ = 0;                            // under mutex_: threads that wait for a task
  std::vector<std::thread> threads_;        // under mutex_
  std::mutex join_mutex_;                   // of who joins them
};

}  // namespace bluefog
