#include "window/own_value.h"

namespace bluefog::window {

void OwnValue::publish(const std::byte* x, double p) const {
  const std::uint64_t k = control->latest.load(std::memory_order_relaxed) + 1;
  OwnValueControl::Slot& into = slot(k);
  into.stamp.store(0, std::memory_order_relaxed);
  // Pairs with the fence in read(): who copies any of the new words sees that the stamp is gone.
  std::atomic_thread_fence(std::memory_order_release);
  arithmetic->show(buffer(k), x, nbytes);
  into.p.store(p, std::memory_order_relaxed);
  into.stamp.store(k, std::memory_order_release);       // pairs with the first look at the stamp
  control->latest.store(k, std::memory_order_release);  // pairs with the load in read()
}

double OwnValue::read(std::byte* to) const {
  while (true) {
    const std::uint64_t k = control->latest.load(std::memory_order_acquire);
    const OwnValueControl::Slot& from = slot(k);
    if (from.stamp.load(std::memory_order_acquire) != k) continue;
    arithmetic->look(to, buffer(k), nbytes);
    const double p = from.p.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (from.stamp.load(std::memory_order_relaxed) == k) return p;
  }
}

}  // namespace bluefog::window
