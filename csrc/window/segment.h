// One rank's part of a window: the value that it shows to others, a mailbox for
// each of its in-neighbours, and a mutex for each rank.
//
//   Control | mutexes[size] | slots[size] | mailboxes | values: 3 own, then 4 per mailbox
//
// The values may lie apart from it: see use().
#pragma once

#include <vector>

#include "base/dtype.h"
#include "transport/shm/memory.h"
#include "window/mailbox.h"
#include "window/own_value.h"
#include "window/pair_mutex.h"

namespace bluefog::window {

/// What all ranks know of a window.
struct Shape {
  int size;  // ranks in the group
  DType dtype;
  std::size_t nbytes;  // of a value
  bool readable;       // whether ranks show their values
  bool apart = false;  // whether values lie outside of the segments, in memory of a device
};

/// A rank frees a window when its neighbours are leaving as well: until then they may still write.
enum class Life : std::uint32_t { kOpen, kLeaving, kClosed };

class Segment {
 public:
  /// In memory that others of this host can map if it is `shared`. Throws Error(kSystem).
  static Segment create(int rank, const Shape& shape, const std::vector<int>& in_neighbors,
                        bool shared = true);

  /// Maps what `rank` has made. Throws Error(kSystem) where that is no part of this window.
  static Segment map(UniqueFd fd, int rank, const Shape& shape);

  /// What works on the values, by the calls of this process, and where these are, for those that
  /// lie apart. Before the first use.
  void use(const Arithmetic* arithmetic, Bytes values);

  /// Bytes of the values of a rank with so many in-neighbours.
  static std::size_t value_bytes(const Shape& shape, std::size_t in_degree);

  int fd() const { return memory_.fd(); }  // -1 if it is not shared
  std::size_t nbytes() const;              // with the values

  /// Requires a window that is readable.
  OwnValue own() const;

  bool has_mailbox_of(int writer) const { return slots()[writer] >= 0; }
  Mailbox mailbox_of(int writer) const;
  PairMutex& mutex_of(int writer) const;

  /// Of the owner: kOpen -> kLeaving -> kClosed.
  std::atomic<Life>& life() const { return control().life; }

 private:
  struct Control {
    std::uint64_t magic;
    std::uint32_t rank;
    std::uint32_t size;
    std::uint32_t in_degree;
    std::uint32_t dtype;
    std::uint64_t nbytes;
    std::atomic<Life> life;
    OwnValueControl own;
  };

  Segment(shm::Memory memory, const Shape& shape) : memory_(std::move(memory)), shape_(shape) {}

  static std::size_t slots_at(int size);
  static std::size_t mailboxes_at(int size);
  static std::size_t values_at(int size, std::size_t in_degree);
  static std::size_t total(const Shape& shape, std::size_t in_degree);

  Control& control() const { return *reinterpret_cast<Control*>(memory_.data()); }
  std::int32_t* slots() const;
  MailboxControl* mailboxes() const;
  std::byte* value(std::size_t index) const;

  shm::Memory memory_;
  Shape shape_;
  const Arithmetic* arithmetic_ = &host_arithmetic();
  Bytes values_;                   // those that lie apart
  std::shared_ptr<void> reached_;  // goes before memory_
};

}  // namespace bluefog::window
