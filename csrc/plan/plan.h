// What one rank does in one neighbor operation: from whom it receives, to whom it sends, with which
// weights.
//
// A Plan is a value: immutable once made, comparable, printable, free to share between threads. It
// knows nothing of bytes, tensors or transports. Plans of a topology are compiled once
// (bluefog_pg/group.py keeps them).
#pragma once

#include <string>
#include <vector>

namespace bluefog {

/// One directed edge as seen from this rank. For a source the weight is what this rank gives to
/// what it receives; for a destination it scales what is sent. The receiver applies the product of
/// both.
struct Edge {
  int rank;
  double weight;
  bool operator==(const Edge&) const = default;
};

class Plan {
 public:
  /// Checks and makes a plan for `rank` of a group of `size`.
  /// Throws Error(kUsage) naming the offending value for: a rank out of range, twice in a list, or
  /// this rank itself; a weight that is NaN or infinite. The order of `sources` is kept: it is the
  /// order of addition.
  Plan(int rank, int size, double self_weight, std::vector<Edge> sources,
       std::vector<Edge> destinations);

  int rank() const { return rank_; }
  int size() const { return size_; }
  double self_weight() const { return self_weight_; }
  const std::vector<Edge>& sources() const { return sources_; }
  const std::vector<Edge>& destinations() const { return destinations_; }

  /// Every rank that is a source or a destination, ascending, each once.
  const std::vector<int>& neighbors() const { return neighbors_; }

  /// For example "rank 2 of 4: 0.5*self + 0.5*[1] -> {3}".
  std::string describe() const;

  bool operator==(const Plan&) const = default;

 private:
  int rank_;
  int size_;
  double self_weight_;
  std::vector<Edge> sources_;
  std::vector<Edge> destinations_;
  std::vector<int> neighbors_;
};

}  // namespace bluefog
