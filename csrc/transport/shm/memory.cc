#include "transport/shm/memory.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace bluefog::shm {
namespace {

[[noreturn]] void fail_system(const char* call) {
  fail(ErrorCode::kSystem, "shared memory: ", call, " failed: ", std::strerror(errno));
}

}  // namespace

Memory::Memory(UniqueFd fd, std::size_t nbytes) : fd_(std::move(fd)), nbytes_(nbytes) {
  const int flags = fd_ ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS;
  void* data = ::mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, flags, fd_.get(), 0);
  if (data == MAP_FAILED) {
    fail_system("mmap");
  }
  data_ = static_cast<std::byte*>(data);
  ::madvise(data, nbytes, MADV_DONTDUMP);  // a core dump would fill the holes with pages
  ::madvise(data, nbytes, MADV_HUGEPAGE);  // where /sys/kernel/mm/.../shmem_enabled lets it
}

Memory::Memory(Memory&& other) noexcept
    : fd_(std::move(other.fd_)),
      nbytes_(other.nbytes_),
      data_(std::exchange(other.data_, nullptr)) {}

Memory::~Memory() {
  if (data_ != nullptr) {
    ::munmap(data_, nbytes_);
  }
}

Memory Memory::create(const char* name, std::size_t nbytes) {
  UniqueFd fd(::memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) {
    fail_system("memfd_create");
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(nbytes)) != 0) {
    fail_system("ftruncate");
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    fail_system("fcntl(F_ADD_SEALS)");
  }
  return Memory(std::move(fd), nbytes);
}

Memory Memory::create_private(std::size_t nbytes) { return Memory(UniqueFd(), nbytes); }

Memory Memory::map(UniqueFd fd, std::size_t least, int rank) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) {
    fail_system("fstat");
  }
  const auto nbytes = static_cast<std::size_t>(status.st_size);
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || !(seals & F_SEAL_SHRINK) || nbytes < least) {
    fail(ErrorCode::kSystem, "rank ", rank,
         " sent a file that is not a sealed segment of this group");
  }
  Memory memory(std::move(fd), nbytes);
  memory.fd_ = UniqueFd();  // n ranks in one process would hold n * n
  return memory;
}

}  // namespace bluefog::shm
