// One-sided memory between GPUs of different hosts, for windows.
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <utility>

#include "backend/bluefog_backend.h"
#include "base/error.h"

namespace bluefog {

std::unique_ptr<nccl::Puts> BluefogBackend::makePuts(at::Device device, std::size_t nbytes,
                                                     std::vector<int> sources,
                                                     std::vector<int> destinations) {
  check_process();
  if (closed_) {
    fail(ErrorCode::kAborted, "rank ", getRank(), "'s process group has been destroyed or aborted");
  }
  const auto library = makers_.nccl();
  c10d::PrefixStore store(concat("puts/", ++puts_made_), store_);
  return std::make_unique<nccl::Puts>(
      library->nccl, store,
      nccl::Puts::Options{
          .edges = {getRank(), getSize(), nbytes, std::move(sources), std::move(destinations)},
          .device = device,
          .timeout = options_->timeout,
          .name = concat("bluefog puts of ", options_->group_name),
          .hooks = library->hooks});
}

}  // namespace bluefog
