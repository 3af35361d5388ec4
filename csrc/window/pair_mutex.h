// A mutex between two ranks: the owner of a mailbox and the one who writes it. (Two writers have
// mailboxes of their own and nothing to exclude each other from.)
//
// Peterson's algorithm: each side says that it wants the mutex and lets the other one go first; it
// has it when the other does not want it, or has let it go first as well, later. So a side that
// lets go cannot take the mutex twice while the other waits. Of a side whose process has ended the
// wish is void: robust without a list of what the dead held.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>

#include "base/deadline.h"

namespace bluefog::window {

enum class Side : std::uint32_t { kOwner = 0, kWriter = 1 };

/// In shared memory, all zeros at first.
struct alignas(64) PairMutex {
  std::atomic<std::uint32_t> wants[2];
  std::atomic<std::uint32_t> first;  // the side that may go first
  std::atomic<std::uint32_t> bell;   // futex word; counts up at whatever may end a wait

  enum class Outcome { kTaken, kLate, kGivenUp };

  /// Takes the mutex; one thread of each side at a time. `gone` says whether the other side has
  /// ended, `give_up` whether this wait is to end; both are called at least every 20 ms.
  Outcome lock(Side side, const Deadline& deadline, const std::function<bool()>& gone,
               const std::function<bool()>& give_up);
  void unlock(Side side);

  /// The steps of lock(), for a side that may not wait: it asks once, and has the mutex when it may
  /// enter.
  void ask(Side side);
  bool may_enter(Side side) const;
};

}  // namespace bluefog::window
