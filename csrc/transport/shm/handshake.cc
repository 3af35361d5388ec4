#include "transport/shm/handshake.h"

#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>

#include "base/error.h"

namespace bluefog::shm {
namespace {

using Secret = std::array<char, 16>;

// Sent by the one who connects; the one who listens answers with its segment's descriptor.
struct Hail {
  Secret secret;  // of the rank that is called
  std::int32_t caller;
};

Secret random_bytes() {
  Secret bytes;
  if (::getrandom(bytes.data(), bytes.size(), 0) != static_cast<ssize_t>(bytes.size())) {
    fail(ErrorCode::kSystem, "getrandom failed: ", std::strerror(errno));
  }
  return bytes;
}

UniqueFd make_socket() {
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) {
    fail(ErrorCode::kSystem, "socket(AF_UNIX) failed: ", std::strerror(errno));
  }
  return fd;
}

// Abstract: the name begins with a zero byte and leaves no file behind.
std::pair<sockaddr_un, socklen_t> address_of(const Secret& name) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, name.data(), name.size());
  return {address, static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + name.size())};
}

// With room for the calls of strangers: a rank whose call finds none would be out of reach.
UniqueFd listen_at(const Secret& name) {
  UniqueFd fd = make_socket();
  const auto [address, length] = address_of(name);
  if (::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0 ||
      ::listen(fd.get(), SOMAXCONN) != 0) {
    fail(ErrorCode::kSystem, "binding an abstract Unix socket failed: ", std::strerror(errno));
  }
  return fd;
}

// A connection to a Unix socket is made, or refused, at once: the listener need not accept it
// first.
UniqueFd connect_to(const Secret& name) {
  UniqueFd fd = make_socket();
  const auto [address, length] = address_of(name);
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length) != 0) {
    return {};
  }
  return fd;
}

bool wait_readable(int fd, const Deadline& deadline) {
  pollfd entry{fd, POLLIN, 0};
  int ready = -1;
  do {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline.left()).count();
    ready = ::poll(&entry, 1, static_cast<int>(std::min<long>(left, 1 << 30)));
  } while (ready < 0 && errno == EINTR);
  return ready == 1;
}

bool same_user(int fd) {
  ucred peer{};
  socklen_t length = sizeof(peer);
  return ::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) == 0 && peer.uid == ::geteuid();
}

bool send_descriptor(int socket, int descriptor) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  cmsghdr* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  std::memcpy(CMSG_DATA(header), &descriptor, sizeof(int));
  return ::sendmsg(socket, &message, MSG_NOSIGNAL) == 1;
}

UniqueFd receive_descriptor(int socket) {
  char byte = 0;
  iovec data{&byte, 1};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))] = {};
  msghdr message{};
  message.msg_iov = &data;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  const cmsghdr* header = nullptr;
  if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 ||
      (header = CMSG_FIRSTHDR(&message)) == nullptr || header->cmsg_level != SOL_SOCKET ||
      header->cmsg_type != SCM_RIGHTS) {
    return {};
  }
  int descriptor = -1;
  std::memcpy(&descriptor, CMSG_DATA(header), sizeof(int));
  return UniqueFd(descriptor);
}

// One '1' or '0' per rank.
using Flags = std::string;

class Handshake {
 public:
  Handshake(const Rendezvous& rendezvous, int rank, int size, int own, const Accept& accept,
            Deadline deadline)
      : rendezvous_(rendezvous),
        rank_(rank),
        size_(size),
        own_(own),
        accept_(accept),
        deadline_(deadline) {}

  std::vector<bool> run() {
    const Secret name = random_bytes();
    const UniqueFd listener = listen_at(name);
    const Secret secret = random_bytes();
    const std::string host =
        std::string(name.begin(), name.end()) + std::string(secret.begin(), secret.end());
    rendezvous_.set("shm/host", own_ < 0 ? "" : host + boot_id());
    call_everybody();
    answer_callers(listener.get(), secret);
    map_memory();
    return mutual();
  }

 private:
  void call_everybody() {
    Flags called(size_, '0');
    calls_.resize(size_);
    const std::string own_boot = boot_id();
    for (int peer = 0; peer < size_; ++peer) {
      if (peer == rank_) continue;
      const std::string host = rendezvous_.get(peer, "shm/host");
      Secret name;
      Hail hail{{}, rank_};
      if (own_ < 0 || host.empty() || host.substr(name.size() * 2) != own_boot) continue;
      std::memcpy(name.data(), host.data(), name.size());
      std::memcpy(hail.secret.data(), host.data() + name.size(), name.size());
      UniqueFd call = connect_to(name);
      if (call && ::send(call.get(), &hail, sizeof(hail), MSG_NOSIGNAL) == sizeof(hail)) {
        called[peer] = '1';
        calls_[peer] = std::move(call);
      }
    }
    rendezvous_.set("shm/called", called);
  }

  void answer_callers(int listener, const Secret& secret) {
    int expected = 0;
    for (int peer = 0; peer < size_; ++peer) {
      if (peer != rank_ && rendezvous_.get(peer, "shm/called")[rank_] == '1') ++expected;
    }
    while (expected > 0) {
      if (!wait_readable(listener, deadline_)) {
        fail(ErrorCode::kTimeout, "rank ", rank_, " still expected ", expected,
             " ranks of this host to ask for its shared memory");
      }
      const UniqueFd caller(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
      Hail hail{};
      // A caller sends its hail before it says in the rendezvous that it has called; a stranger may
      // send anything or nothing, and is sent away.
      if (!caller || ::recv(caller.get(), &hail, sizeof(hail), 0) != sizeof(hail) ||
          hail.secret != secret || !same_user(caller.get())) {
        continue;
      }
      --expected;
      send_descriptor(caller.get(), own_);
    }
  }

  void map_memory() {
    mapped_.assign(size_, '0');
    for (int peer = 0; peer < size_; ++peer) {
      if (!calls_[peer] || !wait_readable(calls_[peer].get(), deadline_)) continue;
      UniqueFd descriptor = receive_descriptor(calls_[peer].get());
      if (!descriptor) continue;
      try {
        accept_(peer, std::move(descriptor));
        mapped_[peer] = '1';
      } catch (const Error& error) {
        std::fprintf(stderr, "bluefog: rank %d cannot use the shared memory of rank %d (%s)\n",
                     rank_, peer, error.what());
      }
    }
    rendezvous_.set("shm/mapped", mapped_);
  }

  std::vector<bool> mutual() const {
    std::vector<bool> reached(size_);
    for (int peer = 0; peer < size_; ++peer) {
      reached[peer] = peer != rank_ && mapped_[peer] == '1' &&
                      rendezvous_.get(peer, "shm/mapped")[rank_] == '1';
    }
    return reached;
  }

  const Rendezvous& rendezvous_;
  const int rank_;
  const int size_;
  const int own_;
  const Accept& accept_;
  const Deadline deadline_;
  std::vector<UniqueFd> calls_;
  Flags mapped_;
};

}  // namespace

std::string boot_id() {
  std::ifstream file("/proc/sys/kernel/random/boot_id");
  std::string id;
  std::getline(file, id);
  return id;
}

std::vector<bool> exchange_memory(const Rendezvous& rendezvous, int rank, int size, int own,
                                  const Accept& accept, Deadline deadline) {
  return Handshake(rendezvous, rank, size, own, accept, deadline).run();
}

std::vector<std::optional<Segment>> exchange_segments(const Rendezvous& rendezvous, int rank,
                                                      int size, const Segment* own,
                                                      Deadline deadline) {
  std::vector<std::optional<Segment>> segments(size);
  const auto map = [&](int peer, UniqueFd fd) {
    segments[peer].emplace(Segment::map(std::move(fd), peer, size));
  };
  const std::vector<bool> reached =
      exchange_memory(rendezvous, rank, size, own == nullptr ? -1 : own->fd(), map, deadline);
  for (int peer = 0; peer < size; ++peer) {
    if (!reached[peer]) segments[peer].reset();
  }
  return segments;
}

}  // namespace bluefog::shm
