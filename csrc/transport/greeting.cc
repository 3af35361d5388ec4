#include "transport/greeting.h"

#include "base/error.h"

namespace bluefog {
namespace {

const Edge* find(const std::vector<Edge>& edges, int rank) {
  for (const Edge& edge : edges) {
    if (edge.rank == rank) return &edge;
  }
  return nullptr;
}

}  // namespace

Greeting greeting_for(const Request& request, int peer) {
  const Edge* out = find(request.plan->destinations(), peer);
  return Greeting{request.frame, out ? out->weight : 0.0, out != nullptr,
                  find(request.plan->sources(), peer) != nullptr};
}

std::string describe(const Frame& frame) {
  return concat(name_of(frame.operation), " #", frame.number);
}

Failure not_started(int peer) { return {peer, ErrorCode::kTimeout, "did not start it"}; }

Failure gave_up(int peer, const char* when) {
  return {peer, ErrorCode::kTimeout, concat("gave up on it ", when)};
}

Failure stalled(int peer, std::size_t moved, std::size_t total) {
  return {peer, ErrorCode::kTimeout,
          concat("stopped in the middle (", moved, " of ", total, " bytes moved)")};
}

Failure lost(int peer, const std::string& how) {
  return {peer, ErrorCode::kPeerLost, "was lost: " + how};
}

void fail_aborted(const Request& request) {
  fail(ErrorCode::kAborted, describe(request.frame), " on rank ", request.plan->rank(),
       " ended because the process group was aborted or destroyed");
}

}  // namespace bluefog
