// The thread that carries out calls that their caller does not wait for, in their order.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <future>
#include <mutex>
#include <thread>

#include "base/process.h"

namespace bluefog::window {

/// Thread-safe. The thread starts with the first call and ends with the last window.
class Queue {
 public:
  ~Queue() { shutdown(); }

  /// The future has the call's error, if any, and is ready when all before it are. Requires a
  /// window that is retained.
  std::shared_future<void> submit(std::function<void()> call);

  /// Of windows: the thread ends when as many were released as retained. Not from the thread.
  void retain();
  void release();

  /// Carries out what is queued and ends the thread. The calls of closed windows fail at once.
  void shutdown();

  bool running() const;

 private:
  void loop();

  const int pid_ = process_id();  // a forked child has no such thread
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::packaged_task<void()>> calls_;  // under mutex_
  int windows_ = 0;                               // under mutex_
  bool stopping_ = false;                         // under mutex_
  std::thread thread_;                            // under mutex_
};

}  // namespace bluefog::window
