#include "cuda/device_memory.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>

#include "cuda/stream_state.h"

namespace emulator {
namespace {

std::mutex mutex;

std::map<const void*, Block>& blocks() {
  static auto* const all = new std::map<const void*, Block>;
  return *all;
}
std::map<const void*, std::size_t>& pinned() {
  static auto* const all = new std::map<const void*, std::size_t>;
  return *all;
}

// In `map` by beginnings, the entry whose range an address is in, or the end.
template <typename Map, typename Size>
auto containing(Map& map, const void* address, Size size) {
  auto entry = map.upper_bound(address);
  if (entry == map.begin()) return map.end();
  --entry;
  const auto offset =
      static_cast<const std::byte*>(address) - static_cast<const std::byte*>(entry->first);
  return static_cast<std::size_t>(offset) < size(entry->second) ? entry : map.end();
}

}  // namespace

int make_file(std::size_t bytes) {
  const int file = memfd_create("emulated GPU", MFD_CLOEXEC);
  if (file < 0 || ftruncate(file, static_cast<off_t>(bytes)) != 0) return -1;
  void* const all = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (all == MAP_FAILED) return -1;
  std::memset(all, 0xff, bytes);
  munmap(all, bytes);
  return file;
}

std::optional<Block> find_block(const void* address) {
  const std::lock_guard lock(mutex);
  const auto entry = containing(blocks(), address, [](const Block& block) { return block.bytes; });
  if (entry == blocks().end()) return {};
  return entry->second;
}
void add_block(const Block& block) {
  const std::lock_guard lock(mutex);
  blocks()[block.begin] = block;
}
std::optional<Block> remove_block(const void* begin) {
  const std::lock_guard lock(mutex);
  const auto entry = blocks().find(begin);
  if (entry == blocks().end()) return {};
  const Block block = entry->second;
  blocks().erase(entry);
  return block;
}

bool is_pinned(const void* address) {
  const std::lock_guard lock(mutex);
  return containing(pinned(), address, [](std::size_t bytes) { return bytes; }) != pinned().end();
}

namespace {

void add_pinned(const void* begin, std::size_t bytes) {
  const std::lock_guard lock(mutex);
  pinned()[begin] = bytes;
}
void remove_pinned(const void* begin) {
  const std::lock_guard lock(mutex);
  pinned().erase(begin);
}

void synchronize_device() {
  for (Stream* stream : streams_of(current_device())) record(*stream)->done.wait(false);
}

cudaError_t map_file(void** memory, std::size_t bytes, int file) {
  void* const begin = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (begin == MAP_FAILED) return returned(cudaErrorMemoryAllocation);
  add_block({static_cast<std::byte*>(begin), bytes, file, current_device()});
  *memory = begin;
  return cudaSuccess;
}

cudaError_t unmap(void* memory) {
  const auto block = remove_block(memory);
  if (!block) return memory ? returned(cudaErrorInvalidValue) : cudaSuccess;
  munmap(block->begin, block->bytes);
  close(block->file);
  return cudaSuccess;
}

}  // namespace
}  // namespace emulator

using emulator::returned;

extern "C" {

EMULATOR_API cudaError_t cudaMalloc(void** memory, size_t bytes) {
  const cudaError_t error = emulator::check_unsafe_call();
  if (error != cudaSuccess) return returned(error);
  const int file = emulator::make_file(bytes);
  if (file < 0) return returned(cudaErrorMemoryAllocation);
  return emulator::map_file(memory, bytes, file);
}
EMULATOR_API cudaError_t cudaFree(void* memory) {
  const cudaError_t error = emulator::check_unsafe_call();
  if (error != cudaSuccess) return returned(error);
  if (memory) emulator::synchronize_device();
  return emulator::unmap(memory);
}
EMULATOR_API cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  *total = size_t{4} << 30;
  *free = *total / 2;
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaHostAlloc(void** memory, size_t bytes, unsigned) {
  *memory = std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096);
  if (!*memory) return returned(cudaErrorMemoryAllocation);
  emulator::add_pinned(*memory, bytes);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaMallocHost(void** memory, size_t bytes) {
  return cudaHostAlloc(memory, bytes, 0);
}
EMULATOR_API cudaError_t cudaFreeHost(void* memory) {
  emulator::remove_pinned(memory);
  std::free(memory);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaHostRegister(void* memory, size_t bytes, unsigned) {
  emulator::add_pinned(memory, bytes);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaHostUnregister(void* memory) {
  emulator::remove_pinned(memory);
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes,
                                                  const void* address) {
  *attributes = {};
  attributes->type = cudaMemoryTypeUnregistered;
  if (const auto block = emulator::find_block(address)) {
    attributes->type = cudaMemoryTypeDevice;
    attributes->device = block->device;
    attributes->devicePointer = const_cast<void*>(address);
  } else if (emulator::is_pinned(address)) {
    attributes->type = cudaMemoryTypeHost;
    attributes->hostPointer = attributes->devicePointer = const_cast<void*>(address);
  }
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaDeviceSynchronize() {
  const cudaError_t error = emulator::check_unsafe_call();
  if (error != cudaSuccess) return returned(error);
  emulator::synchronize_device();
  return cudaSuccess;
}
}
