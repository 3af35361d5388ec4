#include "transport/shm/heap.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <utility>

namespace bluefog::shm {

Heap::Heap(std::shared_ptr<const Segment> segment) : segment_(std::move(segment)) {}

// The first gap that is large enough: blocks are few, large and long-lived.
std::shared_ptr<std::byte> Heap::allocate(std::size_t nbytes) {
  if (!segment_->heap_has(0, nbytes)) {
    return nullptr;  // rounded up, a huge number would be none at all
  }
  const std::size_t size = (std::max<std::size_t>(nbytes, 1) + kPage - 1) / kPage * kPage;
  std::lock_guard lock(mutex_);
  std::size_t offset = 0;
  for (const auto& [begin, length] : taken_) {
    if (begin - offset >= size) break;
    offset = begin + length;
  }
  if (!segment_->heap_has(offset, size)) {
    return nullptr;
  }
  taken_[offset] = size;
  return {segment_->heap(offset),
          [self = shared_from_this(), offset](std::byte*) { self->free(offset); }};
}

void Heap::free(std::size_t offset) {
  std::lock_guard lock(mutex_);
  const auto block = taken_.find(offset);
  if (::madvise(segment_->heap(offset), block->second, MADV_REMOVE) != 0) {  // locked memory, say
    std::memset(segment_->heap(offset), 0, block->second);
  }
  taken_.erase(block);
}

std::optional<std::size_t> Heap::offset_of(const std::byte* data, std::size_t nbytes) const {
  const std::byte* begin = segment_->heap(0);
  if (data < begin || !segment_->heap_has(data - begin, nbytes)) {
    return std::nullopt;
  }
  return data - begin;
}

}  // namespace bluefog::shm
