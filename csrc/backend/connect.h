// Chooses how each neighbour is reached.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <vector>

#include "base/env.h"
#include "transport/rendezvous.h"
#include "transport/shm/shm_transport.h"
#include "transport/transport.h"

namespace bluefog {

struct ConnectOptions {
  std::string transport;  // as in BluefogOptions
  int rank;
  int size;
  Env env;
  Deadline deadline;
};

/// The ranks that this one reaches through shared memory.
struct HostPart {
  std::unique_ptr<shm::ShmTransport> shm;  // null where shares_memory() is false
  bool everybody = false;  // every rank reaches every other one: the same on all ranks
};

struct Connection {
  std::unique_ptr<Transport> transport;
  std::vector<std::string> names;  // by rank: "shm", "tcp" or "gloo"; "self" for this rank
};

/// Throws Error(kUsage) that lists the known names.
void check_transport_name(const std::string& name);

/// Whether neighbours are reached through shared memory where that can be.
bool shares_memory(const std::string& transport);

/// Whether all ranks want it and run on one machine, as far as that can be told without trying to
/// share memory: cheap. Collective over the group; the same on all ranks.
bool may_share_host(const Rendezvous& rendezvous, int size, bool wanted);

/// Collective over the group.
HostPart connect_host(const ConnectOptions& options, const Rendezvous& rendezvous);

/// For a part that has everybody.
Connection connect_on_host(HostPart host, const ConnectOptions& options);

/// Collective over the group. `make_gloo` is called, on all ranks alike, only with transport
/// "gloo". Throws Error(kUsage) where some pair of ranks shares no memory with transport "shm".
Connection connect_transport(const ConnectOptions& options, HostPart host,
                             const Rendezvous& rendezvous,
                             const std::function<c10::intrusive_ptr<c10d::Backend>()>& make_gloo);

}  // namespace bluefog
