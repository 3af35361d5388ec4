#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>

#include "cuda/stream_state.h"

using emulator::returned;

namespace {

thread_local int device_of_thread = 0;
thread_local cudaError_t last_error = cudaSuccess;

// What a program asks of a GPU; the figures are those of a small one of the Hopper architecture.
int attribute(cudaDeviceAttr name) {
  switch (name) {
    case cudaDevAttrComputeCapabilityMajor:
      return 9;
    case cudaDevAttrMultiProcessorCount:
      return 4;
    case cudaDevAttrL2CacheSize:
      return 1 << 20;
    case cudaDevAttrMaxThreadsPerBlock:
    case cudaDevAttrMaxBlockDimX:
      return 1024;
    case cudaDevAttrMaxThreadsPerMultiProcessor:
      return 2048;
    case cudaDevAttrWarpSize:
      return 32;
    case cudaDevAttrMaxSharedMemoryPerBlock:
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      return 48 << 10;
    case cudaDevAttrUnifiedAddressing:
    case cudaDevAttrMemoryPoolsSupported:
      return 1;
    default:
      return 0;
  }
}

}  // namespace

namespace emulator {

int current_device() { return device_of_thread; }

int device_count() {
  static const int count = [] {
    const char* text = std::getenv("EMULATED_GPUS");
    return text ? std::max(1, std::atoi(text)) : 1;
  }();
  return count;
}

cudaError_t returned(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

}  // namespace emulator

extern "C" {

EMULATOR_API cudaError_t cudaGetDeviceCount(int* count) {
  *count = emulator::device_count();
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaGetDevice(int* device) {
  *device = device_of_thread;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaSetDevice(int device) {
  if (device < 0 || device >= emulator::device_count()) return returned(cudaErrorInvalidDevice);
  device_of_thread = device;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr name, int) {
  *value = attribute(name);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  *properties = {};
  std::strcpy(properties->name, "emulated GPU");
  properties->uuid.bytes[0] = static_cast<char>(device + 1);
  properties->totalGlobalMem = std::size_t{4} << 30;
  properties->major = attribute(cudaDevAttrComputeCapabilityMajor);
  properties->multiProcessorCount = attribute(cudaDevAttrMultiProcessorCount);
  properties->l2CacheSize = attribute(cudaDevAttrL2CacheSize);
  properties->maxThreadsPerBlock = attribute(cudaDevAttrMaxThreadsPerBlock);
  properties->maxThreadsDim[0] = attribute(cudaDevAttrMaxBlockDimX);
  properties->maxThreadsPerMultiProcessor = attribute(cudaDevAttrMaxThreadsPerMultiProcessor);
  properties->warpSize = attribute(cudaDevAttrWarpSize);
  properties->sharedMemPerBlock = attribute(cudaDevAttrMaxSharedMemoryPerBlock);
  properties->sharedMemPerBlockOptin = properties->sharedMemPerBlock;
  properties->regsPerMultiprocessor = 65536;
  properties->unifiedAddressing = 1;
  properties->pciBusID = device + 1;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  std::snprintf(text, static_cast<std::size_t>(length), "0000:%02x:00.0", device + 1);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaDeviceCanAccessPeer(int* can, int, int) {
  *can = 1;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaDeviceEnablePeerAccess(int, unsigned) { return cudaSuccess; }
EMULATOR_API cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaProfilerStart() { return cudaSuccess; }
EMULATOR_API cudaError_t cudaProfilerStop() { return cudaSuccess; }

EMULATOR_API cudaError_t cudaGetLastError() {
  const cudaError_t error = last_error;
  last_error = cudaSuccess;
  return error;
}
EMULATOR_API cudaError_t cudaPeekAtLastError() { return last_error; }
}
