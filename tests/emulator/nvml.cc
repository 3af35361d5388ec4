// libnvidia-ml.so.1, as far as torch asks it: for the number of GPUs, and whether a fabric reaches
// those of other hosts, which is not so. No nvml.h, which not every toolkit has.
#include <algorithm>
#include <cstdlib>

#include "cuda/stream.h"

namespace {
constexpr int kSuccess = 0;
constexpr int kNotSupported = 3;
}  // namespace

extern "C" {

EMULATOR_API int nvmlInit_v2() { return kSuccess; }
EMULATOR_API int nvmlInit() { return kSuccess; }
EMULATOR_API int nvmlDeviceGetCount_v2(unsigned* count) {
  const char* const text = std::getenv("EMULATED_GPUS");
  *count = text ? std::max(1, std::atoi(text)) : 1;
  return kSuccess;
}
EMULATOR_API int nvmlDeviceGetHandleByPciBusId_v2(const char*, void** device) {
  static int only;
  *device = &only;
  return kSuccess;
}
// The caller's zeros say that there is none.
EMULATOR_API int nvmlDeviceGetGpuFabricInfoV(void*, void*) { return kSuccess; }
EMULATOR_API int nvmlDeviceGetNvLinkRemoteDeviceType(void*, unsigned, int*) {
  return kNotSupported;
}
EMULATOR_API int nvmlDeviceGetNvLinkRemotePciInfo_v2(void*, unsigned, void*) {
  return kNotSupported;
}
EMULATOR_API int nvmlDeviceGetComputeRunningProcesses(void*, unsigned*, void*) {
  return kNotSupported;
}
EMULATOR_API int nvmlSystemGetCudaDriverVersion_v2(int*) { return kNotSupported; }
}
