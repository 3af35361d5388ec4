// Which ranks share this host, and the memory that they lend each other.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "transport/rendezvous.h"
#include "transport/shm/segment.h"

namespace bluefog::shm {

/// Which start of which machine this is; empty where the system does not say.
std::string boot_id();

/// Hands `own` to every rank that can be reached over a Unix socket of this host, and maps theirs.
/// A rank that has no segment to offer (null) takes part all the same and reaches nobody.
///
/// Collective over the group. Whether two ranks share a host is decided by trying, not by names:
/// same boot id, then a connection to an abstract socket with a random name (so: the same network
/// namespace), a secret from the rendezvous, the same user by SO_PEERCRED, and a descriptor that
/// maps (one that does not is named on stderr). Returns one entry per rank; those out of reach, and
/// this rank itself, are empty. Both sides of every pair come to the same answer. Throws
/// Error(kTimeout) naming a rank that never came, Error(kSystem).
std::vector<std::optional<Segment>> exchange_segments(const Rendezvous& rendezvous, int rank,
                                                      int size, const Segment* own,
                                                      Deadline deadline);

}  // namespace bluefog::shm
