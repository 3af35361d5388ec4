// The emulated NCCL's windows and memory, and its calls that the peer takes no part in.
#include <cstdint>
#include <map>
#include <mutex>
#include <utility>

#include "nccl/group.h"
#include "nccl/handles.h"
#include "nccl/reduce.h"
#include "nccl/window.h"

namespace emulator::nccl {
namespace {

constexpr std::size_t kAlignment = 4096;

std::shared_ptr<Communicator> ready(ncclComm_t comm) {
  auto communicator = find(comm);
  communicator->check_ready();
  return communicator;
}

[[maybe_unused]] Window* window_of(ncclWindow_t window) {
  require(window != nullptr, "there is no window");
  return reinterpret_cast<Window*>(window);
}

#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 29, 0)
// NCCL takes no other indices, contexts and flags.
void check_signal(const Communicator& communicator, int peer, int index, int context,
                  unsigned flags) {
  require(peer >= 0 && peer < communicator.size, "there is no rank " + std::to_string(peer));
  require(index == 0 && context == 0 && flags == 0,
          "a signal's index, context and flags must be 0");
}
#endif

}  // namespace
}  // namespace emulator::nccl

using namespace emulator::nccl;

ncclResult_t ncclMemAlloc(void** memory, size_t bytes) {
  return guarded([&] {
    const std::size_t whole = (bytes + kAlignment - 1) / kAlignment * kAlignment;
    require(cudaMalloc(memory, whole) == cudaSuccess, "cudaMalloc failed", ncclUnhandledCudaError);
  });
}

ncclResult_t ncclMemFree(void* memory) {
  return guarded(
      [&] { require(cudaFree(memory) == cudaSuccess, "cudaFree failed", ncclUnhandledCudaError); });
}

ncclResult_t ncclCommRegister(const ncclComm_t comm, void* memory, size_t, void** handle) {
  return guarded([&] {
    ready(comm);
    *handle = memory;
  });
}

ncclResult_t ncclCommDeregister(const ncclComm_t comm, void*) {
  return guarded([&] { find(comm); });
}

ncclResult_t ncclCommWindowRegister(ncclComm_t comm, void* memory, size_t bytes,
                                    ncclWindow_t* window, int) {
  return grouped([&] {
    const auto communicator = ready(comm);
    require(memory != nullptr && window != nullptr, "there is no memory, or no place for a window");
    require(reinterpret_cast<std::uintptr_t>(memory) % kAlignment == 0,
            "a window must be aligned to " + std::to_string(kAlignment) + " bytes");
    *window = nullptr;
    post_job(communicator, [communicator = communicator.get(), memory, bytes, window] {
      *window = reinterpret_cast<ncclWindow_t>(Window::create(*communicator, memory, bytes));
    });
  });
}

ncclResult_t ncclCommWindowDeregister(ncclComm_t comm, ncclWindow_t window) {
  return guarded([&] { find(comm)->remove(window_of(window)); });
}

#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 29, 0)

ncclResult_t ncclWinGetUserPtr(ncclComm_t comm, ncclWindow_t window, void** memory) {
  return guarded([&] {
    find(comm);
    *memory = window_of(window)->memory();
  });
}

ncclResult_t ncclPutSignal(const void* data, size_t count, ncclDataType_t type, int peer,
                           ncclWindow_t window, size_t offset, int index, int context,
                           unsigned flags, ncclComm_t comm, cudaStream_t stream) {
  return grouped([&] {
    const auto shared = ready(comm);
    Communicator* const communicator = shared.get();
    check_signal(*communicator, peer, index, context, flags);
    require(size_of(type) > 0, "there is no such data type");
    const std::size_t bytes = count * size_of(type);
    Window* const target = window_of(window);
    require(communicator->has(target), "the communicator has no such window");
    require(target->fits(offset, bytes), "the put does not fit into its window");
    require(communicator->in_window(data, bytes), "what is put is in no window");
    post_one_sided(shared, stream, false, [=] {
      target->put(peer, offset, data, bytes);
      communicator->signals().raise(communicator->rank, peer);
    });
  });
}

ncclResult_t ncclSignal(int peer, int index, int context, unsigned flags, ncclComm_t comm,
                        cudaStream_t stream) {
  return grouped([&] {
    const auto shared = ready(comm);
    Communicator* const communicator = shared.get();
    check_signal(*communicator, peer, index, context, flags);
    post_one_sided(shared, stream, false,
                   [=] { communicator->signals().raise(communicator->rank, peer); });
  });
}

ncclResult_t ncclWaitSignal(int count, ncclWaitSignalDesc_t* waits, ncclComm_t comm,
                            cudaStream_t stream) {
  return grouped([&] {
    const auto shared = ready(comm);
    Communicator* const communicator = shared.get();
    for (int i = 0; i < count; ++i) {
      const ncclWaitSignalDesc_t wait = waits[i];
      check_signal(*communicator, wait.peer, wait.sigIdx, wait.ctx, 0);
      require(wait.opCnt >= 0, "a number of signals must not be negative");
      post_one_sided(shared, stream, true, [=] {
        communicator->signals().wait(communicator->mesh(), wait.peer, wait.opCnt,
                                     communicator->stop());
      });
    }
  });
}

#endif
