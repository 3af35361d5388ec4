// An emulated NCCL, for processes whose GPUs are emulated too: communicators. Device
// memory is memory of the process; what goes between ranks goes by unix sockets.
#include <sys/random.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "nccl/exchange.h"
#include "nccl/group.h"
#include "nccl/handles.h"

namespace emulator::nccl {
namespace {

int current_device() {
  int device = 0;
  require(cudaGetDevice(&device) == cudaSuccess, "there is no device", ncclUnhandledCudaError);
  return device;
}

bool is_blocking(const ncclConfig_t* config, bool otherwise) {
  if (config == nullptr) return otherwise;
  constexpr unsigned kMagic = 0xcafebeef;
  require(config->magic == kMagic, "the configuration was not made by NCCL_CONFIG_INITIALIZER");
  return config->blocking == NCCL_CONFIG_UNDEF_INT || config->blocking != 0;
}

ncclUniqueId random_id() {
  ncclUniqueId id;
  require(::getrandom(id.internal, sizeof(id.internal), 0) == sizeof(id.internal),
          "no random bytes", ncclSystemError);
  return id;
}

/// A blocking call that fails leaves no communicator.
void connect(Communicator& communicator, const ncclUniqueId& id, ncclComm_t* comm,
             const Stop& stop = {}) {
  try {
    communicator.connect(id, stop);
  } catch (...) {
    if (communicator.blocking) remove_handle(std::exchange(*comm, nullptr));
    throw;
  }
}

void init(ncclComm_t* comm, int size, const ncclUniqueId& id, int rank, int device, bool blocking) {
  require(comm != nullptr, "there is no place for the communicator");
  *comm = nullptr;
  require(size > 0 && rank >= 0 && rank < size,
          "rank " + std::to_string(rank) + " of " + std::to_string(size) + " is no rank");
  const auto made = std::make_shared<Communicator>(rank, size, device, blocking);
  *comm = add_handle(made);
  post_job(made, [made = made.get(), id, comm] { connect(*made, id, comm); });
}

/// What each rank says to a split.
struct Share {
  int color;
  int key;
  int rank;
  ncclUniqueId id;
};

void split(const Communicator& parent, int color, int key, bool blocking, ncclComm_t* comm) {
  auto shares =
      gather_all(parent.mesh(), Share{color, key, parent.rank, random_id()}, parent.stop());
  if (color == NCCL_SPLIT_NOCOLOR) return;
  std::erase_if(shares, [&](const Share& share) { return share.color != color; });
  std::ranges::stable_sort(shares, {}, &Share::key);
  const auto own = std::ranges::find(shares, parent.rank, &Share::rank);
  const auto child =
      std::make_shared<Communicator>(static_cast<int>(own - shares.begin()),
                                     static_cast<int>(shares.size()), parent.device, blocking);
  *comm = add_handle(child);
  child->begin_job();
  const ncclResult_t result =
      child->run_job([&] { connect(*child, shares[0].id, comm, parent.stop()); });
  require(result == ncclSuccess, "the child was not connected", result);
}

void destroy(ncclComm_t comm) {
  const auto gone = find(comm);
  if (gone->blocking) gone->finalize();
  remove_handle(comm);
  if (gone->idle()) gone->abort();
}

}  // namespace
}  // namespace emulator::nccl

using namespace emulator::nccl;

ncclResult_t ncclGetUniqueId(ncclUniqueId* id) {
  return guarded([&] { *id = random_id(); });
}

ncclResult_t ncclCommInitRankConfig(ncclComm_t* comm, int size, ncclUniqueId id, int rank,
                                    ncclConfig_t* config) {
  return grouped([&] { init(comm, size, id, rank, current_device(), is_blocking(config, true)); });
}

ncclResult_t ncclCommInitRank(ncclComm_t* comm, int size, ncclUniqueId id, int rank) {
  return ncclCommInitRankConfig(comm, size, id, rank, nullptr);
}

ncclResult_t ncclCommInitRankScalable(ncclComm_t* comm, int size, int rank, int id_count,
                                      ncclUniqueId* ids, ncclConfig_t* config) {
  if (id_count < 1) return record(Error(ncclInvalidArgument, "there is no id"));
  return ncclCommInitRankConfig(comm, size, ids[0], rank, config);
}

ncclResult_t ncclCommInitAll(ncclComm_t* comms, int count, const int* devices) {
  return grouped([&] {
    const ncclUniqueId id = random_id();
    for (int i = 0; i < count; ++i) {
      init(&comms[i], count, id, i, devices == nullptr ? i : devices[i], true);
    }
  });
}

ncclResult_t ncclCommSplit(ncclComm_t comm, int color, int key, ncclComm_t* child,
                           ncclConfig_t* config) {
  return grouped([&] {
    const auto parent = find(comm);
    parent->check_ready();
    require(color >= 0 || color == NCCL_SPLIT_NOCOLOR, "a color must not be negative");
    require(child != nullptr, "there is no place for the communicator");
    *child = nullptr;
    const bool blocking = is_blocking(config, parent->blocking);
    post_job(parent, [=, parent = parent.get()] { split(*parent, color, key, blocking, child); });
  });
}

ncclResult_t ncclCommFinalize(ncclComm_t comm) {
  return grouped([&] {
    const auto communicator = find(comm);
    communicator->check_ready();
    post_job(communicator, [communicator = communicator.get()] { communicator->finalize(); });
  });
}

ncclResult_t ncclCommDestroy(ncclComm_t comm) {
  if (comm == nullptr) return ncclSuccess;
  return guarded([&] { destroy(comm); });
}

ncclResult_t ncclCommAbort(ncclComm_t comm) {
  if (comm == nullptr) return ncclSuccess;
  return guarded([&] {
    const auto communicator = find(comm);
    remove_handle(comm);
    communicator->abort();
  });
}

ncclResult_t ncclCommGetAsyncError(ncclComm_t comm, ncclResult_t* state) {
  return guarded([&] { *state = find(comm)->state(); });
}

ncclResult_t ncclCommCount(const ncclComm_t comm, int* count) {
  return guarded([&] { *count = find(comm)->size; });
}

ncclResult_t ncclCommCuDevice(const ncclComm_t comm, int* device) {
  return guarded([&] { *device = find(comm)->device; });
}

ncclResult_t ncclCommUserRank(const ncclComm_t comm, int* rank) {
  return guarded([&] { *rank = find(comm)->rank; });
}

ncclResult_t ncclGroupStart() {
  start_group();
  return ncclSuccess;
}

ncclResult_t ncclGroupEnd() { return end_group(); }

ncclResult_t ncclGroupSimulateEnd(ncclSimInfo_t* info) {
  if (info != nullptr) info->estimatedTime = 0;
  return drop_group();
}
