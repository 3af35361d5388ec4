// The bytes that one rank sends in one exchange: a list of memory segments read as one stream.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace bluefog {

class Payload {
 public:
  /// Segments start at multiples of this in the stream, so that elements of mixed dtypes stay
  /// aligned.
  static constexpr std::size_t kAlignment = 64;

  struct Segment {
    const std::byte* data;
    std::size_t nbytes;
    std::size_t offset;  // in the stream
  };

  /// Appends a segment. The memory belongs to the caller and outlives the exchange.
  void add(const void* data, std::size_t nbytes);

  /// Whether what neighbours use of it stays unchanged until the exchange ends, so that they may
  /// read it in place. Otherwise a range may change once the same range of the sources has arrived.
  bool steady = false;

  const std::vector<Segment>& segments() const { return segments_; }

  /// Length of the stream, padding included.
  std::size_t nbytes() const { return nbytes_; }

  /// Copies bytes [offset, offset + size) of the stream to `to`; padding is left as it was.
  /// Requires offset + size <= nbytes().
  void copy(std::size_t offset, std::size_t size, std::byte* to) const;

 private:
  std::vector<Segment> segments_;
  std::size_t nbytes_ = 0;
};

}  // namespace bluefog
