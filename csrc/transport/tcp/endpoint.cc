#include "transport/tcp/endpoint.h"

#include <fcntl.h>
#include <ifaddrs.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>

#include "base/error.h"

namespace bluefog::tcp {
namespace {

Secret random_secret() {
  Secret secret;
  if (::getrandom(secret.data(), secret.size(), 0) != static_cast<ssize_t>(secret.size())) {
    fail(ErrorCode::kSystem, "getrandom failed: ", std::strerror(errno));
  }
  return secret;
}

socklen_t length_of(int family) {
  return family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
}

void clear_port(sockaddr_storage& address) {
  if (address.ss_family == AF_INET6) {
    reinterpret_cast<sockaddr_in6&>(address).sin6_port = 0;
  } else {
    reinterpret_cast<sockaddr_in&>(address).sin_port = 0;
  }
}

UniqueFd try_listen(const sockaddr* address, socklen_t length, Endpoint& self) {
  if (address->sa_family != AF_INET && address->sa_family != AF_INET6) return {};
  UniqueFd fd(::socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  self.address = {};
  std::memcpy(&self.address, address, length);
  clear_port(self.address);
  self.length = length;
  auto* own = reinterpret_cast<sockaddr*>(&self.address);
  if (!fd || ::bind(fd.get(), own, length) != 0 || ::listen(fd.get(), SOMAXCONN) != 0 ||
      ::getsockname(fd.get(), own, &self.length) != 0) {
    return {};
  }
  return fd;
}

UniqueFd listen_on_interface(const std::string& interface, Endpoint& self) {
  ifaddrs* all = nullptr;
  if (::getifaddrs(&all) != 0) return {};
  const std::unique_ptr<ifaddrs, void (*)(ifaddrs*)> owner(all, ::freeifaddrs);
  for (const ifaddrs* each = all; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || interface != each->ifa_name) continue;
    UniqueFd fd = try_listen(each->ifa_addr, length_of(each->ifa_addr->sa_family), self);
    if (fd) return fd;
  }
  return {};
}

UniqueFd listen_at_name(const char* name, Endpoint& self) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* all = nullptr;
  if (::getaddrinfo(name, nullptr, &hints, &all) != 0) return {};
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owner(all, ::freeaddrinfo);
  for (const addrinfo* each = all; each != nullptr; each = each->ai_next) {
    UniqueFd fd = try_listen(each->ai_addr, each->ai_addrlen, self);
    if (fd) return fd;
  }
  return {};
}

bool wait_for(int fd, short events, const Deadline& deadline) {
  pollfd entry{fd, events, 0};
  int ready = -1;
  do {
    ready =
        ::poll(&entry, 1, static_cast<int>(std::min<long>(deadline.left_in_ms().count(), 1 << 30)));
  } while (ready < 0 && errno == EINTR);
  return ready == 1;
}

}  // namespace

std::string Endpoint::pack() const { return {reinterpret_cast<const char*>(this), sizeof(*this)}; }

Endpoint Endpoint::unpack(const std::string& packed, int rank) {
  Endpoint endpoint{};
  if (packed.size() != sizeof(endpoint)) {
    fail(ErrorCode::kSystem, "rank ", rank, " takes no messages: it sent ", packed.size(),
         " bytes in the place of an address; do all ranks run the same version of bluefog_pg?");
  }
  std::memcpy(&endpoint, packed.data(), sizeof(endpoint));
  return endpoint;
}

std::string Endpoint::where() const {
  char host[NI_MAXHOST] = "?", port[NI_MAXSERV] = "?";
  ::getnameinfo(reinterpret_cast<const sockaddr*>(&address), length, host, sizeof(host), port,
                sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV);
  return concat(host, ":", port);
}

UniqueFd listen_at(const std::string& interface, Endpoint& self) {
  self = {};
  UniqueFd fd;
  if (!interface.empty()) {
    fd = listen_on_interface(interface, self);
  } else {
    char name[HOST_NAME_MAX + 1] = {};
    if (::gethostname(name, sizeof(name) - 1) == 0) fd = listen_at_name(name, self);
    if (!fd) fd = listen_at_name("127.0.0.1", self);
  }
  if (!fd) {
    fail(ErrorCode::kSystem, "cannot listen on ",
         interface.empty() ? "any address" : "GLOO_SOCKET_IFNAME=" + interface, ": ",
         std::strerror(errno));
  }
  self.ask = random_secret();
  self.answer = random_secret();
  return fd;
}

UniqueFd call(const Endpoint& there, int peer, int rank, int size, const Deadline& deadline) {
  const auto give_up = [&](ErrorCode code, const std::string& why) {
    fail(code, "rank ", rank, " cannot reach rank ", peer, " at ", there.where(), ": ", why,
         "; GLOO_SOCKET_IFNAME names the interface to use on a host");
  };
  UniqueFd fd(::socket(there.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) give_up(ErrorCode::kSystem, std::strerror(errno));
  if (::connect(fd.get(), reinterpret_cast<const sockaddr*>(&there.address), there.length) != 0 &&
      errno != EINPROGRESS) {
    give_up(ErrorCode::kSystem, std::strerror(errno));
  }
  if (!wait_for(fd.get(), POLLOUT, deadline)) give_up(ErrorCode::kTimeout, "no answer in time");
  int error = 0;
  socklen_t length = sizeof(error);
  ::getsockopt(fd.get(), SOL_SOCKET, SO_ERROR, &error, &length);
  if (error != 0) give_up(ErrorCode::kSystem, std::strerror(error));
  const Hello hello{Hello::kMagic, there.ask, rank, size};
  if (::send(fd.get(), &hello, sizeof(hello), MSG_NOSIGNAL) != sizeof(hello)) {
    give_up(ErrorCode::kSystem, std::strerror(errno));
  }
  Hello answer{};
  std::size_t got = 0;
  while (got < sizeof(answer)) {
    if (!wait_for(fd.get(), POLLIN, deadline)) give_up(ErrorCode::kTimeout, "no answer in time");
    const ssize_t n =
        ::recv(fd.get(), reinterpret_cast<char*>(&answer) + got, sizeof(answer) - got, 0);
    if (n == 0) give_up(ErrorCode::kSystem, "it hung up");
    if (n < 0 && errno != EAGAIN && errno != EINTR) {
      give_up(ErrorCode::kSystem, std::strerror(errno));
    }
    got += std::max<ssize_t>(n, 0);
  }
  if (answer.magic != Hello::kMagic || answer.secret != there.answer || answer.rank != peer) {
    give_up(ErrorCode::kSystem, "somebody else took the call");
  }
  return fd;
}

// No TCP_USER_TIMEOUT: it would end connections with ranks that are stopped for a while.
void set_options(int socket) {
  const int on = 1, idle = 30, interval = 10, count = 3;  // seconds, seconds, probes
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  ::setsockopt(socket, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPINTVL, &interval, sizeof(interval));
  ::setsockopt(socket, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count));
}

}  // namespace bluefog::tcp
