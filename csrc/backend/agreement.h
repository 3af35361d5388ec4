// Whether two neighbours mean the same operation.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "plan/plan.h"
#include "transport/transport.h"

namespace bluefog {

/// What is wrong between this rank's request and `peer`'s greeting, as a clause with both ranks and
/// both values; nothing where they agree. Both ends come to the same verdict.
std::optional<std::string> disagreement(const Request& request, int peer, const Greeting& greeting);

}  // namespace bluefog
