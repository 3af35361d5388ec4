#include "nccl/seats.h"

#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "nccl/exchange.h"

namespace emulator::nccl {
namespace {

/// What NCCL tells the GPUs of ranks apart by.
struct Seat {
  int device;
  std::size_t host;
  bool may_share;
};

Seat seat_on(int device) {
  const char* const host = std::getenv("NCCL_HOSTID");
  const char* const share = std::getenv("NCCL_MULTI_RANK_GPU_ENABLE");
  const bool knows = NCCL_VERSION_CODE >= NCCL_VERSION(2, 30, 0);
  return {device, std::hash<std::string>()(host ? host : ""),
          knows && share != nullptr && std::string(share) == "1"};
}

void check_apart(const std::vector<Seat>& seats) {
  for (std::size_t i = 0; i < seats.size(); ++i) {
    for (std::size_t j = 0; j < i; ++j) {
      if (seats[i].may_share || seats[i].device != seats[j].device ||
          seats[i].host != seats[j].host) {
        continue;
      }
      throw Error(ncclInvalidUsage, "Duplicate GPU detected : rank " + std::to_string(j) +
                                        " and rank " + std::to_string(i) + " both on device " +
                                        std::to_string(seats[i].device));
    }
  }
}

}  // namespace

void check_gpus(const Mesh& mesh, int device, const Stop& stop) {
  check_apart(gather_all(mesh, seat_on(device), stop));
}

}  // namespace emulator::nccl
