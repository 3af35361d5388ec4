// float16 and bfloat16 beside c10's conversions, which PyTorch uses.
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/combine.h"

namespace bluefog::test {
namespace {

using Bits = std::vector<std::uint16_t>;

// combine() of terms given by their bit patterns.
Bits combine_bits(DType dtype, const std::vector<Bits>& xs, const std::vector<double>& weights) {
  Bits y(xs[0].size());
  std::vector<Term> terms;
  for (std::size_t k = 0; k < xs.size(); ++k) {
    terms.push_back({reinterpret_cast<const std::byte*>(xs[k].data()), weights[k]});
  }
  combine(dtype, reinterpret_cast<std::byte*>(y.data()), terms, y.size() * 2);
  return y;
}

Bits every_pattern() {
  Bits all(65536);
  for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<std::uint16_t>(i);
  return all;
}

template <typename T>
float to_float(std::uint16_t bits) {
  return static_cast<float>(T(bits, T::from_bits()));
}

// Equal bits, or both NaN: which NaN is left open.
template <typename T>
void expect_same(std::uint16_t got, T expected, const std::string& of) {
  if (std::isnan(static_cast<float>(expected))) {
    ASSERT_TRUE(std::isnan(to_float<T>(got))) << of;
  } else {
    ASSERT_EQ(got, expected.x) << of;
  }
}

template <typename T>
constexpr DType kDType = std::is_same_v<T, c10::Half> ? DType::kFloat16 : DType::kBFloat16;

template <typename T>
class RoundingTest : public ::testing::Test {};
using Types = ::testing::Types<c10::Half, c10::BFloat16>;
TYPED_TEST_SUITE(RoundingTest, Types);

TYPED_TEST(RoundingTest, KeepsEveryValue) {
  const Bits all = every_pattern();
  const Bits y = combine_bits(kDType<TypeParam>, {all}, {1.0});
  for (std::size_t i = 0; i < all.size(); ++i) {
    expect_same(y[i], TypeParam(all[i], TypeParam::from_bits()), std::to_string(i));
  }
}

// With one element at a time, so that no vector instruction is used.
TYPED_TEST(RoundingTest, KeepsEveryValueInATail) {
  for (std::size_t i = 0; i < 65536; ++i) {
    const auto bits = static_cast<std::uint16_t>(i);
    expect_same(combine_bits(kDType<TypeParam>, {{bits}}, {1.0})[0],
                TypeParam(bits, TypeParam::from_bits()), std::to_string(i));
  }
}

// Half of every value: subnormals become ties, and their ties go to even.
TYPED_TEST(RoundingTest, HalvesEveryValue) {
  const Bits all = every_pattern();
  for (double weight : {0.5, 0.25, 1.0 / 3, 3.0}) {
    const Bits y = combine_bits(kDType<TypeParam>, {all}, {weight});
    for (std::size_t i = 0; i < all.size(); ++i) {
      const TypeParam expected(static_cast<float>(weight) * to_float<TypeParam>(all[i]));
      expect_same(y[i], expected, std::to_string(weight) + " * " + std::to_string(i));
    }
  }
}

// Sums of two values fall between two representable ones, often in the very middle.
TYPED_TEST(RoundingTest, RoundsSumsToNearestEven) {
  std::mt19937 random(3);
  Bits a(200000), b(a.size());
  for (std::size_t i = 0; i < a.size(); ++i) {
    a[i] = static_cast<std::uint16_t>(random());
    b[i] = static_cast<std::uint16_t>(a[i] ^ (random() & 0x83ff));  // of a similar magnitude
  }
  const Bits y = combine_bits(kDType<TypeParam>, {a, b}, {1.0, 0.5});
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float sum = to_float<TypeParam>(a[i]) + 0.5f * to_float<TypeParam>(b[i]);
    expect_same(y[i], TypeParam(sum), std::to_string(a[i]) + " and " + std::to_string(b[i]));
  }
}

TEST(RoundingByHandTest, TiesGoToEven) {
  // 1 + 2^-11 is in the middle of 1 and 1 + 2^-10; 1 + 3 * 2^-11 between odd and even.
  const Bits one{0x3c00}, step{0x1000};  // 1 and 2^-11 in float16
  EXPECT_EQ(combine_bits(DType::kFloat16, {one, step}, {1, 1})[0], 0x3c00);
  EXPECT_EQ(combine_bits(DType::kFloat16, {one, step}, {1, 3})[0], 0x3c02);
  // The same for bfloat16: 2^-8 is half of its last place at 1.
  const Bits bf_one{0x3f80}, bf_step{0x3b80};
  EXPECT_EQ(combine_bits(DType::kBFloat16, {bf_one, bf_step}, {1, 1})[0], 0x3f80);
  EXPECT_EQ(combine_bits(DType::kBFloat16, {bf_one, bf_step}, {1, 3})[0], 0x3f82);
}

TEST(RoundingByHandTest, OverflowsToInfinity) {
  EXPECT_EQ(combine_bits(DType::kFloat16, {{0x7bff}}, {2})[0], 0x7c00);  // 65504 * 2
  EXPECT_EQ(combine_bits(DType::kFloat16, {{0x7bff}}, {-2})[0], 0xfc00);
  EXPECT_EQ(combine_bits(DType::kBFloat16, {{0x7f7f}}, {1.01})[0], 0x7f80);
}

TEST(RoundingByHandTest, KeepsSubnormals) {
  EXPECT_EQ(combine_bits(DType::kFloat16, {{0x0400}}, {0.5})[0], 0x0200);  // half of the smallest
  EXPECT_EQ(combine_bits(DType::kFloat16, {{0x0003}}, {0.5})[0], 0x0002);  // 1.5 units: to even
  EXPECT_EQ(combine_bits(DType::kFloat16, {{0x0001}}, {0.5})[0], 0x0000);
  EXPECT_EQ(combine_bits(DType::kBFloat16, {{0x0003}}, {0.5})[0], 0x0002);
}

// Half-precision sums are accumulated in float32: 2048 + 1 is not lost on the way.
TEST(RoundingByHandTest, RoundsOnceAtTheEnd) {
  const Bits big{0x6800}, one{0x3c00}, minus{0xe800};  // 2048, 1, -2048
  EXPECT_EQ(combine_bits(DType::kFloat16, {big, one, minus}, {1, 1, 1})[0], 0x3c00);
}

}  // namespace
}  // namespace bluefog::test
