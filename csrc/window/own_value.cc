#include "window/own_value.h"

#include <cstring>

namespace bluefog::window {
namespace {

using Word = std::uint64_t;

// A value may end in the middle of a word, and begin anywhere: it is the user's.
void store_words(std::byte* to, const std::byte* from, std::size_t nbytes) {
  auto* words = reinterpret_cast<Word*>(to);
  for (std::size_t at = 0; at < nbytes; at += sizeof(Word)) {
    Word word = 0;
    if (nbytes - at >= sizeof(Word)) {
      std::memcpy(&word, from + at, sizeof(Word));
    } else {
      std::memcpy(&word, from + at, nbytes - at);
    }
    std::atomic_ref(*words++).store(word, std::memory_order_relaxed);
  }
}

void load_words(std::byte* to, std::byte* from, std::size_t nbytes) {
  auto* words = reinterpret_cast<Word*>(from);
  for (std::size_t at = 0; at < nbytes; at += sizeof(Word)) {
    const Word word = std::atomic_ref(*words++).load(std::memory_order_relaxed);
    std::memcpy(to + at, &word, sizeof(Word));
  }
}

}  // namespace

void OwnValue::publish(const std::byte* x, double p) const {
  const std::uint64_t k = control->latest.load(std::memory_order_relaxed) + 1;
  OwnValueControl::Slot& into = slot(k);
  into.stamp.store(0, std::memory_order_relaxed);
  // Pairs with the fence in read(): who copies any of the new words sees that the stamp is gone.
  std::atomic_thread_fence(std::memory_order_release);
  store_words(buffer(k), x, nbytes);
  into.p.store(p, std::memory_order_relaxed);
  into.stamp.store(k, std::memory_order_release);       // pairs with the first look at the stamp
  control->latest.store(k, std::memory_order_release);  // pairs with the load in read()
}

double OwnValue::read(std::byte* to) const {
  while (true) {
    const std::uint64_t k = control->latest.load(std::memory_order_acquire);
    const OwnValueControl::Slot& from = slot(k);
    if (from.stamp.load(std::memory_order_acquire) != k) continue;
    load_words(to, buffer(k), nbytes);
    const double p = from.p.load(std::memory_order_relaxed);
    std::atomic_thread_fence(std::memory_order_acquire);
    if (from.stamp.load(std::memory_order_relaxed) == k) return p;
  }
}

}  // namespace bluefog::window
