#include "transport/frame.h"

#include <algorithm>
#include <cstring>

#include "transport/transport.h"

namespace bluefog {

const char* name_of(Operation operation) {
  switch (operation) {
    case Operation::kNone:
      return "nothing";
    case Operation::kNeighborAllreduce:
      return "neighbor_allreduce";
    case Operation::kNeighborAllgather:
      return "neighbor_allgather";
    case Operation::kAllreduce:
      return "all_reduce";
    case Operation::kBroadcast:
      return "broadcast";
    case Operation::kAllgather:
      return "all_gather";
    case Operation::kReduceScatter:
      return "reduce_scatter";
    case Operation::kBarrier:
      return "barrier";
  }
  return "unknown operation";
}

void add_places(Frame& frame, const std::vector<std::string>& places) {
  std::string text(frame.text, strnlen(frame.text, Frame::kTextSize));
  const char* before = " in ";
  for (const std::string& place : places) {
    for (const unsigned char c : place + ";") {
      frame.schema = (frame.schema ^ c) * 0x100000001b3;  // FNV-1a, as all of the digest
    }
    text += before + (place.empty() ? "no allocation" : place);
    before = ", ";
  }
  if (text.size() >= Frame::kTextSize) text.replace(Frame::kTextSize - 4, text.npos, "...");
  std::memcpy(frame.text, text.c_str(), text.size() + 1);
}

std::size_t Piece::size() const {
  std::size_t most = 0;
  for (const auto& source : sources) {
    most = std::max(most, source.size());
  }
  return most;
}

}  // namespace bluefog
