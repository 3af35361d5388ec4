// Memory of the current device from NCCL's allocator.
#pragma once

#include <cstddef>
#include <utility>

#include "base/error.h"
#include "transport/nccl/api.h"

namespace bluefog::nccl {

class NcclMemory {
 public:
  /// Throws Error(kSystem). `api` must outlive the memory.
  NcclMemory(NcclApi& api, std::size_t bytes, int rank) : api_(api) {
    void* memory = nullptr;
    const Result result = api.mem_alloc(memory, bytes);
    if (result != Result::kSuccess) {
      fail(ErrorCode::kSystem, "rank ", rank, ": ncclMemAlloc of ", bytes,
           " bytes failed: ", api.error_string(result));
    }
    data_ = static_cast<std::byte*>(memory);
  }
  ~NcclMemory() {
    if (data_ != nullptr) api_.mem_free(data_);
  }
  NcclMemory(const NcclMemory&) = delete;
  NcclMemory& operator=(const NcclMemory&) = delete;

  std::byte* data() const { return data_; }

  /// Never frees it: for memory that the device may still use.
  void keep() { data_ = nullptr; }

 private:
  NcclApi& api_;
  std::byte* data_ = nullptr;
};

}  // namespace bluefog::nccl
