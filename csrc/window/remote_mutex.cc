#include "window/remote_mutex.h"

namespace bluefog::window {

void RemoteMutex::ask(std::uint64_t ticket) {
  const std::lock_guard lock(state_);
  ticket_ = ticket;
  granted_ = false;
  mutex_.ask(Side::kWriter);
  look_locked();
}

void RemoteMutex::give(std::uint64_t ticket) {
  const std::lock_guard lock(state_);
  if (ticket_ == 0 || ticket != ticket_) return;
  ticket_ = 0;
  mutex_.unlock(Side::kWriter);
}

void RemoteMutex::give() {
  const std::lock_guard lock(state_);
  if (ticket_ == 0) return;
  ticket_ = 0;
  mutex_.unlock(Side::kWriter);
}

void RemoteMutex::look() {
  const std::lock_guard lock(state_);
  look_locked();
}

// The writer's turn, once it has come, stays until it gives the mutex back. An owner that gives it
// back looks here afterwards; so one of the two looks sees that the turn has come.
void RemoteMutex::look_locked() {
  if (ticket_ == 0 || granted_ || !mutex_.may_enter(Side::kWriter)) return;
  granted_ = true;
  grant_(ticket_);
}

}  // namespace bluefog::window
