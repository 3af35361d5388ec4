// Where a rank takes calls of other hosts, and how they call it: TCP, in networks that are trusted.
#pragma once

#include <sys/socket.h>

#include <array>
#include <string>

#include "base/deadline.h"
#include "base/fd.h"

namespace bluefog::tcp {

using Secret = std::array<char, 16>;

/// What a rank tells the others of its group, through the rendezvous.
struct Endpoint {
  sockaddr_storage address;
  socklen_t length;
  Secret ask;     // who calls has to know it
  Secret answer;  // who takes the call has to know it

  std::string pack() const;
  /// Throws Error(kSystem) for what is none, naming the rank that has sent it.
  static Endpoint unpack(const std::string& packed, int rank);
  /// "192.0.2.1:4711"
  std::string where() const;
};

/// The first words on a connection, of either side.
struct Hello {
  std::uint64_t magic;
  Secret secret;
  std::int32_t rank;
  std::int32_t size;

  static constexpr std::uint64_t kMagic = 0x626c75656d736701;  // last byte: version
};

/// Listens, without blocking, at the address that Gloo would take: that of `interface`
/// (GLOO_SOCKET_IFNAME), or where that is empty that of the host's name, or where it has none the
/// loopback. Throws Error(kSystem).
UniqueFd listen_at(const std::string& interface, Endpoint& self);

/// Connects to `peer` and exchanges hellos. Throws Error(kSystem) where nobody, or somebody else,
/// takes the call, Error(kTimeout).
UniqueFd call(const Endpoint& there, int peer, int rank, int size, const Deadline& deadline);

/// Small messages leave at once; a host that has gone is noticed in time.
void set_options(int socket);

}  // namespace bluefog::tcp
