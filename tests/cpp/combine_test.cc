#include "kernels/combine.h"

#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <iterator>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace bluefog::test {
namespace {

template <typename T>
constexpr DType kDType = std::is_same_v<T, c10::Half>       ? DType::kFloat16
                         : std::is_same_v<T, c10::BFloat16> ? DType::kBFloat16
                         : std::is_same_v<T, float>         ? DType::kFloat32
                                                            : DType::kFloat64;

template <typename T>
using Accumulator = std::conditional_t<std::is_same_v<T, double>, double, float>;

template <typename T>
Term term(const std::vector<T>& data, double weight) {
  return {reinterpret_cast<const std::byte*>(data.data()), weight};
}

template <typename T>
void combine_into(std::vector<T>& y, std::vector<Term> terms) {
  combine(kDType<T>, reinterpret_cast<std::byte*>(y.data()), terms, y.size() * sizeof(T));
}

template <typename T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0);
}

// What the header promises, one element at a time. `volatile` keeps the product and the sum apart:
// each is rounded.
template <typename T>
std::vector<T> reference(const std::vector<std::vector<T>>& xs,
                         const std::vector<double>& weights) {
  std::vector<T> y(xs[0].size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    volatile Accumulator<T> sum = 0;
    for (std::size_t k = 0; k < xs.size(); ++k) {
      const auto weight = static_cast<Accumulator<T>>(weights[k]);
      volatile Accumulator<T> product = weight * static_cast<Accumulator<T>>(xs[k][i]);
      sum = k == 0 ? product : sum + product;
    }
    y[i] = static_cast<T>(sum);
  }
  return y;
}

template <typename T>
std::vector<T> random_values(std::size_t n, std::mt19937& random) {
  std::normal_distribution<float> normal(0, 3);
  std::vector<T> values(n);
  for (T& value : values) value = static_cast<T>(normal(random));
  return values;
}

// Around a block of accumulators (1024) and a vector (8), and what is left over.
const std::size_t kSizes[] = {0, 1, 7, 8, 9, 1023, 1024, 1025, 2047, 5000};

template <typename T>
class CombineTest : public ::testing::Test {};
using Types = ::testing::Types<c10::Half, c10::BFloat16, float, double>;
TYPED_TEST_SUITE(CombineTest, Types);

TYPED_TEST(CombineTest, IsExactWhereTheSumIs) {
  using T = TypeParam;
  for (std::size_t n : kSizes) {
    std::vector<T> a(n), b(n), c(n), y(n);
    for (std::size_t i = 0; i < n; ++i) {
      a[i] = static_cast<T>(static_cast<float>(i % 32));
      b[i] = static_cast<T>(static_cast<float>(32 + i % 32));
      c[i] = static_cast<T>(static_cast<float>(64 + i % 32));
    }
    combine_into(y, {term(a, 0.5), term(b, 0.25), term(c, 0.25)});
    for (std::size_t i = 0; i < n; ++i) {
      ASSERT_EQ(static_cast<double>(y[i]), i % 32 + 24.0) << "element " << i << " of " << n;
    }
  }
}

TYPED_TEST(CombineTest, EqualsAScalarLoopBitForBit) {
  using T = TypeParam;
  std::mt19937 random(7);
  const std::vector<double> weights{1.0 / 3, -0.1, 0.7, 1e-3, 2.9};
  for (std::size_t n : kSizes) {
    for (std::size_t terms = 1; terms <= weights.size(); ++terms) {
      std::vector<std::vector<T>> xs;
      std::vector<Term> list;
      for (std::size_t k = 0; k < terms; ++k) xs.push_back(random_values<T>(n, random));
      for (std::size_t k = 0; k < terms; ++k) list.push_back(term(xs[k], weights[k]));
      std::vector<T> y(n);
      combine_into(y, list);
      ASSERT_TRUE(same_bits(y, reference(xs, weights))) << n << " elements, " << terms << " terms";
    }
  }
}

TYPED_TEST(CombineTest, MayWriteOverAnyOfItsTerms) {
  using T = TypeParam;
  std::mt19937 random(8);
  const std::vector<double> weights{0.3, 0.3, 0.4};
  for (std::size_t place = 0; place < 3; ++place) {
    std::vector<std::vector<T>> xs;
    for (int k = 0; k < 3; ++k) xs.push_back(random_values<T>(2500, random));
    const std::vector<T> expected = reference(xs, weights);
    combine_into(xs[place], {term(xs[0], 0.3), term(xs[1], 0.3), term(xs[2], 0.4)});
    ASSERT_TRUE(same_bits(xs[place], expected)) << "over term " << place;
  }
}

// Terms of any element alignment, not only of a vector's.
TYPED_TEST(CombineTest, StartsAnywhere) {
  using T = TypeParam;
  std::mt19937 random(9);
  for (std::size_t shift = 0; shift < 8; ++shift) {
    auto whole = random_values<T>(100 + shift, random);
    const std::vector<T> x(whole.begin() + shift, whole.end());
    std::vector<T> y(100);
    combine_into(y, {{reinterpret_cast<const std::byte*>(whole.data() + shift), 0.3}});
    ASSERT_TRUE(same_bits(y, reference<T>({x}, {0.3}))) << shift;
  }
}

// With NaN, infinities, numbers without a leading one, and both zeros among them.
template <typename T>
std::vector<T> strange_values(std::size_t n, std::mt19937& random) {
  using Limits = std::numeric_limits<T>;
  const T strange[] = {Limits::quiet_NaN(),
                       Limits::infinity(),
                       -Limits::infinity(),
                       Limits::denorm_min(),
                       Limits::min() / 4,
                       Limits::max(),
                       -Limits::max(),
                       T(0),
                       T(-0.0)};
  std::vector<T> values = random_values<T>(n, random);
  for (std::size_t i = 0; i < n; ++i) {
    if (random() % 4 == 0) values[i] = strange[random() % std::size(strange)];
  }
  return values;
}

// Bit for bit, but for a NaN's sign and payload: of two NaN an addition keeps that of the operand
// that the compiler put first.
template <typename T>
bool same_numbers(const T* a, const std::vector<T>& b) {
  return std::equal(b.begin(), b.end(), a, [](T x, T y) {
    return (std::isnan(x) && std::isnan(y)) || std::memcmp(&x, &y, sizeof(T)) == 0;
  });
}

// Types whose sum stays in registers, a few vectors at a time, with loops for what is left over.
template <typename T>
class FusedCombineTest : public ::testing::Test {
 protected:
  static constexpr std::size_t kMargin = 16;
  static constexpr std::size_t kMost = 200 + 2 * kMargin;
  static constexpr T kUntouched = 77;

  void SetUp() override {
    for (std::size_t k = 0; k < 9; ++k) {
      xs_.push_back(strange_values<T>(kMost, random_));
      weights_.push_back(k == 4 ? 0 : std::normal_distribution<double>()(random_));
    }
  }

  // Terms that each start at another place.
  static std::size_t shift_of(std::size_t k, std::size_t shift) { return (5 * k + shift) % 9; }

  std::vector<T> expected(std::size_t count, std::size_t terms, std::size_t shift) const {
    if (terms == 0) return std::vector<T>(count);
    std::vector<std::vector<T>> xs;
    for (std::size_t k = 0; k < terms; ++k) {
      const auto begin = xs_[k].begin() + shift_of(k, shift);
      xs.emplace_back(begin, begin + count);
    }
    return reference(xs, weights_);
  }

  std::mt19937 random_{21};
  std::vector<std::vector<T>> xs_;
  std::vector<double> weights_;
};
using FusedTypes = ::testing::Types<float, double>;
TYPED_TEST_SUITE(FusedCombineTest, FusedTypes);

TYPED_TEST(FusedCombineTest, IsTheSameForEveryCountAndPlace) {
  using T = TypeParam;
  using Test = FusedCombineTest<T>;
  for (std::size_t count = 0; count <= 200; ++count) {
    for (std::size_t shift = 0; shift < 9; ++shift) {
      const std::size_t terms = (count + shift) % 10;
      const std::vector<T> right = this->expected(count, terms, shift);
      std::vector<Term> list;
      for (std::size_t k = 0; k < terms; ++k) {
        list.push_back(
            {reinterpret_cast<const std::byte*>(this->xs_[k].data() + Test::shift_of(k, shift)),
             this->weights_[k]});
      }
      for (Store store : {Store::kCached, Store::kStreaming}) {
        std::vector<T> y(Test::kMost, Test::kUntouched);
        T* const from = y.data() + shift;
        combine(kDType<T>, reinterpret_cast<std::byte*>(from), list, count * sizeof(T), store);
        ASSERT_TRUE(same_numbers(from, right)) << count << " elements at " << shift << ", " << terms
                                               << " terms, store " << static_cast<int>(store);
        std::fill_n(from, count, Test::kUntouched);
        ASSERT_EQ(y, std::vector<T>(Test::kMost, Test::kUntouched)) << "wrote beside its place";
      }
    }
  }
}

TYPED_TEST(FusedCombineTest, IsTheSameOverAnyOfItsTerms) {
  using T = TypeParam;
  using Test = FusedCombineTest<T>;
  constexpr std::size_t kStep = 128 / sizeof(T);
  for (std::size_t count : {kStep - 1, kStep, kStep + 1, 3 * kStep + 5, std::size_t{200}}) {
    for (std::size_t shift = 0; shift < 9; ++shift) {
      for (std::size_t over = 0; over < 9; ++over) {
        const std::vector<T> right = this->expected(count, 9, shift);
        auto xs = this->xs_;
        std::vector<Term> list;
        for (std::size_t k = 0; k < 9; ++k) {
          list.push_back(
              {reinterpret_cast<const std::byte*>(xs[k].data() + Test::shift_of(k, shift)),
               this->weights_[k]});
        }
        T* const y = xs[over].data() + Test::shift_of(over, shift);
        combine(kDType<T>, reinterpret_cast<std::byte*>(y), list, count * sizeof(T),
                shift % 2 == 0 ? Store::kStreaming : Store::kCached);
        ASSERT_TRUE(same_numbers(y, right))
            << count << " elements at " << shift << " over term " << over;
      }
    }
  }
}

TYPED_TEST(CombineTest, OfNothingIsZero) {
  std::vector<TypeParam> y(1100, static_cast<TypeParam>(5.0f));
  combine_into(y, {});
  EXPECT_TRUE(same_bits(y, std::vector<TypeParam>(1100, static_cast<TypeParam>(0.0f))));
}

TYPED_TEST(CombineTest, StaysWithinItsBytes) {
  using T = TypeParam;
  const std::vector<T> x(20, static_cast<T>(1.0f));
  std::vector<T> y(20, static_cast<T>(7.0f));
  const Term terms[] = {term(x, 2)};
  combine(kDType<T>, reinterpret_cast<std::byte*>(y.data()), terms, 19 * sizeof(T));
  EXPECT_EQ(static_cast<float>(y[18]), 2.0f);
  EXPECT_EQ(static_cast<float>(y[19]), 7.0f);
}

// (1 + e)^2 = 1 + 2e + e^2, where e^2 is half of the last place: a product that is rounded loses
// it, a fused multiply-add does not.
TEST(CombineFloatTest, RoundsEachProduct) {
  const float e = 1.0f / 4096;
  const std::vector<float> a(100, 1 + e);
  const std::vector<float> b(100, -(1 + 2 * e));
  std::vector<float> y(100);
  combine_into(y, {term(b, 1), term(a, 1 + e)});
  EXPECT_TRUE(same_bits(y, std::vector<float>(100, 0.0f)));
}

TEST(CombineFloatTest, AddsInTheOrderOfTheTerms) {
  const std::vector<float> big(9, 1e8f), small(9, 1), minus(9, -1e8f);
  std::vector<float> y(9);
  combine_into(y, {term(big, 1), term(small, 1), term(minus, 1)});
  EXPECT_EQ(y[0], 0);
  combine_into(y, {term(big, 1), term(minus, 1), term(small, 1)});
  EXPECT_EQ(y[0], 1);
}

}  // namespace
}  // namespace bluefog::test
