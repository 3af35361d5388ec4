// The calls of NCCL that OwnWire and Puts make, as a virtual face: LoadedNccl (csrc/cuda) is the
// library, the tests have a recorder. Nothing here needs nccl.h, so that all who use it build
// without CUDA.
//
// Thread-safe as NCCL is: calls on different communicators may run at once, those on one may not,
// and a group belongs to its thread.
#pragma once

#include <array>
#include <cstddef>
#include <string>

#include "base/error.h"

namespace bluefog::nccl {

/// ncclResult_t, by value. Newer libraries may return others.
enum class Result : int {
  kSuccess = 0,
  kUnhandledCudaError = 1,
  kSystemError = 2,
  kInternalError = 3,
  kInvalidArgument = 4,
  kInvalidUsage = 5,
  kRemoteError = 6,
  kInProgress = 7,
  kTimeout = 8,  // from 2.30
};

/// ncclUniqueId.
struct UniqueId {
  std::array<char, 128> bytes{};
};

/// ncclComm_t.
using Comm = struct OpaqueComm*;

/// ncclWindow_t.
using Window = struct OpaqueWindow*;

/// What of ncclConfig_t is set; the rest keeps NCCL's defaults.
struct Config {
  bool blocking = false;
  /// Most peers that any rank has at a time, the same on all ranks; 0 means all of them. Ignored
  /// where has_max_p2p_peers() is false.
  int max_p2p_peers = 0;
  /// For NCCL's messages; null for none. Must outlive the communicator.
  const char* name = nullptr;
};

/// Of a version number as NCCL_VERSION_CODE has it: "2.28.9" of 22809.
inline std::string dotted(int version) {
  return concat(version / 10000, ".", version / 100 % 100, ".", version % 100);
}

class NcclApi {
 public:
  virtual ~NcclApi() = default;

  /// As NCCL_VERSION_CODE has it: 22809 is 2.28.9.
  virtual int version() const = 0;
  virtual bool has_max_p2p_peers() const = 0;
  /// Whether the one-sided calls below may be made: from 2.29, where our own build knows them too.
  virtual bool has_put_signal() const = 0;

  virtual Result get_unique_id(UniqueId& id) = 0;
  virtual Result comm_init_rank(Comm& comm, int size, const UniqueId& id, int rank,
                                const Config& config) = 0;
  /// Of a non-blocking parent, `child` is written by the time that the parent is no longer
  /// kInProgress, and must stay where it is until then.
  virtual Result comm_split(Comm parent, int color, int key, Comm& child, const Config& config) = 0;
  virtual Result comm_get_async_error(Comm comm, Result& state) = 0;
  virtual Result comm_finalize(Comm comm) = 0;
  virtual Result comm_destroy(Comm comm) = 0;
  virtual Result comm_abort(Comm comm) = 0;

  /// `stream` is c10::Stream::native_handle(). All is sent as bytes, whatever its type.
  virtual Result send(const void* data, std::size_t bytes, int peer, Comm comm, void* stream) = 0;
  virtual Result recv(void* data, std::size_t bytes, int peer, Comm comm, void* stream) = 0;
  virtual Result group_start() = 0;
  virtual Result group_end() = 0;

  /// Memory of the current device that can be a window. After mem_free() of what is still one,
  /// nothing may be put into it or from it.
  virtual Result mem_alloc(void*& memory, std::size_t bytes) = 0;
  virtual Result mem_free(void* memory) = 0;
  /// Collective, with the same number of bytes. `window` is written by the time that the
  /// communicator is no longer kInProgress, and must stay where it is until then; it is null where
  /// the ranks cannot have one.
  virtual Result window_register(Comm comm, void* memory, std::size_t bytes, Window& window) = 0;
  virtual Result window_deregister(Comm comm, Window window) = 0;

  /// Writes `bytes` from this rank's window to `offset` in the peer's side of `window`, and then
  /// raises this rank's signal there. wait_signal() is for the next signal of a peer, each once.
  virtual Result put_signal(const void* data, std::size_t bytes, int peer, Window window,
                            std::size_t offset, Comm comm, void* stream) = 0;
  virtual Result signal(int peer, Comm comm, void* stream) = 0;
  virtual Result wait_signal(int peer, Comm comm, void* stream) = 0;

  virtual std::string error_string(Result result) = 0;
  /// The library's last complaint, which may be of another communicator; may be empty.
  virtual std::string last_error(Comm comm) = 0;
};

}  // namespace bluefog::nccl
