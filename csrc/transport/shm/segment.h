// One rank's shared memory: what it publishes to the neighbours of its host, and how far it has
// read theirs.
//
//   Control | released[size] | barred[size] | kHellos greetings | ring of chunks | heap
//
// A segment is a sealed memfd: it has no name (nothing is left after a crash, nobody can open it
// uninvited), is not limited by /dev/shm, and cannot be truncated under a reader. Its owner writes
// everything in it except the doorbell, which others write too.
#pragma once

#include <pthread.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "transport/frame.h"
#include "transport/shm/memory.h"

namespace bluefog::shm {

constexpr std::size_t kPage = 4096;

/// Progress in a rank's stream of exchanges: exchange `sequence`, of which `step` units are done.
/// Positions of one rank only grow. Step 1 of a publisher is its greeting, step 1 + c its c-th
/// chunk; step c of a reader is the c-th chunk read; {sequence + 1, 0} is all of `sequence`.
constexpr std::uint64_t position(std::uint64_t sequence, std::uint64_t step) {
  return sequence << 24 | step;
}

/// Greetings kept: a rank can be this many exchanges ahead of a neighbour that has not read its
/// greeting.
constexpr std::uint64_t kHellos = 8;

struct alignas(64) Counter {
  std::atomic<std::uint64_t> value{0};
};

/// Wakes the rank that owns the segment; see Waiter.
struct alignas(64) Doorbell {
  static constexpr std::int32_t kNobody = -1;
  std::atomic<std::uint32_t> rings{0};
  std::atomic<std::int32_t> awaits{kNobody};  // the rank for which the sleeping owner waits
};

struct Control {
  std::uint64_t magic;
  std::uint32_t rank;
  std::uint32_t size;
  std::uint64_t chunk_bytes;
  std::uint64_t chunks;
  std::uint64_t heap_bytes;
  Doorbell bell;
  Counter published;  // release by the owner after data; acquire by readers before data
  std::atomic<std::uint32_t> left;  // the owner has said goodbye
  pthread_mutex_t
      life;  // robust; held by the owner's progress thread for as long as the group lives
};

/// A greeting slot: the frame, and behind it one EdgeView per rank. Of ranks that are no neighbours
/// in this operation it holds what an earlier one left there.
struct EdgeView {
  std::atomic<std::uint64_t> sequence;  // of the operation that this belongs to
  double weight;
  std::uint32_t sends;
  std::uint32_t receives;
  std::atomic<std::uint32_t> cut;  // the owner has taken that rank out of this operation
};

struct Hello {
  static constexpr std::uint64_t kNotLent = ~std::uint64_t{0};
  std::atomic<std::uint64_t> sequence;
  std::uint64_t first_chunk;  // of the payload, in the ring
  std::uint64_t lent;         // where the payload lies in the heap, and is all there; or kNotLent
  Frame frame;
};

/// A mapping of a segment, one's own or a peer's.
class Segment {
 public:
  /// Makes a new, empty, sealed segment. Throws Error(kSystem).
  static Segment create(int rank, int size, std::size_t chunk_bytes, std::size_t chunks,
                        std::size_t heap_bytes = 0);

  /// Maps a segment received from another process. Throws Error(kSystem) when it is not what rank
  /// `rank` of a group of `size` would have made.
  static Segment map(UniqueFd fd, int rank, int size);

  int fd() const { return memory_.fd(); }  // of one's own; a peer's is closed once it is mapped
  Control& control() const { return *reinterpret_cast<Control*>(memory_.data()); }
  Counter& released(int peer) const;  // how far the owner has read `peer`'s stream
  Counter& barred(
      int peer) const;  // before this position the owner's stream is no longer `peer`'s to read
  Hello& hello(std::uint64_t sequence) const;
  EdgeView& edge(std::uint64_t sequence, int peer) const;
  std::byte* chunk(std::uint64_t index) const;  // index counts all chunks ever published
  std::byte* heap(std::size_t offset) const;
  std::size_t heap_bytes() const { return heap_bytes_; }
  bool heap_has(std::size_t offset, std::size_t nbytes) const {
    return nbytes <= heap_bytes_ && offset <= heap_bytes_ - nbytes;
  }

  /// Whether the owner's process or progress thread ended without a goodbye.
  bool owner_died() const;
  bool owner_left() const { return control().left.load(std::memory_order_acquire) != 0; }

  /// Called by the owner's progress thread at its start and end.
  void hold_life() const;
  void say_goodbye() const;

 private:
  explicit Segment(Memory memory) : memory_(std::move(memory)) {}
  std::size_t hello_stride() const;

  Memory memory_;
  int size_ = 0;
  std::size_t chunk_bytes_ = 0;
  std::size_t chunks_ = 0;
  std::size_t heap_bytes_ = 0;
};

}  // namespace bluefog::shm
