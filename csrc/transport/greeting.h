// What all transports say alike: greetings, and the sentences of their failures.
#pragma once

#include <vector>

#include "transport/transport.h"

namespace bluefog {

/// This rank's greeting to `peer`: the frame and how the plan sees the edge between them.
Greeting greeting_for(const Request& request, int peer);

/// "neighbor_allreduce #12".
std::string describe(const Frame& frame);

/// What a neighbour that failed did, in the words that every transport uses.
Failure not_started(int peer);
Failure gave_up(int peer, const char* when);
Failure stalled(int peer, std::size_t moved, std::size_t total);
Failure lost(int peer, const std::string& how);

[[noreturn]] void fail_aborted(const Request& request);

}  // namespace bluefog
