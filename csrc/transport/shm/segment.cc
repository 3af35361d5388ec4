#include "transport/shm/segment.h"

#include <linux/futex.h>

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

Segment Segment::create(int rank, int size, std::size_t chunk_bytes, std::size_t chunks,
                        std::size_t heap_bytes) {
  const std::size_t nbytes = heap_at(size, chunk_bytes, chunks) + heap_bytes;
  Segment segment(Memory::create("bluefog", nbytes));
  auto* control = new (segment.memory_.data()) Control{};
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
  Segment segment(Memory::map(std::move(fd), ring_at(size), rank));
  const std::size_t nbytes = segment.memory_.nbytes();
  const Control& control = segment.control();
  if (control.magic != kMagic || static_cast<int>(control.rank) != rank ||
      static_cast<int>(control.size) != size ||
      nbytes != heap_at(size, control.chunk_bytes, control.chunks) + control.heap_bytes) {
    fail(ErrorCode::kSystem, "rank ", rank, " sent the segment of rank ", control.rank, " of ",
         control.size, " with layout ", control.magic, ", expected rank ", rank, " of ", size,
         " with layout ", kMagic, "; do all ranks run the same version of bluefog_pg?");
  }
  segment.size_ = size;
  segment.chunk_bytes_ = control.chunk_bytes;
  segment.chunks_ = control.chunks;
  segment.heap_bytes_ = control.heap_bytes;
  return segment;
}

Counter& Segment::released(int peer) const {
  return reinterpret_cast<Counter*>(memory_.data() + counters_at())[peer];
}

Counter& Segment::barred(int peer) const {
  return reinterpret_cast<Counter*>(memory_.data() + counters_at())[size_ + peer];
}

std::size_t Segment::hello_stride() const { return hello_bytes(size_); }

Hello& Segment::hello(std::uint64_t sequence) const {
  return *reinterpret_cast<Hello*>(memory_.data() + hellos_at(size_) +
                                   sequence % kHellos * hello_stride());
}

EdgeView& Segment::edge(std::uint64_t sequence, int peer) const {
  return reinterpret_cast<EdgeView*>(reinterpret_cast<std::byte*>(&hello(sequence)) +
                                     sizeof(Hello))[peer];
}

std::byte* Segment::chunk(std::uint64_t index) const {
  return memory_.data() + ring_at(size_) + index % chunks_ * chunk_bytes_;
}

std::byte* Segment::heap(std::size_t offset) const {
  return memory_.data() + heap_at(size_, chunk_bytes_, chunks_) + offset;
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
