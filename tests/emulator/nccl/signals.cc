#include "nccl/signals.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "nccl/exchange.h"

namespace emulator::nccl {
namespace {

/// Where a rank's counters are: what another process opens by /proc leaves nothing behind.
struct Place {
  pid_t process;
  int fd;
};

[[noreturn]] void fail(const std::string& what) {
  throw Error(ncclSystemError, what + ": " + std::strerror(errno));
}

void* map(int fd, std::size_t bytes) {
  void* const memory = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (memory == MAP_FAILED) fail("mmap of the signals");
  return memory;
}

void* map_of_peer(const Place& place, std::size_t bytes) {
  const std::string path =
      "/proc/" + std::to_string(place.process) + "/fd/" + std::to_string(place.fd);
  const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC);
  if (fd < 0) fail(path);
  void* const memory = map(fd, bytes);
  ::close(fd);
  return memory;
}

}  // namespace

Signals::~Signals() {
  for (Counter* counters : counters_) ::munmap(counters, counters_.size() * sizeof(Counter));
}

void Signals::connect(const Mesh& mesh, const Stop& stop) {
  const std::size_t bytes = mesh.size() * sizeof(Counter);
  const int fd = ::memfd_create("bluefog-nccl-signals", MFD_CLOEXEC);
  if (fd < 0 || ::ftruncate(fd, bytes) != 0) fail("memfd of the signals");
  try {
    for (const Place& place : gather_all(mesh, Place{::getpid(), fd}, stop)) {
      processes_.push_back(place.process);
      counters_.push_back(static_cast<Counter*>(map_of_peer(place, bytes)));
    }
    gather_all(mesh, 0, stop);  // all have opened it
  } catch (...) {
    ::close(fd);
    throw;
  }
  ::close(fd);
  taken_.assign(mesh.size(), 0);
}

void Signals::raise(int from, int peer) { ++counters_[peer][from]; }

bool Signals::take(int rank, int peer, std::uint64_t wanted) {
  const std::lock_guard lock(mutex_);
  if (counters_[rank][peer] - taken_[peer] < wanted) return false;
  taken_[peer] += wanted;
  return true;
}

void Signals::wait(const Mesh& mesh, int peer, std::uint64_t wanted, const Stop& stop) {
  constexpr timespec kPause{0, 100'000};
  const bool is_own = peer == mesh.rank();
  pollfd entry{is_own ? -1 : mesh.socket(Channel::kData, peer), POLLRDHUP, 0};
  for (bool gone = false;;) {
    if (take(mesh.rank(), peer, wanted)) return;
    if (stop()) throw Aborted();
    if (gone) {
      throw Error(ncclRemoteError, "rank " + std::to_string(peer) + " left before its signal");
    }
    gone = ::ppoll(&entry, 1, &kPause, nullptr) > 0;
  }
}

}  // namespace emulator::nccl
