#include "backend/agreement.h"

#include <cstring>

#include "base/error.h"
#include "transport/greeting.h"

namespace bluefog {
namespace {

// "rank 1 has X, rank 0 has Y", in ascending order of ranks so that both ends say the same.
template <typename Value>
std::string compare(int mine_rank, const Value& mine, int peer_rank, const Value& theirs) {
  return mine_rank < peer_rank
             ? concat("rank ", mine_rank, " has ", mine, ", rank ", peer_rank, " has ", theirs)
             : concat("rank ", peer_rank, " has ", theirs, ", rank ", mine_rank, " has ", mine);
}

std::string step_of(const Frame& frame) {
  return frame.round < 0 ? "weights given by the call" : concat("topology step ", frame.round);
}

std::string tensors_of(const Frame& frame) {
  return concat(frame.tensors, frame.tensors == 1 ? " tensor: " : " tensors: ",
                std::string(frame.text, strnlen(frame.text, Frame::kTextSize)));
}

}  // namespace

std::optional<std::string> disagreement(const Request& request, int peer,
                                        const Greeting& greeting) {
  const int rank = request.plan->rank();
  const Frame& mine = request.frame;
  const Frame& theirs = greeting.frame;
  if (theirs.magic != Frame::kMagic || theirs.version != Frame::kVersion) {
    return concat("the ranks run different versions of bluefog_pg: ",
                  compare(rank, mine.version, peer, theirs.version));
  }
  if (theirs.operation != mine.operation) {
    return concat(
        "the ranks call different operations: ",
        compare<std::string>(rank, name_of(mine.operation), peer, name_of(theirs.operation)));
  }
  if (theirs.round != mine.round) {
    return concat("the ranks are at different steps of the topology: ",
                  compare(rank, step_of(mine), peer, step_of(theirs)));
  }
  const Greeting own = greeting_for(request, peer);
  const bool out_differs = own.sends != greeting.receives;
  const bool in_differs = own.receives != greeting.sends;
  if (out_differs || in_differs) {
    const bool out = rank < peer ? out_differs : !in_differs;  // of two, both ends name the same
    const int sender = out ? rank : peer;
    const int receiver = out ? peer : rank;
    const bool sender_knows = out ? own.sends : greeting.sends;
    return sender_knows
               ? concat("rank ", sender, " sends to rank ", receiver, ", but rank ", receiver,
                        " does not have rank ", sender, " among its sources")
               : concat("rank ", receiver, " wants to receive from rank ", sender, ", but rank ",
                        sender, " does not have rank ", receiver, " among its destinations");
  }
  if (theirs.schema != mine.schema || theirs.tensors != mine.tensors) {
    const std::string ours = tensors_of(mine);
    const std::string others = tensors_of(theirs);
    return concat("the ranks bring different tensors: ", compare(rank, ours, peer, others),
                  ours == others ? " (they differ after the part shown)" : "");
  }
  return std::nullopt;
}

}  // namespace bluefog
