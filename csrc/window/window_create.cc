// How the ranks of a window come to reach each other.
#include <utility>

#include "transport/messages/service.h"
#include "transport/shm/handshake.h"
#include "window/host_peer.h"
#include "window/remote_peer.h"
#include "window/window_impl.h"

namespace bluefog::window {

// A rank that may not make memory takes part in each step all the same, because the others wait.
class Window::Maker {
 public:
  Maker(const Spec& spec, const Rendezvous& rendezvous, Deadline deadline)
      : spec_(spec), rendezvous_(rendezvous), deadline_(deadline), peers(spec.shape.size) {}

  void make_memory(const std::byte* own) {
    if (spec_.route != Route::kMessages) make_memory(/*shared=*/true);
    if (!mine && spec_.route != Route::kShared) make_memory(/*shared=*/false);
    if (mine && spec_.shape.readable) mine->own().publish(own, 1);
  }

  void meet_on_host() {
    if (spec_.route == Route::kMessages) return;
    std::vector<std::optional<Segment>> segments(spec_.shape.size);
    const auto accept = [&](int rank, UniqueFd fd) {
      Segment segment = Segment::map(std::move(fd), rank, spec_.shape);
      if (!is_neighbor(rank)) return;
      segments[rank].emplace(std::move(segment));
      use(*segments[rank], rank);
    };
    const std::vector<bool> reached = shm::exchange_memory(
        rendezvous_, spec_.rank, spec_.shape.size, mine ? mine->fd() : -1, accept, deadline_);
    for (int rank = 0; rank < spec_.shape.size; ++rank) {
      if (!reached[rank] || !segments[rank]) continue;
      peers[rank] = std::make_unique<HostPeer>(std::move(*segments[rank]), spec_.rank, rank);
    }
  }

  // All ranks say where they take messages, or nothing. What comes for this window finds it from
  // then on.
  void meet_by_messages() {
    std::vector<int> remote;
    for (int rank = 0; rank < spec_.shape.size; ++rank) {
      if (is_neighbor(rank) && !peers[rank]) remote.push_back(rank);
    }
    if (spec_.route == Route::kShared) return check_none(remote);
    std::string endpoint;
    try {
      if (mine && !remote.empty()) {
        add_remote(remote);
        endpoint = spec_.service->listen();
      }
    } catch (const Error& error) {
      refused = error;
    }
    rendezvous_.set("messages", endpoint);
    if (refused || remote.empty()) return;
    const auto endpoint_of = [&](int rank) { return rendezvous_.get(rank, "messages"); };
    spec_.service->meet(remote, endpoint_of, deadline_);
  }

  // Ends what its own thread does with peers.
  void give_up() {
    if (spec_.service) spec_.service->close(spec_.channel);
    if (!landings) return;
    spec_.device.carrier->stop();
    landings->shutdown();
  }

  void check() const {
    if (refused) throw *refused;
  }

 private:
  void make_memory(bool shared) {
    try {
      Segment segment = Segment::create(spec_.rank, spec_.shape, spec_.in_neighbors, shared);
      use(segment, spec_.rank);
      mine.emplace(std::move(segment));
      refused.reset();
    } catch (const Error& error) {
      refused = error;
    }
  }

  void use(Segment& segment, int rank) {
    const Device& device = spec_.device;
    if (!device.calls) return;
    segment.use(device.calls.get(), device.values_of ? device.values_of(rank) : nullptr);
  }

  // What the service's thread works on, and with what.
  const Arithmetic* service() const {
    return spec_.device.service ? spec_.device.service.get() : &host_arithmetic();
  }

  OutboxArithmetic outbox() const {
    const Device& device = spec_.device;
    if (device.carrier) return {device.parcels.get(), service()};
    return device.calls ? OutboxArithmetic{device.calls.get(), service()} : OutboxArithmetic{};
  }

  bool is_neighbor(int rank) const {
    return has(spec_.in_neighbors, rank) || has(spec_.out_neighbors, rank);
  }

  void check_none(const std::vector<int>& remote) {
    if (refused || remote.empty()) return;
    refused =
        Error(ErrorCode::kSystem, concat("rank ", spec_.rank, " shares no memory with ",
                                         name_ranks(remote), " for window '", spec_.name,
                                         "', and its group has transport \"shm\"; use \"auto\""));
  }

  void add_remote(const std::vector<int>& remote) {
    const auto channel = std::make_shared<RemotePeers>(spec_.shape.size);
    if (spec_.device.carrier) landings = std::make_shared<Queue>();
    for (int rank : remote) {
      RemoteEdge edge{spec_.name,
                      spec_.rank,
                      rank,
                      spec_.service,
                      spec_.channel,
                      spec_.shape,
                      has(spec_.out_neighbors, rank),
                      std::nullopt,
                      &mine->mutex_of(rank),
                      std::nullopt,
                      {},
                      nullptr,
                      nullptr};
      edge.outbox = outbox();
      edge.carrier = spec_.device.carrier;
      edge.landings = landings;
      if (has(spec_.in_neighbors, rank)) {
        edge.mailbox = mine->mailbox_of(rank);
        edge.mailbox->arithmetic = service();
      }
      if (spec_.shape.readable) {
        edge.shown = mine->own();
        edge.shown->arithmetic = service();
      }
      auto peer = std::make_unique<RemotePeer>(std::move(edge));
      channel->add(rank, peer.get());
      peers[rank] = std::move(peer);
    }
    spec_.service->open(spec_.channel, channel);
  }

  const Spec& spec_;
  const Rendezvous& rendezvous_;
  const Deadline deadline_;

 public:
  std::optional<Segment> mine;
  Peers peers;
  std::shared_ptr<Queue> landings;
  std::optional<Error> refused;
};

std::unique_ptr<Window> Window::create(Spec spec, const std::byte* own,
                                       const Rendezvous& rendezvous, Deadline deadline) {
  Maker maker(spec, rendezvous, deadline);
  try {
    maker.make_memory(own);
    maker.meet_on_host();
    maker.meet_by_messages();
    maker.check();
  } catch (...) {
    maker.give_up();
    throw;
  }
  spec.device.values_of = nullptr;  // the segments have them
  std::unique_ptr<Window> window(new Window(std::move(spec), std::move(*maker.mine),
                                            std::move(maker.peers), std::move(maker.landings)));
  Bytes first;
  if (!window->spec_.zero_init) {
    const Shape& shape = window->spec_.shape;
    first = window->arithmetic().allocate(shape.nbytes);
    window->arithmetic().scale(shape.dtype, first.get(), own, 1, shape.nbytes);
  }
  for (int rank : window->spec_.in_neighbors) {
    window->inboxes_[rank] = std::make_unique<Inbox>(window->own_->mailbox_of(rank), first);
  }
  return window;
}

}  // namespace bluefog::window
