#include "nccl/collectives.h"

#include <cstring>
#include <deque>
#include <functional>

#include "nccl/reduce.h"

namespace emulator::nccl {
namespace {

void copy(void* to, const void* from, std::size_t bytes) {
  if (bytes > 0 && to != from) std::memmove(to, from, bytes);
}

/// The messages of a group, with what is done once they are there. Everybody sends everybody what
/// it needs, whatever that takes: simple, and enough for a few ranks.
class Plan {
 public:
  explicit Plan(const Communicator& communicator)
      : communicator_(communicator), rank_(communicator.rank), size_(communicator.size) {}

  void add(const Call& call);
  void run();

 private:
  using Buffer = std::vector<std::byte>;

  void send(const Call& call, int peer, const void* data);
  void receive(const Call& call, int peer, void* data);
  void* buffer(std::size_t bytes) { return buffers_.emplace_back(bytes).data(); }
  void reduce_here(const Call& call, const void* own);
  void add_reduction(const Call& call);
  void add_movement(const Call& call);
  void to_each(const Call& call, bool same_for_all);
  void from_each(const Call& call);

  const Communicator& communicator_;
  const int rank_;
  const int size_;
  std::deque<Buffer> buffers_;
  std::vector<Transfer> transfers_;
  std::vector<std::function<void()>> afterwards_;
};

std::size_t bytes_of(const Call& call) { return call.count * size_of(call.type); }

const void* block(const void* data, int index, const Call& call) {
  return static_cast<const std::byte*>(data) + index * bytes_of(call);
}

void* block(void* data, int index, const Call& call) {
  return static_cast<std::byte*>(data) + index * bytes_of(call);
}

// Only what other ranks have; a rank's own part is copied at the end.
void Plan::send(const Call& call, int peer, const void* data) {
  if (peer == rank_ && call.kind != Kind::kSendRecv) return;
  transfers_.push_back(
      {Transfer::Direction::kSend, peer, const_cast<void*>(data), bytes_of(call), call.kind});
}

void Plan::receive(const Call& call, int peer, void* data) {
  if (peer == rank_ && call.kind != Kind::kSendRecv) return;
  transfers_.push_back({Transfer::Direction::kReceive, peer, data, bytes_of(call), call.kind});
}

void Plan::reduce_here(const Call& call, const void* own) {
  std::vector<const void*> inputs;
  for (int peer = 0; peer < size_; ++peer) {
    if (peer == rank_) {
      inputs.push_back(own);
      continue;
    }
    void* const input = buffer(bytes_of(call));
    receive(call, peer, input);
    inputs.push_back(input);
  }
  afterwards_.push_back([call, inputs] {
    reduce(call.receive, inputs, call.count, call.type, call.scalar ? ncclSum : call.op);
  });
}

void Plan::add_reduction(const Call& call) {
  const void* input = call.send;
  if (call.scalar) {
    const bool scatters = call.kind == Kind::kReduceScatter;
    const std::size_t count = call.count * (scatters ? size_ : 1);
    void* const scaled = buffer(count * size_of(call.type));
    scale(scaled, call.send, call.scalar->data(), count, call.type);
    input = scaled;
  }
  switch (call.kind) {
    case Kind::kAllReduce:
      for (int peer = 0; peer < size_; ++peer) send(call, peer, input);
      return reduce_here(call, input);
    case Kind::kReduce:
      if (rank_ == call.peer) return reduce_here(call, input);
      return send(call, call.peer, input);
    default:  // reduce-scatter
      for (int peer = 0; peer < size_; ++peer) send(call, peer, block(input, peer, call));
      return reduce_here(call, block(input, rank_, call));
  }
}

void Plan::to_each(const Call& call, bool same_for_all) {
  for (int peer = 0; peer < size_; ++peer) {
    send(call, peer, same_for_all ? call.send : block(call.send, peer, call));
  }
}

void Plan::from_each(const Call& call) {
  for (int peer = 0; peer < size_; ++peer) receive(call, peer, block(call.receive, peer, call));
}

void Plan::add_movement(const Call& call) {
  const void* own = call.send;
  void* place = call.receive;
  switch (call.kind) {
    case Kind::kBroadcast:
      if (rank_ != call.peer) return receive(call, call.peer, call.receive);
      to_each(call, true);
      break;
    case Kind::kScatter:
      if (rank_ != call.peer) return receive(call, call.peer, call.receive);
      to_each(call, false);
      own = block(call.send, rank_, call);
      break;
    case Kind::kGather:
      if (rank_ != call.peer) return send(call, call.peer, call.send);
      from_each(call);
      place = block(call.receive, rank_, call);
      break;
    case Kind::kAllGather:
      to_each(call, true);
      from_each(call);
      place = block(call.receive, rank_, call);
      break;
    default:  // all-to-all
      to_each(call, false);
      from_each(call);
      own = block(call.send, rank_, call);
      place = block(call.receive, rank_, call);
  }
  afterwards_.push_back([=] { copy(place, own, bytes_of(call)); });
}

void Plan::add(const Call& call) {
  switch (call.kind) {
    case Kind::kSendRecv:
      if (call.is_send) return send(call, call.peer, call.send);
      return receive(call, call.peer, call.receive);
    case Kind::kAllReduce:
    case Kind::kReduce:
    case Kind::kReduceScatter:
      return add_reduction(call);
    default:
      return add_movement(call);
  }
}

void Plan::run() {
  exchange(communicator_.mesh(), Channel::kData, transfers_, communicator_.stop());
  for (const auto& step : afterwards_) step();
}

}  // namespace

// NCCL does not ask that ranks have a group's collectives and its sends in the same order.
void perform(const Communicator& communicator, const std::vector<Call>& calls) {
  Plan plan(communicator);
  for (const Call& call : calls) {
    if (call.kind != Kind::kSendRecv) plan.add(call);
  }
  for (const Call& call : calls) {
    if (call.kind == Kind::kSendRecv) plan.add(call);
  }
  plan.run();
}

}  // namespace emulator::nccl
