#include "nccl/turns.h"

#include <chrono>

namespace emulator::nccl {
namespace {

constexpr std::chrono::milliseconds kLook{10};  // for an abort

}  // namespace

Turns::Ticket Turns::draw() {
  const std::lock_guard lock(mutex_);
  return drawn_++;
}

void Turns::begin(std::optional<Ticket> ticket, const Stop& stop) {
  std::unique_lock lock(mutex_);
  while (!stop() && (running_ > 0 || (ticket && *ticket != next_))) changed_.wait_for(lock, kLook);
  ++running_;
}

void Turns::end(std::optional<Ticket> ticket) {
  {
    const std::lock_guard lock(mutex_);
    --running_;
    if (ticket) ++next_;
  }
  changed_.notify_all();
}

}  // namespace emulator::nccl
