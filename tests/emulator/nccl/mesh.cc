#include "nccl/mesh.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <thread>
#include <utility>

namespace emulator::nccl {
namespace {

constexpr std::chrono::milliseconds kPause{2};

/// What a caller says first.
struct Greeting {
  int rank;
  int size;
  Channel channel;
};

struct Address {
  sockaddr_un name{};
  socklen_t length = 0;
};

/// In the abstract namespace, which has no files that a killed process could leave behind.
Address address_of(const ncclUniqueId& id, int rank) {
  constexpr std::size_t kBytesInName = 16;  // as the name is limited to 107 characters
  std::string text = "bluefog-nccl-";
  for (std::size_t i = 0; i < kBytesInName; ++i) {
    const auto byte = static_cast<unsigned char>(id.internal[i]);
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  text += '-';
  text += std::to_string(rank);
  Address address;
  address.name.sun_family = AF_UNIX;
  std::memcpy(address.name.sun_path + 1, text.data(), text.size());
  address.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
  return address;
}

[[noreturn]] void fail(const std::string& what) {
  throw Error(ncclSystemError, what + ": " + std::strerror(errno));
}

int open_socket() {
  const int socket = ::socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (socket < 0) fail("socket");
  return socket;
}

/// A descriptor that may get its place in the mesh later.
struct Socket {
  explicit Socket(int open) : fd(open) {}
  ~Socket() {
    if (fd >= 0) ::close(fd);
  }
  Socket(const Socket&) = delete;
  int release() { return std::exchange(fd, -1); }
  int fd;
};

void wait_until_readable(int socket, const Stop& stop) {
  pollfd entry{socket, POLLIN, 0};
  while (::poll(&entry, 1, kPause.count()) <= 0) {
    if (stop()) throw Aborted();
  }
}

void listen_at(int socket, const ncclUniqueId& id, int rank) {
  const Address address = address_of(id, rank);
  if (::bind(socket, reinterpret_cast<const sockaddr*>(&address.name), address.length) != 0) {
    if (errno != EADDRINUSE) fail("bind");
    throw Error(ncclInvalidUsage, "rank " + std::to_string(rank) + " is there twice");
  }
  if (::listen(socket, SOMAXCONN) != 0) fail("listen");
}

}  // namespace

Mesh::Mesh(int rank, int size) : rank_(rank), size_(size) {
  for (auto& sockets : sockets_) sockets.assign(size, -1);
}

Mesh::~Mesh() {
  for (const auto& sockets : sockets_) {
    for (const int socket : sockets) {
      if (socket >= 0) ::close(socket);
    }
  }
}

void Mesh::connect(const ncclUniqueId& id, const Stop& stop) {
  const Socket listener(open_socket());
  listen_at(listener.fd, id, rank_);
  for (int peer = 0; peer < rank_; ++peer) {
    for (const Channel channel : {Channel::kData, Channel::kControl}) {
      call(peer, id, channel, stop);
    }
  }
  for (int callers = 2 * (size_ - 1 - rank_); callers > 0; --callers) {
    wait_until_readable(listener.fd, stop);
    const int caller = ::accept4(listener.fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (caller < 0) fail("accept");
    admit(caller, stop);
  }
}

void Mesh::call(int peer, const ncclUniqueId& id, Channel channel, const Stop& stop) {
  Socket socket(open_socket());
  const Address address = address_of(id, peer);
  while (::connect(socket.fd, reinterpret_cast<const sockaddr*>(&address.name), address.length)) {
    const bool not_yet = errno == ECONNREFUSED || errno == EAGAIN || errno == EINTR;
    if (!not_yet) fail("connect");
    if (stop()) throw Aborted();
    std::this_thread::sleep_for(kPause);
  }
  const Greeting greeting{rank_, size_, channel};
  if (::send(socket.fd, &greeting, sizeof(greeting), MSG_NOSIGNAL) != sizeof(greeting)) {
    throw Error(ncclRemoteError, "rank " + std::to_string(peer) + " left while it was called");
  }
  keep(channel, peer, socket.release());
}

void Mesh::admit(int caller, const Stop& stop) {
  Socket socket(caller);
  wait_until_readable(caller, stop);
  Greeting greeting{};
  if (::recv(caller, &greeting, sizeof(greeting), 0) != sizeof(greeting)) {
    throw Error(ncclRemoteError, "a rank left while it called");
  }
  if (greeting.size != size_ || greeting.rank <= rank_ || greeting.rank >= size_) {
    throw Error(ncclInvalidArgument, "rank " + std::to_string(greeting.rank) +
                                         " says that there are " + std::to_string(greeting.size) +
                                         " ranks, rank " + std::to_string(rank_) +
                                         " says that there are " + std::to_string(size_));
  }
  keep(greeting.channel, greeting.rank, socket.release());
}

void Mesh::keep(Channel channel, int peer, int socket) {
  const std::lock_guard lock(mutex_);
  sockets_[static_cast<int>(channel)][peer] = socket;
  if (aborted_) ::shutdown(socket, SHUT_RDWR);
}

int Mesh::socket(Channel channel, int peer) const {
  return sockets_[static_cast<int>(channel)][peer];
}

void Mesh::abort() {
  const std::lock_guard lock(mutex_);
  aborted_ = true;
  for (const auto& sockets : sockets_) {
    for (const int socket : sockets) {
      if (socket >= 0) ::shutdown(socket, SHUT_RDWR);
    }
  }
}

}  // namespace emulator::nccl
