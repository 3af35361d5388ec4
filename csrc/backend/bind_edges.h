// In Python an edge is a tuple (rank, weight).
#pragma once

#include <torch/csrc/utils/pybind.h>

#include <utility>

#include "plan/plan.h"

namespace pybind11::detail {

template <>
struct type_caster<bluefog::Edge> {
  PYBIND11_TYPE_CASTER(bluefog::Edge, const_name("tuple[int, float]"));

  bool load(handle source, bool convert) {
    make_caster<std::pair<int, double>> pair;
    if (!pair.load(source, convert)) return false;
    const auto [rank, weight] = cast_op<std::pair<int, double>>(pair);
    value = {rank, weight};
    return true;
  }

  static handle cast(const bluefog::Edge& edge, return_value_policy, handle) {
    return make_tuple(edge.rank, edge.weight).release();
  }
};

}  // namespace pybind11::detail
