#include "backend/sink.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "tasks.h"
#include "traffic.h"

namespace bluefog::test {
namespace {

const std::byte* bytes_of(const std::vector<float>& x) {
  return reinterpret_cast<const std::byte*>(x.data());
}
std::byte* bytes_of(std::vector<float>& x) { return reinterpret_cast<std::byte*>(x.data()); }

constexpr std::size_t kFloat = sizeof(float);
const float kNan = std::numeric_limits<float>::quiet_NaN();

Greeting greeting_with(double weight) {
  Greeting greeting;
  greeting.weight = weight;
  return greeting;
}

// y = self_weight * x + sum of source weight * sender weight * r, with r in one piece.
std::vector<float> combined(double self_weight, const std::vector<float>& x,
                            const std::vector<Edge>& sources, const std::vector<double>& senders,
                            const std::vector<std::vector<float>>& received) {
  std::vector<float> y(x.size(), -1);
  CombineSink sink({{0, x.size() * kFloat, DType::kFloat32, bytes_of(x), bytes_of(y)}});
  std::vector<Greeting> greetings;
  for (double weight : senders) greetings.push_back(greeting_with(weight));
  sink.prepare(Plan(0, 9, self_weight, sources, {}), greetings);
  Piece piece;
  for (const auto& r : received) piece.sources.push_back({bytes_of(r), r.size() * kFloat});
  if (piece.size() > 0) sink.consume(piece);
  sink.finish();
  return y;
}

TEST(CombineSinkTest, MultipliesTheWeightsOfBothEnds) {
  EXPECT_EQ(combined(0.5, {2, 4}, {{3, 0.25}, {1, 2}}, {4, 0.5}, {{10, 20}, {100, 200}}),
            (std::vector<float>{111, 222}));
}

TEST(CombineSinkTest, WithoutSourcesKeepsItsOwnShare) {
  EXPECT_EQ(combined(0.5, {2, 4}, {}, {}, {}), (std::vector<float>{1, 2}));
}

TEST(CombineSinkTest, WhatHasNoWeightDoesNotCount) {
  const std::vector<float> bad{kNan, INFINITY};
  EXPECT_EQ(combined(0, bad, {{1, 1}}, {1}, {{3, 4}}), (std::vector<float>{3, 4}));
  EXPECT_EQ(combined(1, {3, 4}, {{1, 0}}, {1}, {bad}), (std::vector<float>{3, 4}));
  EXPECT_EQ(combined(1, {3, 4}, {{1, 1}}, {0}, {bad}), (std::vector<float>{3, 4}));
  EXPECT_EQ(combined(0, bad, {{1, 0}}, {1}, {bad}), (std::vector<float>{0, 0}));
  EXPECT_EQ(combined(0, bad, {}, {}, {}), (std::vector<float>{0, 0}));
}

TEST(CombineSinkTest, WhatHasWeightDoes) {
  EXPECT_TRUE(std::isnan(combined(1, {kNan}, {{1, 1}}, {1}, {{3}})[0]));
  EXPECT_TRUE(std::isnan(combined(1, {3}, {{1, 1e-30}}, {1}, {{kNan}})[0]));
}

// 1 + 1e8 - 1e8 in float32 depends on the order.
TEST(CombineSinkTest, AddsItsOwnTermAtItsPlace) {
  const std::vector<float> own{1}, big{1e8f}, minus{-1e8f};
  const std::vector<float> results{0, 0, 1};
  for (std::size_t self_at = 0; self_at < 3; ++self_at) {
    std::vector<float> y{-1};
    CombineSink sink({{0, kFloat, DType::kFloat32, bytes_of(own), bytes_of(y)}}, self_at);
    const std::vector<Greeting> greetings{greeting_with(1), greeting_with(1)};
    sink.prepare(Plan(0, 3, 1, {{1, 1}, {2, 1}}, {}), greetings);
    Piece piece;
    for (auto* r : {&big, &minus}) piece.sources.push_back({bytes_of(*r), kFloat});
    sink.consume(piece);
    EXPECT_EQ(y[0], results[self_at]) << self_at;
  }
}

// Two sources whose streams have other lengths, places and gaps, in pieces that end anywhere.
TEST(PlaceSinkTest, PiecesCutPlacesAnywhere) {
  const Bytes first = pattern(1, 1, 300), second = pattern(2, 1, 130);
  for (std::size_t unit : {1, 7, 64, 1000}) {
    Bytes to(500);
    PlaceSink sink(
        {{{0, 100, &to[0]}, {128, 0, nullptr}, {128, 172, &to[200]}}, {{30, 100, &to[100]}}});
    sink.prepare(Plan(0, 3, 1, {{1, 1}, {2, 1}}, {}), {});
    for (std::size_t at = 0; at < first.size(); at += unit) {
      Piece piece;
      piece.offset = at;
      for (const Bytes* bytes : {&first, &second}) {
        const std::size_t from = std::min(at, bytes->size());
        piece.sources.push_back(
            std::span(*bytes).subspan(from, std::min(unit, bytes->size() - from)));
      }
      sink.consume(piece);
    }
    sink.finish();
    EXPECT_TRUE(std::equal(&to[0], &to[100], &first[0]));
    EXPECT_TRUE(std::equal(&to[200], &to[372], &first[128]));
    EXPECT_TRUE(std::equal(&to[100], &to[200], &second[30]));
    EXPECT_EQ(to[372], std::byte{0});
  }
}

// Three tensors with padding between them, in pieces that end anywhere a chunk may.
TEST(CombineSinkTest, PiecesCutTensorsAnywhere) {
  const std::vector<std::size_t> counts{5, 0, 40, 3};
  std::vector<std::vector<float>> xs, ys, rs;
  Payload mine, theirs;
  std::vector<CombineSink::Part> parts;
  for (std::size_t t = 0; t < counts.size(); ++t) {
    xs.push_back(values(0, counts[t]));
    rs.push_back(values(1 + static_cast<int>(t), counts[t]));
    ys.emplace_back(counts[t], -1.0f);
  }
  for (std::size_t t = 0; t < counts.size(); ++t) {
    mine.add(xs[t].data(), counts[t] * kFloat);
    theirs.add(rs[t].data(), counts[t] * kFloat);
    parts.push_back({mine.segments()[t].offset, counts[t] * kFloat, DType::kFloat32,
                     bytes_of(xs[t]), bytes_of(ys[t])});
  }
  Bytes stream(theirs.nbytes());
  theirs.copy(0, stream.size(), stream.data());
  for (std::size_t unit : {4, 8, 60, 64, 100, 1000}) {
    for (auto& y : ys) std::fill(y.begin(), y.end(), -1.0f);
    CombineSink sink(parts);
    const Greeting greeting = greeting_with(1);
    sink.prepare(Plan(0, 2, 0.5, {{1, 0.25}}, {}), {&greeting, 1});
    for (std::size_t offset = 0; offset < stream.size(); offset += unit) {
      const std::size_t size = std::min(unit, stream.size() - offset);
      sink.consume(Piece{offset, {{stream.data() + offset, size}}});
    }
    sink.finish();
    for (std::size_t t = 0; t < counts.size(); ++t) {
      for (std::size_t i = 0; i < counts[t]; ++i) {
        ASSERT_EQ(ys[t][i], 0.5f * xs[t][i] + 0.25f * rs[t][i]) << unit << " " << t << " " << i;
      }
    }
  }
}

TEST(GatherSinkTest, PutsSourcesSideBySideInPlanOrder) {
  const std::vector<std::size_t> sizes{7, 0, 4000, 64};
  std::vector<Edge> sources;
  std::vector<Greeting> greetings;
  std::vector<Bytes> sent;
  Bytes expected;
  for (std::size_t i = 0; i < sizes.size(); ++i) {
    const int rank = static_cast<int>(sizes.size() - i);  // descending: the plan's order counts
    sources.push_back({rank, 1});
    sent.push_back(pattern(rank, 1, sizes[i]));
    expected.insert(expected.end(), sent.back().begin(), sent.back().end());
    Greeting& greeting = greetings.emplace_back();
    greeting.frame.nbytes = sizes[i];
    greeting.frame.rows = static_cast<std::int64_t>(i) + 10;
  }
  Bytes got;
  GatherSink sink([&](std::span<const std::int64_t> rows) {
    EXPECT_EQ(std::vector<std::int64_t>(rows.begin(), rows.end()),
              (std::vector<std::int64_t>{10, 11, 12, 13}));
    got.resize(std::accumulate(sizes.begin(), sizes.end(), std::size_t{0}));
    return got.data();
  });
  sink.prepare(Plan(0, 9, 1, sources, {}), greetings);
  for (std::size_t offset = 0; offset < 4000; offset += 100) {
    Piece piece{offset, {}};
    for (const Bytes& bytes : sent) {
      const std::size_t from = std::min(offset, bytes.size());
      piece.sources.push_back(
          {bytes.data() + from, std::min<std::size_t>(100, bytes.size() - from)});
    }
    sink.consume(piece);
  }
  sink.finish();
  EXPECT_EQ(got, expected);
}

TEST(GatherSinkTest, OfNobodyIsAskedForAllTheSame) {
  bool asked = false;
  GatherSink sink([&](std::span<const std::int64_t> rows) -> std::byte* {
    asked = rows.empty();
    return nullptr;
  });
  sink.prepare(Plan(0, 2, 1, {}, {}), {});
  sink.finish();
  EXPECT_TRUE(asked);
}

}  // namespace
}  // namespace bluefog::test
