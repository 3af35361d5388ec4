// Directed graphs as lists of edges, and what each rank of them does.
#pragma once

#include <bit>
#include <random>
#include <utility>
#include <vector>

#include "plan/plan.h"

namespace bluefog::test {

struct Graph {
  int size;
  std::vector<std::pair<int, int>> edges;  // from, to

  /// All weights 1; sources and destinations in the order of `edges`.
  Plan plan(int rank) const {
    std::vector<Edge> sources;
    std::vector<Edge> destinations;
    for (const auto& [from, to] : edges) {
      if (to == rank) sources.push_back({from, 1.0});
      if (from == rank) destinations.push_back({to, 1.0});
    }
    return Plan(rank, size, 1.0, std::move(sources), std::move(destinations));
  }
};

/// The edges (i, j), i != j, for which has(i, j).
template <typename Has>
Graph graph_of(int n, Has&& has) {
  Graph graph{n, {}};
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) {
      if (i != j && has(i, j)) graph.edges.emplace_back(i, j);
    }
  }
  return graph;
}

inline Graph complete(int n) {
  return graph_of(n, [](int, int) { return true; });
}

inline Graph one_way_ring(int n) {
  return graph_of(n, [n](int i, int j) { return j == (i + 1) % n; });
}

inline Graph ring(int n) {
  return graph_of(n, [n](int i, int j) { return j == (i + 1) % n || i == (j + 1) % n; });
}

inline Graph star(int n) {
  return graph_of(n, [](int i, int j) { return i == 0 || j == 0; });
}

/// Rank 0 sends to all and receives from nobody.
inline Graph out_star(int n) {
  return graph_of(n, [](int i, int) { return i == 0; });
}

inline Graph in_star(int n) {
  return graph_of(n, [](int, int j) { return j == 0; });
}

/// At step k everybody sends to the rank 2^k further, k counted modulo log2(n).
inline Graph one_peer(int n, int step) {
  const int powers = std::bit_width(static_cast<unsigned>(n - 1));
  return graph_of(n, [&](int i, int j) { return j == (i + (1 << step % powers)) % n; });
}

inline Graph random_graph(int n, std::mt19937& random, double density) {
  std::bernoulli_distribution has(density);
  return graph_of(n, [&](int, int) { return has(random); });
}

}  // namespace bluefog::test
