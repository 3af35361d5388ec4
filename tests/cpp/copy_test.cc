#include "kernels/copy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace bluefog::test {
namespace {

constexpr std::byte kUntouched{0xEE};

std::vector<std::byte> counting(std::size_t n) {
  std::vector<std::byte> bytes(n);
  for (std::size_t i = 0; i < n; ++i) bytes[i] = std::byte(i * 7 + i / 251);
  return bytes;
}

TEST(Copy, WritesItsBytesAndNoOthers) {
  const auto from = counting(1000);
  for (Store store : {Store::kCached, Store::kStreaming}) {
    for (std::size_t shift : {0, 1, 7, 16, 33, 63}) {
      for (std::size_t source : {0, 3, 32}) {
        for (std::size_t nbytes : {0, 1, 15, 16, 63, 64, 65, 127, 128, 190, 512, 900}) {
          std::vector<std::byte> to(1000, kUntouched);
          copy(to.data() + shift, from.data() + source, nbytes, store);
          auto expected = std::vector<std::byte>(1000, kUntouched);
          std::copy_n(from.begin() + source, nbytes, expected.begin() + shift);
          ASSERT_EQ(to, expected) << nbytes << " bytes from " << source << " to " << shift;
        }
      }
    }
  }
}

TEST(Copy, OfNothingMayHaveNoPlace) { copy(nullptr, nullptr, 0, Store::kStreaming); }

TEST(Copy, ResultsThatDoNotStayInTheCacheAreStreamed) {
  EXPECT_EQ(store_for(0), Store::kCached);
  EXPECT_EQ(store_for(4 << 20), Store::kCached);
  EXPECT_EQ(store_for((4 << 20) + 1), Store::kStreaming);
}

}  // namespace
}  // namespace bluefog::test
