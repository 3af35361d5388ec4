#include "transport/nccl/wire.h"

#include <algorithm>
#include <utility>

namespace bluefog::nccl {

std::uint64_t Round::bytes_sent() const {
  std::uint64_t bytes = 0;
  for (const Transfer& transfer : transfers) {
    if (transfer.direction == Transfer::kSend) bytes += transfer.tensor.nbytes();
  }
  return bytes;
}

void canonical_order(int rank, std::vector<Transfer>& transfers) {
  const auto edge = [rank](const Transfer& transfer) {
    return transfer.direction == Transfer::kSend ? std::pair(rank, transfer.peer)
                                                 : std::pair(transfer.peer, rank);
  };
  std::stable_sort(transfers.begin(), transfers.end(),
                   [&](const Transfer& a, const Transfer& b) { return edge(a) < edge(b); });
}

}  // namespace bluefog::nccl
