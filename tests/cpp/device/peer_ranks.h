// Ranks with a PeerMemory each, over the fake host, and what is right of their averages.
#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <set>

#include "device/fake_symmetric.h"
#include "device/peer_memory.h"
#include "graphs.h"

namespace bluefog::test {

using device::PeerGroup;
using device::PeerMemory;
using device::PeerRound;
using Tensors = std::vector<at::Tensor>;

constexpr int kCount = 257;
inline const auto kFloat = at::TensorOptions(at::kCPU).dtype(at::kFloat);
inline const auto kDouble = kFloat.dtype(at::kDouble);

/// One PeerMemory per rank.
struct Ranks {
  explicit Ranks(int size) : host(size) {
    at::set_num_threads(1);
    for (int rank = 0; rank < size; ++rank) {
      memories.push_back(std::make_unique<PeerMemory>(at::kCPU, group(rank)));
    }
  }
  PeerGroup group(int rank) {
    return {FakeAllocator::instance().introduce(host, rank),
            [this, rank] { return !unreachable.contains(rank); },
            [this, rank](bool yes) { return host.all_agree(rank, yes); }, "fake"};
  }
  PeerMemory& operator[](int rank) { return *memories[rank]; }

  FakeHost host;
  std::set<int> unreachable;  // who say that not all devices can be reached
  std::vector<std::unique_ptr<PeerMemory>> memories;
};

/// The reference. Neighbours have written to the inputs before, and may not after, until it is
/// over.
inline void combine(const Tensors& outputs, const Tensors& inputs, const Tensors& arrivals,
                    const std::vector<double>& weights) {
  const std::size_t n = inputs.size();
  ASSERT_EQ(arrivals.size(), (weights.size() - 1) * n);
  for (std::size_t t = 0; t < n; ++t) {
    at::Tensor sum = inputs[t].flatten() * weights[0];
    for (std::size_t j = 0; j + 1 < weights.size(); ++j) {
      sum += arrivals[j * n + t] * weights[j + 1];
    }
    outputs[t].copy_(sum.view(outputs[t].sizes()));
  }
}

/// Powers of two that differ by source, so that the results are exact and none can be mixed up.
inline Plan weighted(const Graph& graph, int rank) {
  std::vector<Edge> sources = graph.plan(rank).sources();
  for (Edge& source : sources) source.weight = std::ldexp(1.0, -2 - source.rank);
  return Plan(rank, graph.size, 0.5, std::move(sources), graph.plan(rank).destinations());
}

inline at::Tensor values(int rank, int step, std::int64_t count = kCount) {
  return at::arange(count, kDouble).remainder(13) + 100.0 * rank + step;
}

inline at::Tensor averaged(const Plan& plan, const std::function<at::Tensor(int)>& x) {
  at::Tensor y = x(plan.rank()) * plan.self_weight();
  for (const Edge& source : plan.sources()) y += x(source.rank) * source.weight;
  return y;
}

inline void expect_equal(const at::Tensor& got, const at::Tensor& expected,
                         const std::string& where) {
  if (!at::equal(got.flatten().to(at::kDouble), expected.flatten())) {
    throw std::runtime_error("wrong result: " + where);
  }
}

}  // namespace bluefog::test
