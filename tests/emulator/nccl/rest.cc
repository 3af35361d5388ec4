// The emulated NCCL's version and messages, and the functions that it has only by name because
// libtorch_cuda.so wants them.
#include "nccl/group.h"

namespace emulator::nccl {
namespace {

ncclResult_t refuse(const char* call) {
  return record(Error(ncclInvalidUsage, std::string("the emulated NCCL has no ") + call));
}

}  // namespace
}  // namespace emulator::nccl

using namespace emulator::nccl;

ncclResult_t ncclGetVersion(int* version) {
  *version = NCCL_VERSION_CODE;
  return ncclSuccess;
}

const char* ncclGetErrorString(ncclResult_t result) {
  switch (static_cast<int>(result)) {
    case ncclSuccess:
      return "no error";
    case ncclUnhandledCudaError:
      return "unhandled cuda error (run with NCCL_DEBUG=INFO for details)";
    case ncclSystemError:
      return "unhandled system error (run with NCCL_DEBUG=INFO for details)";
    case ncclInternalError:
      return "internal error - please report this issue to the NCCL developers";
    case ncclInvalidArgument:
      return "invalid argument (run with NCCL_DEBUG=WARN for details)";
    case ncclInvalidUsage:
      return "invalid usage (run with NCCL_DEBUG=WARN for details)";
    case ncclRemoteError:
      return "remote process exited or there was a network error";
    case ncclInProgress:
      return "NCCL operation in progress";
    default:
      return "unknown result code";
  }
}

const char* ncclGetLastError(ncclComm_t) { return last_error(); }

ncclResult_t ncclCommShrink(ncclComm_t, int*, int, ncclComm_t*, ncclConfig_t*, int) {
  return refuse("ncclCommShrink");
}

#if NCCL_VERSION_CODE >= NCCL_VERSION(2, 29, 0)

ncclResult_t ncclCommGetUniqueId(ncclComm_t, ncclUniqueId*) {
  return refuse("ncclCommGetUniqueId");
}

ncclResult_t ncclCommGrow(ncclComm_t, int, const ncclUniqueId*, int, ncclComm_t*, ncclConfig_t*) {
  return refuse("ncclCommGrow");
}

ncclResult_t ncclCommRevoke(ncclComm_t, int) { return refuse("ncclCommRevoke"); }

ncclResult_t ncclCommSuspend(ncclComm_t, int) { return refuse("ncclCommSuspend"); }

ncclResult_t ncclCommResume(ncclComm_t) { return refuse("ncclCommResume"); }

ncclResult_t ncclCommMemStats(ncclComm_t, ncclCommMemStat_t, uint64_t* value) {
  *value = 0;
  return ncclSuccess;
}

#endif

// Of nccl_device.h, by their names alone: it is not needed for what takes no argument seriously.
#define EMULATED_DEVICE_CALL(name) \
  extern "C" __attribute__((visibility("default"))) ncclResult_t name() { return refuse(#name); }
EMULATED_DEVICE_CALL(ncclDevCommCreate)
EMULATED_DEVICE_CALL(ncclDevCommDestroy)
EMULATED_DEVICE_CALL(ncclGetLsaMultimemDevicePointer)
EMULATED_DEVICE_CALL(ncclGetPeerDevicePointer)
