#include "transport/shm/segment.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <cerrno>
#include <cstring>
#include <new>
#include <utility>

#include "base/error.h"

namespace bluefog::shm {
namespace {

constexpr std::uint64_t kMagic = 0x626c7565666f6702;  // last byte: version of the layout

constexpr std::size_t round_up(std::size_t value, std::size_t unit) {
  return (value + unit - 1) / unit * unit;
}

constexpr std::size_t hello_bytes(int size) {
  return round_up(sizeof(Hello) + size * sizeof(EdgeView), 64);
}

constexpr std::size_t counters_at() { return round_up(sizeof(Control), 64); }
constexpr std::size_t hellos_at(int size) { return counters_at() + 2 * size * sizeof(Counter); }
constexpr std::size_t ring_at(int size) {
  return round_up(hellos_at(size) + kHellos * hello_bytes(size), kPage);
}

constexpr std::size_t heap_at(int size, std::size_t chunk_bytes, std::size_t chunks) {
  return ring_at(size) + chunk_bytes * chunks;
}

[[noreturn]] void fail_system(const char* call) {
  fail(ErrorCode::kSystem, "shared memory: ", call, " failed: ", std::strerror(errno));
}

// One who waits for a robust mutex learns of the owner's death from the kernel, which walks the
// list of a dying thread's robust mutexes before it frees the process's memory: within a
// millisecond, however large the process was, where the end of a socket comes seconds late.
void make_life(pthread_mutex_t* life) {
  pthread_mutexattr_t attributes;
  pthread_mutexattr_init(&attributes);
  pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
  pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
  pthread_mutex_init(life, &attributes);
  pthread_mutexattr_destroy(&attributes);
}

}  // namespace

Segment::Segment(UniqueFd fd, std::size_t nbytes) : fd_(std::move(fd)), nbytes_(nbytes) {
  void* base = ::mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd_.get(), 0);
  if (base == MAP_FAILED) {
    fail_system("mmap");
  }
  base_ = static_cast<std::byte*>(base);
  ::madvise(base, nbytes, MADV_DONTDUMP);  // a core dump would fill the heap's holes with pages
  ::madvise(base, nbytes, MADV_HUGEPAGE);  // where /sys/kernel/mm/.../shmem_enabled lets it
}

Segment::Segment(Segment&& other) noexcept
    : fd_(std::move(other.fd_)),
      nbytes_(other.nbytes_),
      base_(std::exchange(other.base_, nullptr)),
      size_(other.size_),
      chunk_bytes_(other.chunk_bytes_),
      chunks_(other.chunks_),
      heap_bytes_(other.heap_bytes_) {}

Segment::~Segment() {
  if (base_ != nullptr) {
    ::munmap(base_, nbytes_);
  }
}

Segment Segment::create(int rank, int size, std::size_t chunk_bytes, std::size_t chunks,
                        std::size_t heap_bytes) {
  const std::size_t nbytes = heap_at(size, chunk_bytes, chunks) + heap_bytes;
  UniqueFd fd(::memfd_create("bluefog", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (!fd) {
    fail_system("memfd_create");
  }
  if (::ftruncate(fd.get(), static_cast<off_t>(nbytes)) != 0) {
    fail_system("ftruncate");
  }
  if (::fcntl(fd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    fail_system("fcntl(F_ADD_SEALS)");
  }
  Segment segment(std::move(fd), nbytes);
  auto* control = new (segment.base_) Control{};
  control->rank = static_cast<std::uint32_t>(rank);
  control->size = static_cast<std::uint32_t>(size);
  control->chunk_bytes = chunk_bytes;
  control->chunks = chunks;
  control->heap_bytes = heap_bytes;
  make_life(&control->life);
  control->magic = kMagic;
  segment.size_ = size;
  segment.chunk_bytes_ = chunk_bytes;
  segment.chunks_ = chunks;
  segment.heap_bytes_ = heap_bytes;
  return segment;
}

Segment Segment::map(UniqueFd fd, int rank, int size) {
  struct stat status;
  if (::fstat(fd.get(), &status) != 0) {
    fail_system("fstat");
  }
  const auto nbytes = static_cast<std::size_t>(status.st_size);
  const int seals = ::fcntl(fd.get(), F_GET_SEALS);
  if (seals < 0 || !(seals & F_SEAL_SHRINK) || nbytes < ring_at(size)) {
    fail(ErrorCode::kSystem, "rank ", rank,
         " sent a file that is not a sealed segment of this group");
  }
  Segment segment(std::move(fd), nbytes);
  const Control& control = segment.control();
  if (control.magic != kMagic || static_cast<int>(control.rank) != rank ||
      static_cast<int>(control.size) != size ||
      nbytes != heap_at(size, control.chunk_bytes, control.chunks) + control.heap_bytes) {
    fail(ErrorCode::kSystem, "rank ", rank, " sent the segment of rank ", control.rank, " of ",
         control.size, " with layout ", control.magic, ", expected rank ", rank, " of ", size,
         " with layout ", kMagic, "; do all ranks run the same version of bluefog_pg?");
  }
  segment.fd_ = UniqueFd();  // the mapping is enough; n ranks in one process would hold n * n
  segment.size_ = size;
  segment.chunk_bytes_ = control.chunk_bytes;
  segment.chunks_ = control.chunks;
  segment.heap_bytes_ = control.heap_bytes;
  return segment;
}

Counter& Segment::released(int peer) const {
  return reinterpret_cast<Counter*>(base_ + counters_at())[peer];
}

Counter& Segment::barred(int peer) const {
  return reinterpret_cast<Counter*>(base_ + counters_at())[size_ + peer];
}

std::size_t Segment::hello_stride() const { return hello_bytes(size_); }

Hello& Segment::hello(std::uint64_t sequence) const {
  return *reinterpret_cast<Hello*>(base_ + hellos_at(size_) + sequence % kHellos * hello_stride());
}

EdgeView& Segment::edge(std::uint64_t sequence, int peer) const {
  return reinterpret_cast<EdgeView*>(reinterpret_cast<std::byte*>(&hello(sequence)) +
                                     sizeof(Hello))[peer];
}

std::byte* Segment::chunk(std::uint64_t index) const {
  return base_ + ring_at(size_) + index % chunks_ * chunk_bytes_;
}

std::byte* Segment::heap(std::size_t offset) const {
  return base_ + heap_at(size_, chunk_bytes_, chunks_) + offset;
}

// Read from the mutex's futex word, which the kernel's robust-futex contract defines; taking the
// mutex instead would make this rank its owner.
bool Segment::owner_died() const {
  const auto* word = reinterpret_cast<const std::uint32_t*>(&control().life.__data.__lock);
  return (__atomic_load_n(word, __ATOMIC_ACQUIRE) & FUTEX_OWNER_DIED) != 0 && !owner_left();
}

void Segment::hold_life() const { pthread_mutex_lock(&control().life); }

// The flag comes first: a robust mutex whose owner ends reads the same whether that was meant or
// not.
void Segment::say_goodbye() const {
  control().left.store(1, std::memory_order_release);
  pthread_mutex_unlock(&control().life);
}

}  // namespace bluefog::shm
