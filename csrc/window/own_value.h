// The value that a rank shows to all others: one writer, any number of readers, none of whom waits.
//
// Three buffers take turns. Publication k goes to buffer k % 3, whose stamp is 0 while it is being
// written and k afterwards. A reader copies the latest and looks at the stamp again: if it has
// changed, the writer has overtaken it by two publications in the meantime, and it copies anew.
// The latest publication is whole also after the writer was killed.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "window/arithmetic.h"

namespace bluefog::window {

/// All zeros at first.
struct OwnValueControl {
  static constexpr std::uint64_t kBuffers = 3;

  struct alignas(64) Slot {
    std::atomic<std::uint64_t> stamp{0};
    std::atomic<double> p{0};
  };

  alignas(64) std::atomic<std::uint64_t> latest{0};  // 0: nothing has been published
  std::array<Slot, kBuffers> slots;
};

/// In mapped memory, as either side sees it. Buffers and copies are aligned to 8 bytes and have
/// room for whole words.
struct OwnValue {
  OwnValueControl* control;
  std::byte* data;     // kBuffers buffers
  std::size_t stride;  // from one to the next, a multiple of 8
  std::size_t nbytes;  // of a value
  const Arithmetic* arithmetic = &host_arithmetic();

  /// By the owner, one thread at a time. `x` has exactly nbytes.
  void publish(const std::byte* x, double p) const;

  /// Copies the latest value to `to`, which has `stride` bytes, and returns its p. Requires that
  /// something has been published.
  double read(std::byte* to) const;

 private:
  OwnValueControl::Slot& slot(std::uint64_t k) const {
    return control->slots[k % control->kBuffers];
  }
  std::byte* buffer(std::uint64_t k) const { return data + k % control->kBuffers * stride; }
};

}  // namespace bluefog::window
