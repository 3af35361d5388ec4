#include "nccl/window.h"

#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "nccl/exchange.h"

namespace emulator::nccl {

Window::Window(void* memory, std::size_t bytes, std::vector<Side> sides)
    : memory_(memory), bytes_(bytes), sides_(std::move(sides)) {}

Window* Window::create(Communicator& communicator, void* memory, std::size_t bytes) {
  const Side own{::getpid(), static_cast<std::byte*>(memory), bytes};
  std::vector<Side> sides = gather_all(communicator.mesh(), own, communicator.stop());
  for (const Side& side : sides) {
    if (side.bytes != bytes) {
      throw Error(ncclInvalidArgument, "a window has " + std::to_string(bytes) +
                                           " bytes here and " + std::to_string(side.bytes) +
                                           " on another rank");
    }
  }
  const auto window = new Window(memory, bytes, std::move(sides));  // handles are never reused
  communicator.add(window);
  return window;
}

bool Window::holds(const void* data, std::size_t bytes) const {
  const auto start = static_cast<const std::byte*>(memory_);
  const auto from = static_cast<const std::byte*>(data);
  return from >= start && fits(from - start, bytes);
}

bool Window::fits(std::size_t offset, std::size_t bytes) const {
  return offset <= bytes_ && bytes <= bytes_ - offset;
}

void Window::put(int peer, std::size_t offset, const void* data, std::size_t bytes) const {
  const Side& side = sides_[peer];
  for (std::size_t done = 0; done < bytes;) {
    const iovec from{const_cast<std::byte*>(static_cast<const std::byte*>(data)) + done,
                     bytes - done};
    const iovec to{side.memory + offset + done, bytes - done};
    const ssize_t written = ::process_vm_writev(side.process, &from, 1, &to, 1, 0);
    if (written <= 0) {
      throw Error(ncclRemoteError, "a put of " + std::to_string(bytes) + " bytes to rank " +
                                       std::to_string(peer) + " failed: " + std::strerror(errno));
    }
    done += written;
  }
}

}  // namespace emulator::nccl
