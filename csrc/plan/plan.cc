#include "plan/plan.h"

#include <algorithm>
#include <cmath>
#include <set>
#include <sstream>
#include <utility>

#include "base/error.h"

namespace bluefog {
namespace {

void check_edges(const char* role, int rank, int size, const std::vector<Edge>& edges) {
  std::set<int> seen;
  for (const Edge& edge : edges) {
    if (edge.rank < 0 || edge.rank >= size) {
      fail(ErrorCode::kUsage, "rank ", rank, " names ", role, " ", edge.rank,
           ", but the group has ranks 0 to ", size - 1);
    }
    if (edge.rank == rank) {
      fail(ErrorCode::kUsage, "rank ", rank, " names itself as a ", role,
           "; what a rank keeps of its own value is the self weight");
    }
    if (!seen.insert(edge.rank).second) {
      fail(ErrorCode::kUsage, "rank ", rank, " names ", role, " ", edge.rank, " twice");
    }
    if (!std::isfinite(edge.weight)) {
      fail(ErrorCode::kUsage, "rank ", rank, " gives ", role, " ", edge.rank, " the weight ",
           edge.weight, "; weights must be finite");
    }
  }
}

}  // namespace

Plan::Plan(int rank, int size, double self_weight, std::vector<Edge> sources,
           std::vector<Edge> destinations)
    : rank_(rank),
      size_(size),
      self_weight_(self_weight),
      sources_(std::move(sources)),
      destinations_(std::move(destinations)) {
  if (rank < 0 || rank >= size) {
    fail(ErrorCode::kUsage, "a plan for rank ", rank, " of ", size, " cannot be made");
  }
  if (!std::isfinite(self_weight)) {
    fail(ErrorCode::kUsage, "rank ", rank, " has the self weight ", self_weight,
         "; weights must be finite");
  }
  check_edges("source", rank, size, sources_);
  check_edges("destination", rank, size, destinations_);
  std::set<int> neighbors;
  for (const Edge& edge : sources_) neighbors.insert(edge.rank);
  for (const Edge& edge : destinations_) neighbors.insert(edge.rank);
  neighbors_.assign(neighbors.begin(), neighbors.end());
}

std::string Plan::describe() const {
  std::ostringstream out;
  out << "rank " << rank_ << " of " << size_ << ": " << self_weight_ << "*self";
  for (const Edge& edge : sources_) {
    out << " + " << edge.weight << "*[" << edge.rank << "]";
  }
  out << " -> {";
  const char* separator = "";
  for (const Edge& edge : destinations_) {
    out << separator << edge.rank;
    if (edge.weight != 1.0) {
      out << "*" << edge.weight;
    }
    separator = ", ";
  }
  out << "}";
  return out.str();
}

}  // namespace bluefog
