#include "transport/payload.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "traffic.h"

namespace bluefog::test {
namespace {

constexpr std::byte kUntouched{0xee};

// Bytes [offset, offset + size) of the stream, where copy() leaves padding as it was.
Bytes copied(const Payload& payload, std::size_t offset, std::size_t size) {
  Bytes bytes(size, kUntouched);
  payload.copy(offset, size, bytes.data());
  return bytes;
}

// The whole stream, built the slow way.
Bytes stream_of(const Payload& payload) {
  Bytes stream(payload.nbytes(), kUntouched);
  for (const auto& segment : payload.segments()) {
    std::copy_n(segment.data, segment.nbytes, stream.begin() + segment.offset);
  }
  return stream;
}

TEST(PayloadTest, IsEmptyAtFirst) {
  const Payload payload;
  EXPECT_EQ(payload.nbytes(), 0u);
  EXPECT_TRUE(copied(payload, 0, 0).empty());
}

TEST(PayloadTest, SegmentsStartAtMultiplesOfTheAlignment) {
  const Bytes data(200);
  Payload payload;
  for (std::size_t nbytes : {1, 64, 0, 65, 0, 3}) payload.add(data.data(), nbytes);
  std::vector<std::size_t> offsets;
  for (const auto& segment : payload.segments()) offsets.push_back(segment.offset);
  EXPECT_EQ(offsets, (std::vector<std::size_t>{0, 64, 128, 128, 256, 256}));
  EXPECT_EQ(payload.nbytes(), 259u);
}

TEST(PayloadTest, PaddingIsNotAddedAtTheEnd) {
  const Bytes data(100);
  Payload payload;
  payload.add(data.data(), 100);
  EXPECT_EQ(payload.nbytes(), 100u);
  payload.add(data.data(), 0);  // its place begins after the padding
  EXPECT_EQ(payload.nbytes(), 128u);
}

TEST(PayloadTest, AnEmptySegmentMayHaveNoData) {
  const Bytes data = pattern(0, 0, 10);
  Payload payload;
  payload.add(nullptr, 0);
  payload.add(data.data(), 10);
  payload.add(nullptr, 0);
  EXPECT_EQ(copied(payload, 0, 10), data);
  EXPECT_EQ(copied(payload, 0, payload.nbytes()).at(10), kUntouched);
}

TEST(PayloadTest, CopiesEveryRangeOfTheStream) {
  const Bytes first = pattern(1, 0, 70);
  const Bytes second = pattern(2, 0, 64);
  const Bytes third = pattern(3, 0, 5);
  Payload payload;
  payload.add(first.data(), first.size());
  payload.add(second.data(), second.size());
  payload.add(nullptr, 0);
  payload.add(third.data(), third.size());
  const Bytes stream = stream_of(payload);
  ASSERT_EQ(stream.size(), 197u);
  for (std::size_t offset = 0; offset <= stream.size(); ++offset) {
    for (std::size_t size = 0; offset + size <= stream.size(); ++size) {
      const Bytes expected(stream.begin() + offset, stream.begin() + offset + size);
      ASSERT_EQ(copied(payload, offset, size), expected) << offset << " + " << size;
    }
  }
}

TEST(PayloadTest, ReadsTheMemoryWhenCopying) {
  Bytes data(8, std::byte{1});
  Payload payload;
  payload.add(data.data(), data.size());
  data.assign(8, std::byte{2});
  EXPECT_EQ(copied(payload, 0, 8), data);
}

TEST(PieceTest, IsAsLongAsItsLongestSource) {
  const Bytes data(10);
  Piece piece;
  EXPECT_EQ(piece.size(), 0u);
  piece.sources = {{data.data(), 3}, {data.data(), 10}, {}};
  EXPECT_EQ(piece.size(), 10u);
}

}  // namespace
}  // namespace bluefog::test
