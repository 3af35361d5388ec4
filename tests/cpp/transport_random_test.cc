// Random graphs that change with every operation, beside a serial model of what each rank gets.
#include <gtest/gtest.h>

#include <random>

#include "graphs.h"
#include "traffic.h"

namespace bluefog::test {
namespace {

struct Operation {
  Graph graph;
  std::vector<std::size_t> sizes;  // by rank
};

std::vector<Operation> random_operations(int n, int count, std::size_t most, unsigned seed) {
  std::mt19937 random(seed);
  std::vector<Operation> operations;
  for (int i = 0; i < count; ++i) {
    const double density = std::uniform_real_distribution<>(0, 1)(random);
    Operation& operation = operations.emplace_back(Operation{random_graph(n, random, density), {}});
    for (int rank = 0; rank < n; ++rank) {
      // Mostly small, now and then nothing, now and then more than fits.
      const std::size_t limits[] = {0, 1, 100, 5000, 20000, most};
      operation.sizes.push_back(random() % (limits[random() % 6] + 1));
    }
  }
  return operations;
}

class TransportRandomTest : public ::testing::TestWithParam<std::string> {};

TEST_P(TransportRandomTest, EveryByteArrives) {
  for (unsigned seed = 1; seed <= 6; ++seed) {
    const int n = 2 + static_cast<int>(seed);
    Group group(GetParam(), n);
    const auto operations =
        random_operations(n, 40, std::min<std::size_t>(group.more_than_the_ring(), 1 << 18), seed);
    group.run([&](int rank) {
      for (std::size_t i = 0; i < operations.size(); ++i) {
        const Plan plan = operations[i].graph.plan(rank);
        const auto size = [&](int of) { return operations[i].sizes[of]; };
        expect_patterns(exchange(group[rank], plan, i + 1, pattern(rank, i + 1, size(rank))), plan,
                        i + 1, size);
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(All, TransportRandomTest, ::testing::ValuesIn(Group::kinds()),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace bluefog::test
