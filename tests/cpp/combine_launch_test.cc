#include "kernels/combine_launch.h"

#include <gtest/gtest.h>

#include <bit>
#include <set>
#include <vector>

#include "base/error.h"

namespace bluefog::test {
namespace {

using enum Element;

// Addresses that nothing is read from.
void* at(std::uintptr_t address) { return reinterpret_cast<void*>(address); }

Division divided(Element own, Element payload, std::size_t count, std::uintptr_t y,
                 std::uintptr_t x, std::vector<std::uintptr_t> arrivals = {}) {
  std::vector<const void*> terms{at(x)};
  for (const auto arrival : arrivals) terms.push_back(at(arrival));
  return divide(own, payload, at(y), terms, count);
}

// How often each element of a tensor is combined when the kernel's blocks have all run; a vector
// must be within the tensor.
std::vector<int> covered(const Division& division, std::uint32_t tile_elements) {
  std::vector<int> times(division.count);
  const std::uint32_t tiles = tiles_of(division, tile_elements);
  for (std::uint32_t tile = 0; tile < tiles; ++tile) {
    const Range range = tile_of(division, tile, tile_elements);
    EXPECT_LT(range.begin, range.end);
    EXPECT_EQ((range.end - range.begin) % division.width, 0u);
    for (std::uint64_t i = range.begin; i < range.end; ++i) ++times.at(i);
  }
  // The first tile takes them; it is there for every tensor that has elements.
  EXPECT_EQ(tiles == 0, division.count == 0);
  EXPECT_LE(loose_of(division), kBlockThreads);
  for (std::uint64_t i = 0; i < loose_of(division); ++i) {
    EXPECT_GE(loose_element(division, i), i);  // the kernel subtracts its thread's number
    ++times.at(loose_element(division, i));
  }
  return times;
}

struct Types {
  Element own, payload;
};
const Types kTypes[] = {{kFloat16, kFloat16},    {kBFloat16, kBFloat16},   {kFloat32, kFloat32},
                        {kFloat64, kFloat64},    {kFloat32, kBFloat16},    {kFloat32, kFloat8E4M3},
                        {kFloat16, kFloat8E5M2}, {kBFloat16, kFloat8E4M3}, {kFloat32, kFloat8E5M2},
                        {kFloat16, kFloat8E4M3}, {kBFloat16, kFloat8E5M2}};

TEST(CombineLaunchTest, ServesTheSameTypeOrANarrowerOne) {
  const Element all[] = {kFloat16, kBFloat16, kFloat32, kFloat64, kFloat8E4M3, kFloat8E5M2};
  std::size_t served = 0;
  for (const Element own : all) {
    for (const Element payload : all) served += is_served(own, payload);
  }
  EXPECT_EQ(served, std::size(kTypes));
  for (const auto& [own, payload] : kTypes) EXPECT_TRUE(is_served(own, payload));
  EXPECT_FALSE(is_served(kFloat16, kBFloat16));
  EXPECT_FALSE(is_served(kFloat64, kFloat8E4M3));
  EXPECT_FALSE(is_served(kFloat8E4M3, kFloat8E4M3));
}

TEST(CombineLaunchTest, VectorsHave16BytesOfOwnValues) {
  EXPECT_EQ(divided(kFloat16, kFloat16, 100, 512, 1024, {2048}).width, 8);
  EXPECT_EQ(divided(kFloat32, kFloat32, 100, 512, 1024, {2048}).width, 4);
  EXPECT_EQ(divided(kFloat64, kFloat64, 100, 512, 1024, {2048}).width, 2);
  EXPECT_EQ(divided(kFloat32, kFloat8E4M3, 100, 512, 1024, {2048}).width, 4);
  EXPECT_EQ(divided(kFloat32, kFloat32, 100, 512, 1024).width, 4) << "without sources";
}

TEST(CombineLaunchTest, ACommonMisalignmentIsPeeled) {
  const Division division = divided(kFloat32, kFloat32, 100, 516, 1028, {2052, 4100});
  EXPECT_EQ(division.width, 4);
  EXPECT_EQ(division.head, 3);
  EXPECT_EQ(body_of(division).begin, 3u);
  EXPECT_EQ(body_of(division).end, 99u);
  EXPECT_EQ(loose_of(division), 4u);
}

// One element off is 4 bytes of float32 and 1 of float8.
TEST(CombineLaunchTest, APayloadIsMisalignedByItsOwnElements) {
  EXPECT_EQ(divided(kFloat32, kFloat8E5M2, 100, 516, 1028, {2049}).head, 3);
  EXPECT_EQ(divided(kFloat32, kFloat8E5M2, 100, 516, 1028, {2052}).width, 1);
  EXPECT_EQ(divided(kFloat32, kBFloat16, 100, 520, 1032, {2052}).head, 2);
  // Its vectors have 4 bytes, and need no more than that.
  EXPECT_EQ(divided(kFloat32, kFloat8E5M2, 100, 512, 1024, {2052}).width, 4);
}

TEST(CombineLaunchTest, WhatCannotBeAlignedTogetherIsTakenOneByOne) {
  EXPECT_EQ(divided(kFloat32, kFloat32, 100, 512, 1024, {2048, 4100}).width, 1);
  EXPECT_EQ(divided(kFloat32, kFloat32, 100, 516, 1024, {2048}).width, 1);
  EXPECT_EQ(divided(kFloat32, kFloat32, 100, 512, 1028, {2048}).width, 1);
  EXPECT_EQ(divided(kFloat32, kFloat32, 6, 516, 1028, {2052}).width, 1) << "no vector is left";
}

TEST(CombineLaunchTest, EveryLoadIsAligned) {
  for (const auto& [own, payload] : kTypes) {
    for (std::uintptr_t shift = 0; shift < 16; ++shift) {
      const std::uintptr_t y = 4096 + shift * size_of(own), r = 8192 + shift * size_of(payload);
      const Division division = divided(own, payload, 1000, y, y, {r});
      EXPECT_EQ(division.width, vector_width(own));
      EXPECT_EQ((y + division.head * size_of(own)) % 16, 0u);
      EXPECT_EQ((r + division.head * size_of(payload)) % (division.width * size_of(payload)), 0u);
    }
  }
}

TEST(CombineLaunchTest, CoversEveryElementOnce) {
  for (const auto& [own, payload] : kTypes) {
    const std::uint32_t tile = kTileVectors * vector_width(own);
    std::set<std::size_t> counts;
    for (std::size_t n = 0; n < 20; ++n) counts.insert({n, tile - 10 + n, 2 * tile - 10 + n});
    for (const std::size_t count : counts) {
      for (std::uintptr_t shift = 0; shift < 8; ++shift) {
        const std::uintptr_t y = 4096 + shift * size_of(own);
        for (const std::uintptr_t r : {8192 + shift * size_of(payload), std::uintptr_t{8192}}) {
          const Division division = divided(own, payload, count, y, y, {r});
          EXPECT_EQ(covered(division, tile), std::vector<int>(count, 1)) << count << " + " << shift;
        }
      }
    }
  }
}

// A list at made-up addresses: tensor t is at 1 MiB * (t + 1), and each of its terms 64 bytes on.
struct List {
  List(Element own, std::vector<std::size_t> sizes, std::size_t terms) : counts(std::move(sizes)) {
    for (std::size_t k = 0; k < terms; ++k) weights.push_back(1.0 / (1.0 + k));
    for (std::size_t t = 0; t < counts.size(); ++t) {
      outputs.push_back(place(t, 0));
      inputs.push_back(place(t, 1));
    }
    for (std::size_t j = 0; j + 1 < terms; ++j) {
      for (std::size_t t = 0; t < counts.size(); ++t) arrivals.push_back(place(t, j + 2));
    }
    list = {own, own, outputs, inputs, arrivals, counts, weights};
  }
  static void* place(std::size_t t, std::size_t k) { return at((t + 1) * (1 << 20) + k * 64); }

  std::vector<std::size_t> counts;
  std::vector<double> weights;
  std::vector<void*> outputs;
  std::vector<const void*> inputs, arrivals;
  CombineList list;
};

// Fills launches until the list is done, and says which tensors were in each. Checks that every
// number in the arguments is the list's.
std::vector<std::vector<std::size_t>> launched(const CombineList& list) {
  std::vector<std::vector<std::size_t>> launches;
  const std::size_t tensors = list.outputs.size();
  for (std::size_t t = 0; t < tensors;) {
    CombineArguments arguments;
    const std::size_t next = fill(list, t, arguments);
    if (next <= t) {
      ADD_FAILURE() << "no progress at tensor " << t;
      break;
    }
    std::vector<std::size_t> here;
    for (; t < next; ++t) {
      if (list.counts[t] > 0) here.push_back(t);
    }
    EXPECT_EQ(arguments.tensors, here.size());
    EXPECT_EQ(arguments.terms, list.weights.size());
    EXPECT_EQ(arguments.tile_elements, kTileVectors * vector_width(list.own));
    std::uint32_t tiles = 0;
    for (std::uint32_t i = 0; i < here.size(); ++i) {
      const Division division = arguments.division(i);
      EXPECT_EQ(division.count, list.counts[here[i]]);
      EXPECT_EQ(division.first_tile, tiles);
      EXPECT_EQ(arguments.result(i), list.outputs[here[i]]);
      EXPECT_EQ(arguments.term(i, 0), list.inputs[here[i]]);
      for (std::uint32_t k = 1; k < arguments.terms; ++k) {
        EXPECT_EQ(arguments.term(i, k), list.arrivals[(k - 1) * tensors + here[i]]);
      }
      const std::uint32_t own_tiles = tiles_of(division, arguments.tile_elements);
      for (std::uint32_t tile = 0; tile < own_tiles; ++tile) {
        EXPECT_EQ(arguments.tensor_of(tiles + tile), i);
      }
      tiles += own_tiles;
    }
    EXPECT_EQ(arguments.tiles, tiles);
    launches.push_back(here);
  }
  return launches;
}

std::vector<std::size_t> sizes_of(const std::vector<std::vector<std::size_t>>& launches) {
  std::vector<std::size_t> sizes;
  for (const auto& launch : launches) sizes.push_back(launch.size());
  return sizes;
}

TEST(CombineLaunchTest, OneLaunchHoldsAListOfTensors) {
  const List list(kFloat32, {1000, 1, 5000, 2048, 2049}, 4);
  EXPECT_EQ(sizes_of(launched(list.list)), std::vector<std::size_t>{5});
}

TEST(CombineLaunchTest, EmptyTensorsAreLeftOut) {
  const List some(kFloat32, {0, 7, 0, 0, 9, 0}, 3);
  EXPECT_EQ(launched(some.list), (std::vector<std::vector<std::size_t>>{{1, 4}}));
  const List none(kFloat32, {0, 0}, 3);
  EXPECT_EQ(launched(none.list), std::vector<std::vector<std::size_t>>{{}});
  EXPECT_TRUE(launched(List(kFloat32, {}, 3).list).empty());
}

TEST(CombineLaunchTest, LongListsTakeSeveralLaunches) {
  const List list(kFloat16, std::vector<std::size_t>(250, 4100), 2);
  EXPECT_EQ(sizes_of(launched(list.list)), (std::vector<std::size_t>{101, 101, 48}));
  const List four(kFloat16, std::vector<std::size_t>(73, 10), 4);
  EXPECT_EQ(sizes_of(launched(four.list)), (std::vector<std::size_t>{72, 1}));
}

TEST(CombineLaunchTest, ManyTermsTakeFewerTensors) {
  const List list(kFloat32, {100, 200, 300, 400}, 100);
  EXPECT_EQ(sizes_of(launched(list.list)), (std::vector<std::size_t>{3, 1}));
  const List most(kFloat32, {100, 200}, kMaxTerms);
  EXPECT_EQ(sizes_of(launched(most.list)), (std::vector<std::size_t>{1, 1}));
}

TEST(CombineLaunchTest, MoreTermsThanFitAreAnError) {
  CombineArguments arguments;
  const List list(kFloat32, {100}, kMaxTerms + 1);
  try {
    fill(list.list, 0, arguments);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kUsage);
    EXPECT_STREQ(error.what(), "the CUDA combine adds 1 to 253 terms, got 254");
  }
}

TEST(CombineLaunchTest, OneTermIsAProduct) {
  const List list(kFloat64, {3, 4}, 1);
  EXPECT_EQ(sizes_of(launched(list.list)), std::vector<std::size_t>{2});
}

TEST(CombineLaunchTest, WeightsAreRoundedToTheTypeOfAccumulation) {
  CombineArguments arguments;
  for (const Element own : {kFloat16, kBFloat16, kFloat32}) {
    fill(List(own, {1}, 3).list, 0, arguments);
    EXPECT_EQ(arguments.weight_bits(2), std::bit_cast<std::uint32_t>(1.0f / 3));
  }
  fill(List(kFloat64, {1}, 3).list, 0, arguments);
  EXPECT_EQ(arguments.weight_bits(2), std::bit_cast<std::uint64_t>(1.0 / 3));
}

// Positions beyond 32 bits.
TEST(CombineLaunchTest, TensorsMayBeLarge) {
  const std::size_t count = (std::size_t{5} << 30) + 5;
  const Division division = divided(kBFloat16, kBFloat16, count, 514, 1026, {2050});
  const std::uint32_t tile = kTileVectors * vector_width(kBFloat16);
  const std::uint32_t tiles = tiles_of(division, tile);
  EXPECT_EQ(division.head, 7);
  EXPECT_EQ(tile_of(division, tiles - 1, tile).end, body_of(division).end);
  EXPECT_EQ(loose_element(division, loose_of(division) - 1), count - 1);
}

}  // namespace
}  // namespace bluefog::test
