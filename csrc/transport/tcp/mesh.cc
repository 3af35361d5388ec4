#include "transport/tcp/mesh.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>

#include <algorithm>
#include <atomic>
#include <future>

#include "base/error.h"
#include "transport/tcp/reception.h"

namespace bluefog::tcp {
namespace {

using Connections = std::map<int, UniqueFd>;

void wait_for_caller(const Reception& reception, const Deadline& deadline) {
  pollfd entry{reception.fd(), POLLIN, 0};
  ::poll(&entry, 1, static_cast<int>(std::min<long>(deadline.left_in_ms().count(), 1000)));
}

constexpr std::chrono::minutes kLeast{15};

// A link that is cut, or a rank that is stopped, for so long does not end the connection:
// operations have deadlines of their own. And once it is back, it is tried again within a second,
// not after as long again (from Linux 6.15).
void outlast(int socket, std::chrono::milliseconds trouble) {
#ifndef TCP_RTO_MAX_MS
  constexpr int TCP_RTO_MAX_MS = 44;
#endif
  const auto user_timeout = static_cast<unsigned>(trouble.count());
  const int pause = 1000;  // ms
  ::setsockopt(socket, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout, sizeof(user_timeout));
  ::setsockopt(socket, IPPROTO_TCP, TCP_RTO_MAX_MS, &pause, sizeof(pause));
}

}  // namespace

Connections connect_all(const Rendezvous& rendezvous, int rank, int size,
                        const std::vector<int>& peers, const std::string& interface,
                        const Deadline& deadline) {
  Reception reception(rank, size, interface);
  rendezvous.set("tcp", reception.endpoint().pack());
  std::map<int, Endpoint> lower;
  std::vector<int> missing;
  for (int peer : peers) {
    const std::string packed = rendezvous.get(peer, "tcp");
    if (peer < rank) {
      lower[peer] = Endpoint::unpack(packed, peer);
    } else {
      missing.push_back(peer);
    }
  }
  // At the same time as this rank is called, or the ranks would connect one after the other.
  std::atomic<bool> called{true};
  auto calls = std::async(std::launch::async, [&] {
    Connections made;
    try {
      for (const auto& [peer, there] : lower) made[peer] = call(there, peer, rank, size, deadline);
    } catch (...) {
      called = false;
      throw;
    }
    return made;
  });
  Connections all;
  while (!missing.empty() && !deadline.passed() && called) {
    wait_for_caller(reception, deadline);
    for (auto& caller :
         reception.take([&](int peer) { return std::ranges::count(missing, peer); })) {
      std::erase(missing, caller.rank);
      all[caller.rank] = std::move(caller.fd);
    }
  }
  all.merge(calls.get());
  if (!missing.empty()) {
    fail(ErrorCode::kTimeout, "rank ", rank, " waited ", deadline.timeout_seconds(), " s for ",
         name_ranks(missing), " to call it at ", reception.endpoint().where());
  }
  for (auto& [peer, fd] : all) {
    set_options(fd.get());
    outlast(fd.get(), std::max<std::chrono::milliseconds>(kLeast, 2 * deadline.timeout()));
  }
  return all;
}

}  // namespace bluefog::tcp
