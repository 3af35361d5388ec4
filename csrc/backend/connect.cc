#include "backend/connect.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "transport/gloo/gloo_transport.h"
#include "transport/routed.h"
#include "transport/shm/handshake.h"
#include "transport/tcp/tcp_transport.h"

namespace bluefog {
namespace {

// Whether every rank reaches every other one through shared memory: all ranks come to the same
// answer.
bool everybody_local(const Rendezvous& rendezvous, int rank, int size, bool all_local_here) {
  rendezvous.set("all_local", all_local_here ? "1" : "0");
  bool everybody = all_local_here;
  for (int peer = 0; peer < size; ++peer) {
    everybody = everybody && (peer == rank || rendezvous.get(peer, "all_local") == "1");
  }
  return everybody;
}

}  // namespace

void check_transport_name(const std::string& name) {
  if (!shares_memory(name) && name != "tcp" && name != "gloo") {
    fail(ErrorCode::kUsage, "transport \"", name,
         "\" is unknown; use \"auto\", \"shm\", \"tcp\" or \"gloo\"");
  }
}

bool shares_memory(const std::string& transport) {
  return transport == "auto" || transport == "shm";
}

bool may_share_host(const Rendezvous& rendezvous, int size, bool wanted) {
  const std::string own = wanted ? shm::boot_id() : "";
  rendezvous.set("boot", own);
  bool same = !own.empty();
  for (int peer = 0; same && peer < size; ++peer) {
    same = rendezvous.get(peer, "boot") == own;
  }
  return same;
}

HostPart connect_host(const ConnectOptions& options, const Rendezvous& rendezvous) {
  if (!shares_memory(options.transport)) return {};
  auto shm = shm::ShmTransport::connect(rendezvous, options.rank, options.size, options.env,
                                        options.deadline);
  bool all_local = true;
  for (int peer = 0; peer < options.size; ++peer) {
    all_local = all_local && (peer == options.rank || shm->reaches(peer));
  }
  const bool everybody = everybody_local(rendezvous, options.rank, options.size, all_local);
  return {std::move(shm), everybody};
}

Connection connect_on_host(HostPart host, const ConnectOptions& options) {
  std::vector<std::string> names(options.size, "shm");
  names[options.rank] = "self";
  return {std::move(host.shm), std::move(names)};
}

Connection connect_transport(const ConnectOptions& options, HostPart host,
                             const Rendezvous& rendezvous,
                             const std::function<c10::intrusive_ptr<c10d::Backend>()>& make_gloo) {
  if (host.everybody) return connect_on_host(std::move(host), options);
  const std::string far = options.transport == "gloo" ? "gloo" : "tcp";
  std::vector<std::string> names(options.size, "shm");
  names[options.rank] = "self";
  std::vector<int> remote;
  for (int peer = 0; peer < options.size; ++peer) {
    if (peer == options.rank || (host.shm && host.shm->reaches(peer))) continue;
    names[peer] = far;
    remote.push_back(peer);
  }
  if (options.transport == "shm") {
    fail(ErrorCode::kUsage, "transport \"shm\" was asked for, but rank ", options.rank,
         " and some others are not on ", "the same host or may not share memory",
         remote.empty() ? "" : ": " + name_ranks(remote), "; use \"auto\"");
  }
  const bool alone = static_cast<int>(remote.size()) + 1 == options.size;  // on its host
  std::vector<std::unique_ptr<Transport>> transports;  // in the order that RoutedTransport wants
  if (far == "gloo") {
    transports.push_back(std::make_unique<GlooTransport>(make_gloo()));
  } else {
    const auto pieces = alone ? tcp::Pieces::kMany : tcp::Pieces::kOne;
    transports.push_back(tcp::TcpTransport::connect(rendezvous, options.rank, options.size, remote,
                                                    Env::interface(), pieces, options.deadline));
  }
  if (alone) return {std::move(transports.front()), std::move(names)};
  transports.push_back(std::move(host.shm));
  std::vector<int> routes(options.size);
  std::transform(names.begin(), names.end(), routes.begin(),
                 [](auto& name) { return name == "shm" ? 1 : 0; });
  return {std::make_unique<RoutedTransport>(std::move(transports), std::move(routes)),
          std::move(names)};
}

}  // namespace bluefog
