// The library calls itself libcuda.so.1: torch links its run-time compiler with that, which looks
// for all of these when CUDA is first used. No cuda.h here, which would want their parameters.
#include <cstdio>
#include <cstdlib>

#include "cuda/stream.h"

#define NOT_EMULATED(name)                                               \
  extern "C" EMULATOR_API int name() {                                   \
    std::fprintf(stderr, "%s is not part of the emulated GPU\n", #name); \
    std::abort();                                                        \
  }

NOT_EMULATED(cuCtxSetCurrent)
NOT_EMULATED(cuDeviceGet)
NOT_EMULATED(cuDeviceGetAttribute)
NOT_EMULATED(cuDevicePrimaryCtxRetain)
NOT_EMULATED(cuFuncGetAttribute)
NOT_EMULATED(cuFuncSetAttribute)
NOT_EMULATED(cuFuncSetCacheConfig)
NOT_EMULATED(cuGetErrorString)
NOT_EMULATED(cuLaunchCooperativeKernel)
NOT_EMULATED(cuLaunchKernel)
NOT_EMULATED(cuLinkAddData_v2)
NOT_EMULATED(cuLinkComplete)
NOT_EMULATED(cuLinkCreate_v2)
NOT_EMULATED(cuModuleGetFunction)
NOT_EMULATED(cuModuleLoad)
NOT_EMULATED(cuModuleLoadData)
NOT_EMULATED(cuModuleLoadDataEx)
NOT_EMULATED(cuModuleUnload)
NOT_EMULATED(cuOccupancyMaxActiveBlocksPerMultiprocessor)
NOT_EMULATED(cuPointerGetAttribute)
NOT_EMULATED(cuTensorMapEncodeTiled)

// A device has a context from the start.
extern "C" EMULATOR_API int cuDevicePrimaryCtxGetState(int, unsigned* flags, int* active) {
  *flags = 0;
  *active = 1;
  return 0;
}
extern "C" EMULATOR_API int cuCtxGetCurrent(void** context) {
  static int only;
  *context = &only;
  return 0;
}
