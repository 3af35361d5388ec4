// A large all_reduce in two exchanges: every rank sums its share of the tensor for all, then they
// hand each other the sums. Each reads and writes about twice the tensor, however many they are.
#pragma once

#include "backend/executor.h"

namespace bluefog {

/// Makes `task`, whose plan joins all ranks with each other, the weighted sum of all ranks' `data`,
/// in place and in the order of ranks: `nbytes` bytes of `dtype`. Sets payload, sink and `then`.
void sum_in_shares(Task& task, DType dtype, std::byte* data, std::size_t nbytes);

}  // namespace bluefog
