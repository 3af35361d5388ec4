// Connections with all ranks of a group that need one, when it is made.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/fd.h"
#include "transport/rendezvous.h"

namespace bluefog::tcp {

/// Connects rank `rank` of `size` with the ranks of `peers`, by rank; they do the same at the same
/// time: the higher rank calls the lower one. `interface`: see listen_at(). Throws Error(kSystem)
/// or Error(kTimeout) naming a rank that cannot be reached, or that did not call.
std::map<int, UniqueFd> connect_all(const Rendezvous& rendezvous, int rank, int size,
                                    const std::vector<int>& peers, const std::string& interface,
                                    const Deadline& deadline);

}  // namespace bluefog::tcp
