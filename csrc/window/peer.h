// A neighbour in a window, as this rank reaches it: through memory that both of them map
// (host_peer.h), or by messages (remote_peer.h).
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <mutex>
#include <utility>

#include "base/deadline.h"
#include "window/outbox.h"
#include "window/pair_mutex.h"
#include "window/segment.h"

namespace bluefog::window {

struct OutStatistics {
  int rank;
  std::uint64_t puts = 0;
  std::uint64_t accumulates = 0;
};

/// For one thread at a time, but for what says otherwise.
class Peer {
 public:
  explicit Peer(int rank) : statistics{rank} {}
  virtual ~Peer() = default;

  // ---- This rank's mailbox there, where the peer is an out-neighbour

  /// Into the mailbox: weight * x and p. Waits for nobody.
  virtual void send(Sending kind, const std::byte* x, double weight, double p) = 0;

  /// Writes to `y` what has been sent and not collected, as far as is known, and returns its p.
  virtual double outstanding(std::byte* y) = 0;

  /// Waits until all that was sent is in the mailbox; false at the deadline. Throws
  /// Error(kPeerLost) where it will never be. Any thread.
  virtual bool flush(const Deadline&) { return true; }

  /// The mutex of the mailbox. Any thread.
  virtual PairMutex::Outcome lock(const Deadline& deadline, const std::function<bool()>& gone,
                                  const std::function<bool()>& give_up) = 0;
  virtual void unlock() = 0;

  // ---- What the peer shows

  /// Copies it to `to`, which has room for whole words (OwnValue), and returns its p. Throws
  /// Error(kPeerLost), Error(kTimeout), Error(kAborted).
  virtual double read(std::byte* to, const Deadline& deadline) = 0;

  /// How far it has got with freeing the window. Any thread.
  virtual Life life() const = 0;

  /// How it was lost, null while it lives; as far as its memory or connection tells. Any thread.
  virtual const char* lost() const { return nullptr; }

  // ---- What the peer has to hear, where it does not see it

  virtual void tell(Life) {}
  virtual void unlocked() {}  // the mutex of its mailbox here has been given back. Any thread.

  /// Nothing is put into its mailbox here while the lock lives; collected() belongs into that time.
  virtual std::unique_lock<std::mutex> pause() { return {}; }
  virtual void collected(std::uint64_t) {}  // all up to this record

  /// Ends all waits: this window closes. Any thread.
  virtual void interrupt() {}

  virtual std::size_t nbytes() const { return 0; }  // that this rank has for it beside mailboxes

  /// A buffer for what it shows: one that no mailbox holds any more, if there is one.
  const Bytes& room(std::size_t nbytes, const Arithmetic& arithmetic) {
    for (Bytes& buffer : buffers_) {
      if (buffer && buffer.use_count() == 1) return buffer;
    }
    std::swap(buffers_[0], buffers_[1]);
    return buffers_[0] = arithmetic.allocate(nbytes);
  }

  OutStatistics statistics;

 private:
  std::array<Bytes, 2> buffers_;
};

}  // namespace bluefog::window
