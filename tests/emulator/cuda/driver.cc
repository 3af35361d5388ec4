// Of the driver's interface, what torch's symmetric memory calls, which gets it through
// cudaGetDriverEntryPointByVersion: allocations that are files, and addresses that they are mapped
// at.
#include <cuda.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <unordered_map>

#include "cuda/device_memory.h"
#include "cuda/stream_state.h"

namespace {

struct Allocation {
  int file;
  std::size_t bytes;
};

constexpr std::size_t kGranularity = 2 << 20;

void* pointer(CUdeviceptr address) { return reinterpret_cast<void*>(address); }
Allocation* allocation(CUmemGenericAllocationHandle handle) {
  return reinterpret_cast<Allocation*>(handle);
}
CUmemGenericAllocationHandle handle_of(const Allocation& made) {
  return reinterpret_cast<CUmemGenericAllocationHandle>(new Allocation(made));
}

CUresult device_get(CUdevice* device, int ordinal) {
  *device = ordinal;
  return CUDA_SUCCESS;
}
// No multicast and no fabric: handles are file descriptors.
CUresult device_get_attribute(int* value, CUdevice_attribute name, CUdevice) {
  *value = name == CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED;
  return CUDA_SUCCESS;
}
CUresult get_error_string(CUresult, const char** text) {
  *text = "an error of the emulated driver";
  return CUDA_SUCCESS;
}

CUresult mem_get_allocation_granularity(size_t* granularity, const CUmemAllocationProp*,
                                        CUmemAllocationGranularity_flags) {
  *granularity = kGranularity;
  return CUDA_SUCCESS;
}
CUresult mem_create(CUmemGenericAllocationHandle* handle, size_t bytes, const CUmemAllocationProp*,
                    unsigned long long) {
  if (bytes == 0 || bytes % kGranularity != 0) return CUDA_ERROR_INVALID_VALUE;
  const int file = emulator::make_file(bytes);
  if (file < 0) return CUDA_ERROR_OUT_OF_MEMORY;
  *handle = handle_of({file, bytes});
  return CUDA_SUCCESS;
}
CUresult mem_release(CUmemGenericAllocationHandle handle) {
  close(allocation(handle)->file);
  delete allocation(handle);
  return CUDA_SUCCESS;
}
CUresult mem_export(void* shareable, CUmemGenericAllocationHandle handle,
                    CUmemAllocationHandleType type, unsigned long long) {
  if (type != CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) return CUDA_ERROR_NOT_SUPPORTED;
  *static_cast<int*>(shareable) = fcntl(allocation(handle)->file, F_DUPFD_CLOEXEC, 0);
  return CUDA_SUCCESS;
}
CUresult mem_import(CUmemGenericAllocationHandle* handle, void* shareable,
                    CUmemAllocationHandleType) {
  const int file =
      fcntl(static_cast<int>(reinterpret_cast<std::intptr_t>(shareable)), F_DUPFD_CLOEXEC, 0);
  if (file < 0) return CUDA_ERROR_INVALID_VALUE;
  *handle = handle_of({file, static_cast<std::size_t>(lseek(file, 0, SEEK_END))});
  return CUDA_SUCCESS;
}

CUresult mem_address_reserve(CUdeviceptr* address, size_t bytes, size_t, CUdeviceptr,
                             unsigned long long) {
  void* const begin = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (begin == MAP_FAILED) return CUDA_ERROR_OUT_OF_MEMORY;
  *address = reinterpret_cast<CUdeviceptr>(begin);
  return CUDA_SUCCESS;
}
CUresult mem_address_free(CUdeviceptr address, size_t bytes) {
  munmap(pointer(address), bytes);
  return CUDA_SUCCESS;
}
CUresult mem_map(CUdeviceptr address, size_t bytes, size_t offset,
                 CUmemGenericAllocationHandle handle, unsigned long long) {
  const Allocation& made = *allocation(handle);
  if (offset + bytes > made.bytes) return CUDA_ERROR_INVALID_VALUE;
  void* const begin = mmap(pointer(address), bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
                           made.file, static_cast<off_t>(offset));
  if (begin == MAP_FAILED) return CUDA_ERROR_INVALID_VALUE;
  emulator::add_block({static_cast<std::byte*>(begin), bytes, -1, emulator::current_device()});
  return CUDA_SUCCESS;
}
CUresult mem_unmap(CUdeviceptr address, size_t bytes) {
  if (!emulator::remove_block(pointer(address))) return CUDA_ERROR_INVALID_VALUE;
  mmap(pointer(address), bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  return CUDA_SUCCESS;
}
CUresult mem_set_access(CUdeviceptr, size_t, const CUmemAccessDesc*, size_t) {
  return CUDA_SUCCESS;
}
CUresult mem_get_address_range(CUdeviceptr* begin, size_t* bytes, CUdeviceptr address) {
  const auto block = emulator::find_block(pointer(address));
  if (!block) return CUDA_ERROR_INVALID_VALUE;
  *begin = reinterpret_cast<CUdeviceptr>(block->begin);
  *bytes = block->bytes;
  return CUDA_SUCCESS;
}

CUresult memset_d32_async(CUdeviceptr to, unsigned value, size_t count, CUstream stream) {
  emulator::enqueue(stream, [=] {
    auto* const begin = static_cast<unsigned*>(pointer(to));
    std::fill(begin, begin + count, value);
  });
  return CUDA_SUCCESS;
}
CUresult stream_write_value32(CUstream stream, CUdeviceptr to, cuuint32_t value, unsigned) {
  emulator::enqueue(stream,
                    [=] { std::atomic_ref(*static_cast<cuuint32_t*>(pointer(to))).store(value); });
  return CUDA_SUCCESS;
}

// What is asked for but not there ends the process if it is called.
CUresult unknown() {
  std::fprintf(stderr, "a call of the driver that the emulated GPU does not have\n");
  std::abort();
}

template <typename Function>
void* any(Function* function) {
  return reinterpret_cast<void*>(function);
}

const std::unordered_map<std::string, void*>& functions() {
  static const auto* const all = new std::unordered_map<std::string, void*>{
      {"cuDeviceGet", any(device_get)},
      {"cuDeviceGetAttribute", any(device_get_attribute)},
      {"cuGetErrorString", any(get_error_string)},
      {"cuMemGetAllocationGranularity", any(mem_get_allocation_granularity)},
      {"cuMemCreate", any(mem_create)},
      {"cuMemRelease", any(mem_release)},
      {"cuMemExportToShareableHandle", any(mem_export)},
      {"cuMemImportFromShareableHandle", any(mem_import)},
      {"cuMemAddressReserve", any(mem_address_reserve)},
      {"cuMemAddressFree", any(mem_address_free)},
      {"cuMemMap", any(mem_map)},
      {"cuMemUnmap", any(mem_unmap)},
      {"cuMemSetAccess", any(mem_set_access)},
      {"cuMemGetAddressRange", any(mem_get_address_range)},
      {"cuMemsetD32Async", any(memset_d32_async)},
      {"cuStreamWriteValue32", any(stream_write_value32)},
      {"cuMemRetainAllocationHandle", any(unknown)},
      {"cuMemGetAllocationPropertiesFromHandle", any(unknown)},
  };
  return *all;
}

}  // namespace

extern "C" EMULATOR_API cudaError_t
cudaGetDriverEntryPointByVersion(const char* name, void** function, unsigned, unsigned long long,
                                 cudaDriverEntryPointQueryResult* result) {
  const auto entry = functions().find(name);
  *function = entry == functions().end() ? nullptr : entry->second;
  if (result) {
    *result = *function ? cudaDriverEntryPointSuccess : cudaDriverEntryPointSymbolNotFound;
  }
  return cudaSuccess;
}
