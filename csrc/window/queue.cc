#include "window/queue.h"

#include <pthread.h>

#include <utility>

namespace bluefog::window {

std::shared_future<void> Queue::submit(std::function<void()> call) {
  std::packaged_task<void()> task(std::move(call));
  std::shared_future<void> done = task.get_future().share();
  {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [this] { return !stopping_; });
    calls_.push_back(std::move(task));
    if (!thread_.joinable()) thread_ = std::thread([this] { loop(); });
  }
  changed_.notify_all();
  return done;
}

void Queue::loop() {
  ::pthread_setname_np(::pthread_self(), "bluefog windows");
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !calls_.empty(); });
    if (calls_.empty()) return;
    auto call = std::move(calls_.front());
    calls_.pop_front();
    lock.unlock();
    call();
    call = {};  // lets go of what it holds
    lock.lock();
  }
}

void Queue::retain() {
  const std::lock_guard lock(mutex_);
  ++windows_;
}

void Queue::release() {
  if (process_id() != pid_) return;
  bool last = false;
  {
    const std::lock_guard lock(mutex_);
    last = --windows_ == 0;
  }
  if (last) shutdown();
}

void Queue::shutdown() {
  if (process_id() != pid_) {
    new std::thread(std::move(thread_));  // neither to be joined nor to be destroyed
    return;
  }
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    if (!thread_.joinable()) return;
    stopping_ = true;
    thread = std::move(thread_);
  }
  changed_.notify_all();
  thread.join();
  {
    const std::lock_guard lock(mutex_);
    stopping_ = false;
  }
  changed_.notify_all();
}

bool Queue::running() const {
  const std::lock_guard lock(mutex_);
  return thread_.joinable();
}

}  // namespace bluefog::window
