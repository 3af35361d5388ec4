// Which process this is, without a system call.
#pragma once

#include <pthread.h>
#include <unistd.h>

#include <atomic>

namespace bluefog {

inline std::atomic<pid_t> known_process_id{0};

/// What getpid() returns, which asks the kernel each time; this one asks once per process.
inline pid_t process_id() {
  pid_t id = known_process_id.load(std::memory_order_relaxed);
  if (id == 0) {
    [[maybe_unused]] static const int registered =
        pthread_atfork(nullptr, nullptr, [] { known_process_id.store(0); });
    id = ::getpid();
    known_process_id.store(id, std::memory_order_relaxed);
  }
  return id;
}

}  // namespace bluefog
