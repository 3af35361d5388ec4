#include "nccl/handles.h"

#include <map>
#include <mutex>
#include <utility>

struct ncclComm {};

namespace emulator::nccl {
namespace {

// Leaked, as streams' threads may be at work when the process exits.
struct Handles {
  std::mutex mutex;
  std::map<ncclComm_t, std::shared_ptr<Communicator>> communicators;
};
Handles& handles() {
  static Handles* const all = new Handles();
  return *all;
}

}  // namespace

ncclComm_t add_handle(std::shared_ptr<Communicator> communicator) {
  const std::lock_guard lock(handles().mutex);
  const auto handle = new ncclComm();
  handles().communicators[handle] = std::move(communicator);
  return handle;
}

void remove_handle(ncclComm_t handle) {
  const std::lock_guard lock(handles().mutex);
  handles().communicators.erase(handle);
}

std::shared_ptr<Communicator> find(ncclComm_t handle) {
  const std::lock_guard lock(handles().mutex);
  const auto found = handles().communicators.find(handle);
  if (found == handles().communicators.end()) {
    throw Error(ncclInvalidArgument, "no such communicator, or none any more");
  }
  return found->second;
}

}  // namespace emulator::nccl
