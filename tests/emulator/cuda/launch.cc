#include <cstdio>
#include <mutex>
#include <string>
#include <unordered_map>

#include "cuda/kernels.h"
#include "cuda/stream_state.h"

// What programs that nvcc has compiled call to make their kernels known, and to launch them.
namespace {

std::mutex mutex;
std::unordered_map<const void*, std::string>& names() {  // mangled, by the host's stubs
  static auto* const all = new std::unordered_map<const void*, std::string>;
  return *all;
}

std::string name_of(const void* stub) {
  const std::lock_guard lock(mutex);
  const auto entry = names().find(stub);
  return entry == names().end() ? "" : entry->second;
}

struct Configuration {
  dim3 grid, block;
  size_t shared;
  void* stream;
};
thread_local Configuration pushed;

cudaError_t launch(const void* stub, dim3 grid, dim3 block, void** arguments, cudaStream_t stream) {
  const std::string name = name_of(stub);
  auto work = emulator::kernel_work(name, grid, block, arguments);
  if (!work) {
    std::fprintf(stderr, "the emulated GPU does not know the kernel %s\n", name.c_str());
    return emulator::returned(cudaErrorInvalidDeviceFunction);
  }
  if (emulator::device_of(stream) != emulator::current_device()) {
    return emulator::returned(cudaErrorInvalidResourceHandle);
  }
  emulator::enqueue(stream, std::move(work));
  return cudaSuccess;
}

}  // namespace

extern "C" {

EMULATOR_API void** __cudaRegisterFatBinary(void*) {
  static void* handle;
  return &handle;
}
EMULATOR_API void __cudaRegisterFatBinaryEnd(void**) {}
EMULATOR_API char __cudaInitModule(void**) { return 1; }
EMULATOR_API void __cudaUnregisterFatBinary(void**) {}
EMULATOR_API void __cudaRegisterVar(void**, char*, char*, const char*, int, size_t, int, int) {}
EMULATOR_API void __cudaRegisterFunction(void**, const char* stub, char*, const char* name, int,
                                         void*, void*, void*, void*, int*) {
  const std::lock_guard lock(mutex);
  names()[stub] = name;
}

EMULATOR_API unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared,
                                                  void* stream) {
  pushed = {grid, block, shared, stream};
  return 0;
}
EMULATOR_API cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared,
                                                    void* stream) {
  *grid = pushed.grid;
  *block = pushed.block;
  *shared = pushed.shared;
  *static_cast<void**>(stream) = pushed.stream;
  return cudaSuccess;
}

EMULATOR_API cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* stub) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(stub));
  return cudaSuccess;
}
EMULATOR_API cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block,
                                            void** arguments, size_t, cudaStream_t stream) {
  return launch(kernel, grid, block, arguments, stream);
}
EMULATOR_API cudaError_t cudaLaunchKernel(const void* stub, dim3 grid, dim3 block, void** arguments,
                                          size_t, cudaStream_t stream) {
  return launch(stub, grid, block, arguments, stream);
}
EMULATOR_API cudaError_t cudaLaunchKernelExC(const cudaLaunchConfig_t* config, const void* stub,
                                             void** arguments) {
  return launch(stub, config->gridDim, config->blockDim, arguments, config->stream);
}
}
