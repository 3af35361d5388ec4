// The mutex of a mailbox whose writer is in another process that shares no memory: at the owner,
// the service's thread takes the writer's side.
#pragma once

#include <functional>
#include <mutex>

#include "window/pair_mutex.h"

namespace bluefog::window {

/// Thread-safe. Each wish has a ticket, from 1, so that words that cross on the way are told apart.
class RemoteMutex {
 public:
  /// `grant` tells the writer that it has the mutex.
  RemoteMutex(PairMutex& mutex, std::function<void(std::uint64_t ticket)> grant)
      : mutex_(mutex), grant_(std::move(grant)) {}

  /// The writer asks for the mutex, or gives it, or its wish for it, back.
  void ask(std::uint64_t ticket);
  void give(std::uint64_t ticket);

  /// The writer was lost.
  void give();

  /// The owner has given the mutex back.
  void look();

 private:
  void look_locked();

  PairMutex& mutex_;
  const std::function<void(std::uint64_t)> grant_;
  std::mutex state_;
  std::uint64_t ticket_ = 0;  // under state_: of the writer's wish, 0: none
  bool granted_ = false;      // under state_
};

}  // namespace bluefog::window
