// Chooses how each neighbour is reached.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <vector>

#include "base/env.h"
#include "transport/rendezvous.h"
#include "transport/transport.h"

namespace bluefog {

struct ConnectOptions {
  std::string transport;  // "auto", "shm", "gloo"
  int rank;
  int size;
  Env env;
  Deadline deadline;
};

struct Connection {
  std::unique_ptr<Transport> transport;
  std::vector<std::string> names;  // by rank: "shm" or "gloo"; "self" for this rank
};

/// Throws Error(kUsage) that lists the known names.
void check_transport_name(const std::string& name);

/// Collective over the group. `make_gloo` is called, on all ranks alike, only where some pair of
/// ranks needs it.
Connection connect_transport(const ConnectOptions& options, const Rendezvous& rendezvous,
                             const std::function<c10::intrusive_ptr<c10d::Backend>()>& make_gloo);

}  // namespace bluefog
