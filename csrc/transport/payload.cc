#include "transport/payload.h"

#include <algorithm>
#include <cstring>

namespace bluefog {

void Payload::add(const void* data, std::size_t nbytes) {
  const std::size_t offset = (nbytes_ + kAlignment - 1) / kAlignment * kAlignment;
  segments_.push_back({static_cast<const std::byte*>(data), nbytes, offset});
  nbytes_ = offset + nbytes;
}

void Payload::copy(std::size_t offset, std::size_t size, std::byte* to) const {
  const std::size_t end = offset + size;
  auto segment = std::partition_point(segments_.begin(), segments_.end(), [&](const Segment& s) {
    return s.offset + s.nbytes <= offset;
  });
  for (; segment != segments_.end() && segment->offset < end; ++segment) {
    const std::size_t from = std::max(offset, segment->offset);
    const std::size_t until = std::min(end, segment->offset + segment->nbytes);
    if (until > from) {
      std::memcpy(to + (from - offset), segment->data + (from - segment->offset), until - from);
    }
  }
}

}  // namespace bluefog
