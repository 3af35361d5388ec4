// Plans of collectives, which all ranks of a group take part in.
#pragma once

#include "plan/plan.h"

namespace bluefog {

/// Each of `size` ranks receives from all others, and gives `weight` to every value, its own too.
/// Sources ascend, so that sums are made in the order of ranks.
Plan all_to_all(int rank, int size, double weight);

/// `root` sends to all others.
Plan from_root(int rank, int size, int root);

}  // namespace bluefog
