// Memory of the user's that neighbours can read in place: blocks of the heap at the end of a rank's
// segment.
//
// The heap is as large as the address space allows and costs nothing until it is written: the
// kernel gives pages to a memfd at their first use, and takes those of a freed block back. All
// neighbours have mapped it from the start, so that a block needs no word between ranks.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>

#include "transport/shm/segment.h"

namespace bluefog::shm {

/// Thread-safe.
class Heap : public std::enable_shared_from_this<Heap> {
 public:
  /// Keeps the segment mapped for as long as there are blocks.
  explicit Heap(std::shared_ptr<const Segment> segment);

  /// Returns `nbytes` of zeros at the start of a page, or null where no room is left. The block is
  /// freed with the last copy of the pointer.
  std::shared_ptr<std::byte> allocate(std::size_t nbytes);

  /// The place in the heap of memory that lies in it as a whole.
  std::optional<std::size_t> offset_of(const std::byte* data, std::size_t nbytes) const;

 private:
  void free(std::size_t offset);

  const std::shared_ptr<const Segment> segment_;
  std::mutex mutex_;
  std::map<std::size_t, std::size_t> taken_;  // offset -> bytes, both multiples of a page
};

}  // namespace bluefog::shm
