#include "plan/collective.h"

namespace bluefog {
namespace {

std::vector<Edge> others(int rank, int size, double weight) {
  std::vector<Edge> edges;
  for (int peer = 0; peer < size; ++peer) {
    if (peer != rank) edges.push_back({peer, weight});
  }
  return edges;
}

}  // namespace

Plan all_to_all(int rank, int size, double weight) {
  return Plan(rank, size, weight, others(rank, size, weight), others(rank, size, 1));
}

Plan from_root(int rank, int size, int root) {
  if (rank == root) return Plan(rank, size, 1, {}, others(rank, size, 1));
  return Plan(rank, size, 1, {{root, 1}}, {});
}

}  // namespace bluefog
