// Which ranks share this host, and the memory that they lend each other.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "transport/rendezvous.h"
#include "transport/shm/segment.h"

namespace bluefog::shm {

/// Which start of which machine this is; empty where the system does not say.
std::string boot_id();

/// Maps what `peer` has sent; throws Error where it cannot.
using Accept = std::function<void(int peer, UniqueFd fd)>;

/// Hands the descriptor `own` to every rank that can be reached over a Unix socket of this host,
/// and theirs to `accept`. A rank that has no memory to offer (-1) takes part all the same and
/// reaches nobody.
///
/// Collective over the group. Whether two ranks share a host is decided by trying, not by names:
/// same boot id, then a connection to an abstract socket with a random name (so: the same network
/// namespace), a secret from the rendezvous, the same user by SO_PEERCRED, and a descriptor that
/// maps (one that does not is named on stderr). Returns whom this rank has reached and who has
/// reached it: both sides of every pair come to the same answer. What was accepted from others is
/// to be forgotten. Throws Error(kTimeout) naming a rank that never came, Error(kSystem).
std::vector<bool> exchange_memory(const Rendezvous& rendezvous, int rank, int size, int own,
                                  const Accept& accept, Deadline deadline);

/// The same with segments, null where this rank has none. Returns one entry per rank; those out of
/// reach, and this rank itself, are empty.
std::vector<std::optional<Segment>> exchange_segments(const Rendezvous& rendezvous, int rank,
                                                      int size, const Segment* own,
                                                      Deadline deadline);

}  // namespace bluefog::shm
