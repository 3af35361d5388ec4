#include "cuda/loaded_nccl.h"

#include <c10/cuda/CUDAException.h>
#include <cuda_runtime.h>
#include <dlfcn.h>
#include <nccl.h>

#include <bit>
#include <tuple>

#include "base/error.h"

namespace bluefog::nccl {
namespace {

static_assert(sizeof(UniqueId) == sizeof(ncclUniqueId));
static_assert(static_cast<int>(Result::kSuccess) == ncclSuccess);
static_assert(static_cast<int>(Result::kUnhandledCudaError) == ncclUnhandledCudaError);
static_assert(static_cast<int>(Result::kSystemError) == ncclSystemError);
static_assert(static_cast<int>(Result::kInternalError) == ncclInternalError);
static_assert(static_cast<int>(Result::kInvalidArgument) == ncclInvalidArgument);
static_assert(static_cast<int>(Result::kInvalidUsage) == ncclInvalidUsage);
static_assert(static_cast<int>(Result::kRemoteError) == ncclRemoteError);
static_assert(static_cast<int>(Result::kInProgress) == ncclInProgress);
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 30, 0)
#define BLUEFOG_NCCL_HAS_MAX_P2P_PEERS
static_assert(static_cast<int>(Result::kTimeout) == ncclTimeout);
#endif

#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 29, 0)
#define BLUEFOG_NCCL_HAS_PUT_SIGNAL
#endif

constexpr int kOldest = NCCL_VERSION(2, 18, 0);

Result result_of(ncclResult_t result) { return static_cast<Result>(result); }
ncclComm_t native(Comm comm) { return reinterpret_cast<ncclComm_t>(comm); }
ncclComm_t* native(Comm* comm) { return reinterpret_cast<ncclComm_t*>(comm); }
cudaStream_t native(void* stream) { return static_cast<cudaStream_t>(stream); }
#ifdef BLUEFOG_NCCL_HAS_PUT_SIGNAL
ncclWindow_t native(Window window) { return reinterpret_cast<ncclWindow_t>(window); }
ncclWindow_t* native(Window* window) { return reinterpret_cast<ncclWindow_t*>(window); }
#endif

/// The library's calls, each with the type that the header gives it.
class Library {
 public:
  Library() : handle_(dlopen("libnccl.so.2", RTLD_NOLOAD | RTLD_NOW)) {
    if (handle_ == nullptr) {
      fail(ErrorCode::kSystem,
           "torch has loaded no libnccl.so.2: a communicator of bluefog's own cannot be had with "
           "this build of torch");
    }
  }
  ~Library() { dlclose(handle_); }
  Library(const Library&) = delete;
  Library& operator=(const Library&) = delete;

  /// Null where it has none.
  template <typename Function>
  Function* find_if_any(const char* name) const {
    return reinterpret_cast<Function*>(dlsym(handle_, name));
  }

  template <typename Function>
  Function* find(const char* name) const {
    Function* const symbol = find_if_any<Function>(name);
    if (symbol == nullptr) {
      fail(ErrorCode::kSystem, "the libnccl.so.2 that torch has loaded has no ", name);
    }
    return symbol;
  }

 private:
  void* const handle_;
};

// Size and version in the header's initializer tell the library how much of the struct there is: an
// older library reads what it knows, a newer one takes its defaults for the rest.
ncclConfig_t native(const Config& config, [[maybe_unused]] bool has_max_p2p_peers) {
  ncclConfig_t native = NCCL_CONFIG_INITIALIZER;
  native.blocking = config.blocking;
#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 27, 0)
  if (config.name != nullptr) native.commName = config.name;
#endif
#ifdef BLUEFOG_NCCL_HAS_MAX_P2P_PEERS
  if (has_max_p2p_peers && config.max_p2p_peers > 0) native.maxP2pPeers = config.max_p2p_peers;
#endif
  return native;
}

class LoadedNccl final : public NcclApi {
 public:
  LoadedNccl() {
    get_version_(&version_);
    if (version_ < kOldest) {
      fail(ErrorCode::kSystem, "torch has loaded NCCL ", dotted(version_),
           "; a communicator of bluefog's own needs ", dotted(kOldest), " or newer");
    }
  }

  int version() const override { return version_; }
  bool has_max_p2p_peers() const override {
#ifdef BLUEFOG_NCCL_HAS_MAX_P2P_PEERS
    return version_ >= NCCL_VERSION(2, 30, 0);
#else
    return false;
#endif
  }

  bool has_put_signal() const override {
#ifdef BLUEFOG_NCCL_HAS_PUT_SIGNAL
    return version_ >= NCCL_VERSION(2, 29, 0) && mem_alloc_ && mem_free_ && window_register_ &&
           window_deregister_ && put_signal_ && signal_ && wait_signal_;
#else
    return false;
#endif
  }

  Result get_unique_id(UniqueId& id) override {
    ncclUniqueId native_id = {};
    const Result result = result_of(get_unique_id_(&native_id));
    id = std::bit_cast<UniqueId>(native_id);
    return result;
  }
  Result comm_init_rank(Comm& comm, int size, const UniqueId& id, int rank,
                        const Config& config) override {
    ncclConfig_t native_config = native(config, has_max_p2p_peers());
    return result_of(comm_init_rank_config_(native(&comm), size, std::bit_cast<ncclUniqueId>(id),
                                            rank, &native_config));
  }
  Result comm_split(Comm parent, int color, int key, Comm& child, const Config& config) override {
    ncclConfig_t native_config = native(config, has_max_p2p_peers());
    return result_of(comm_split_(native(parent), color, key, native(&child), &native_config));
  }
  Result comm_get_async_error(Comm comm, Result& state) override {
    ncclResult_t native_state = ncclSuccess;
    const Result result = result_of(comm_get_async_error_(native(comm), &native_state));
    state = result_of(native_state);
    return result;
  }
  Result comm_finalize(Comm comm) override { return result_of(comm_finalize_(native(comm))); }
  Result comm_destroy(Comm comm) override { return result_of(comm_destroy_(native(comm))); }
  Result comm_abort(Comm comm) override { return result_of(comm_abort_(native(comm))); }

  Result send(const void* data, std::size_t bytes, int peer, Comm comm, void* stream) override {
    return result_of(send_(data, bytes, ncclUint8, peer, native(comm), native(stream)));
  }
  Result recv(void* data, std::size_t bytes, int peer, Comm comm, void* stream) override {
    return result_of(recv_(data, bytes, ncclUint8, peer, native(comm), native(stream)));
  }
  Result group_start() override { return result_of(group_start_()); }
  Result group_end() override { return result_of(group_end_()); }

#ifdef BLUEFOG_NCCL_HAS_PUT_SIGNAL
  Result mem_alloc(void*& memory, std::size_t bytes) override {
    return result_of(mem_alloc_(&memory, bytes));
  }
  Result mem_free(void* memory) override { return result_of(mem_free_(memory)); }
  Result window_register(Comm comm, void* memory, std::size_t bytes, Window& window) override {
    return result_of(
        window_register_(native(comm), memory, bytes, native(&window), NCCL_WIN_COLL_SYMMETRIC));
  }
  Result window_deregister(Comm comm, Window window) override {
    return result_of(window_deregister_(native(comm), native(window)));
  }

  // Signal index, context and flags are 0: NCCL takes no others.
  Result put_signal(const void* data, std::size_t bytes, int peer, Window window,
                    std::size_t offset, Comm comm, void* stream) override {
    return result_of(put_signal_(data, bytes, ncclUint8, peer, native(window), offset, 0, 0, 0,
                                 native(comm), native(stream)));
  }
  Result signal(int peer, Comm comm, void* stream) override {
    return result_of(signal_(peer, 0, 0, 0, native(comm), native(stream)));
  }
  Result wait_signal(int peer, Comm comm, void* stream) override {
    ncclWaitSignalDesc_t once = {.opCnt = 1, .peer = peer, .sigIdx = 0, .ctx = 0};
    return result_of(wait_signal_(1, &once, native(comm), native(stream)));
  }
#else
  Result mem_alloc(void*&, std::size_t) override { return Result::kInvalidUsage; }
  Result mem_free(void*) override { return Result::kInvalidUsage; }
  Result window_register(Comm, void*, std::size_t, Window&) override {
    return Result::kInvalidUsage;
  }
  Result window_deregister(Comm, Window) override { return Result::kInvalidUsage; }
  Result put_signal(const void*, std::size_t, int, Window, std::size_t, Comm, void*) override {
    return Result::kInvalidUsage;
  }
  Result signal(int, Comm, void*) override { return Result::kInvalidUsage; }
  Result wait_signal(int, Comm, void*) override { return Result::kInvalidUsage; }
#endif

  std::string error_string(Result result) override {
    return get_error_string_(static_cast<ncclResult_t>(result));
  }
  std::string last_error(Comm comm) override {
    const char* const text = get_last_error_(native(comm));
    return text == nullptr ? "" : text;
  }

 private:
#define BLUEFOG_CALL(member, name) \
  decltype(&name) const member = library_.find<std::remove_pointer_t<decltype(&name)>>(#name)

  const Library library_;
  BLUEFOG_CALL(get_version_, ncclGetVersion);
  BLUEFOG_CALL(get_unique_id_, ncclGetUniqueId);
  BLUEFOG_CALL(comm_init_rank_config_, ncclCommInitRankConfig);
  BLUEFOG_CALL(comm_split_, ncclCommSplit);
  BLUEFOG_CALL(comm_get_async_error_, ncclCommGetAsyncError);
  BLUEFOG_CALL(comm_finalize_, ncclCommFinalize);
  BLUEFOG_CALL(comm_destroy_, ncclCommDestroy);
  BLUEFOG_CALL(comm_abort_, ncclCommAbort);
  BLUEFOG_CALL(send_, ncclSend);
  BLUEFOG_CALL(recv_, ncclRecv);
  BLUEFOG_CALL(group_start_, ncclGroupStart);
  BLUEFOG_CALL(group_end_, ncclGroupEnd);
  BLUEFOG_CALL(get_error_string_, ncclGetErrorString);
  BLUEFOG_CALL(get_last_error_, ncclGetLastError);
#undef BLUEFOG_CALL
#ifdef BLUEFOG_NCCL_HAS_PUT_SIGNAL
#define BLUEFOG_NEWER_CALL(member, name) \
  decltype(&name) const member = library_.find_if_any<std::remove_pointer_t<decltype(&name)>>(#name)

  BLUEFOG_NEWER_CALL(mem_alloc_, ncclMemAlloc);
  BLUEFOG_NEWER_CALL(mem_free_, ncclMemFree);
  BLUEFOG_NEWER_CALL(window_register_, ncclCommWindowRegister);
  BLUEFOG_NEWER_CALL(window_deregister_, ncclCommWindowDeregister);
  BLUEFOG_NEWER_CALL(put_signal_, ncclPutSignal);
  BLUEFOG_NEWER_CALL(signal_, ncclSignal);
  BLUEFOG_NEWER_CALL(wait_signal_, ncclWaitSignal);
#undef BLUEFOG_NEWER_CALL
#endif

  int version_ = 0;
};

}  // namespace

std::unique_ptr<NcclApi> load_nccl() { return std::make_unique<LoadedNccl>(); }

DeviceHooks cuda_hooks() {
  return {.is_capturing =
              [](const c10::Stream& stream) {
                cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
                C10_CUDA_CHECK(cudaStreamIsCapturing(native(stream.native_handle()), &status));
                return status != cudaStreamCaptureStatusNone;
              },
          .watchdog_thread =
              [] {
                cudaStreamCaptureMode mode = cudaStreamCaptureModeThreadLocal;
                C10_CUDA_CHECK(cudaThreadExchangeStreamCaptureMode(&mode));
              }};
}

void bind_nccl(pybind11::module_& module) {
  module.def(
      "load_nccl", [] { return std::make_shared<CudaLibrary>(load_nccl(), cuda_hooks()); },
      "For BluefogBackend's own communicator.");
  module.def(
      "nccl_version",
      [] {
        const int version = load_nccl()->version();
        return std::tuple(version / 10000, version / 100 % 100, version % 100);
      },
      "The NCCL that torch has loaded, as (major, minor, patch).");
}

}  // namespace bluefog::nccl
