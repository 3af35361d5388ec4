// A window's life: made, freed, closed, and the mutexes in between. Its calls: window_calls.cc.
#include "window/window.h"

#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "base/process.h"
#include "transport/shm/handshake.h"
#include "window/window_impl.h"

namespace bluefog::window {
namespace {

// Maps the parts of the other ranks; those of ranks that are no neighbours only for the handshake.
std::vector<std::optional<Segment>> map_peers(const Spec& spec, const std::optional<Segment>& own,
                                              const Rendezvous& rendezvous, Deadline deadline) {
  std::vector<std::optional<Segment>> segments(spec.shape.size);
  const auto accept = [&](int rank, UniqueFd fd) {
    Segment segment = Segment::map(std::move(fd), rank, spec.shape);
    if (has(spec.in_neighbors, rank) || has(spec.out_neighbors, rank)) {
      segments[rank].emplace(std::move(segment));
    }
  };
  const std::vector<bool> reached = shm::exchange_memory(rendezvous, spec.rank, spec.shape.size,
                                                         own ? own->fd() : -1, accept, deadline);
  for (int rank = 0; rank < spec.shape.size; ++rank) {
    if (!reached[rank]) segments[rank].reset();
  }
  return segments;
}

void check_reached(const Spec& spec, const std::vector<std::optional<Segment>>& segments) {
  std::vector<int> missing;
  for (const auto* ranks : {&spec.in_neighbors, &spec.out_neighbors}) {
    std::copy_if(ranks->begin(), ranks->end(), std::back_inserter(missing),
                 [&](int rank) { return !segments[rank]; });
  }
  if (!missing.empty()) {
    fail(ErrorCode::kSystem, "rank ", spec.rank, " shares no memory with ", name_ranks(missing),
         " for window '", spec.name, "': windows are for ranks of one host that may make ",
         "shared memory");
  }
}

}  // namespace

std::unique_ptr<Window> Window::create(Spec spec, const std::byte* own,
                                       const Rendezvous& rendezvous, Deadline deadline) {
  std::optional<Segment> mine;
  std::optional<Error> refused;
  try {
    mine.emplace(Segment::create(spec.rank, spec.shape, spec.in_neighbors));
    if (spec.shape.readable) mine->own().publish(own, 1);
  } catch (const Error& error) {
    refused = error;  // the others wait for this rank to take part
  }
  auto segments = map_peers(spec, mine, rendezvous, deadline);
  if (refused) throw *refused;
  check_reached(spec, segments);
  std::vector<std::unique_ptr<Peer>> peers(spec.shape.size);
  for (int rank = 0; rank < spec.shape.size; ++rank) {
    if (!segments[rank]) continue;
    peers[rank] = std::make_unique<Peer>(std::move(*segments[rank]), spec.rank, rank);
  }
  std::unique_ptr<Window> window(new Window(std::move(spec), std::move(*mine), std::move(peers)));
  Bytes first;
  if (!window->spec_.zero_init) {
    first = make_bytes(window->spec_.shape.nbytes);
    std::memcpy(first.get(), own, window->spec_.shape.nbytes);
  }
  for (int rank : window->spec_.in_neighbors) {
    window->inboxes_[rank] = std::make_unique<Inbox>(window->own_->mailbox_of(rank), first);
  }
  return window;
}

Window::Window(Spec spec, Segment own, std::vector<std::unique_ptr<Peer>> peers)
    : spec_(std::move(spec)),
      pid_(process_id()),
      own_(std::move(own)),
      peers_(std::move(peers)),
      inboxes_(spec_.shape.size),
      mutexes_(spec_.rank, spec_.name,
               {[this](Mutexes::Key key) -> PairMutex& {
                  const Segment& at = key.first == spec_.rank ? *own_ : peers_[key.first]->segment;
                  return at.mutex_of(key.second);
                },
                [this](int rank) {
                  return spec_.lost(rank) != nullptr ||
                         peers_[rank]->segment.life() == Life::kClosed;
                }}) {}

Window::~Window() { close(); }

bool Window::forked() const { return process_id() != pid_; }

void Window::check_process() const {
  if (forked()) {
    fail(ErrorCode::kUsage, "window '", spec_.name, "' of rank ", spec_.rank,
         " was made in process ", pid_, " and cannot be used in process ", process_id(),
         ", which was forked from it");
  }
}

std::vector<int> Window::not_leaving() const {
  std::vector<int> ranks;
  for (int rank = 0; rank < spec_.shape.size; ++rank) {
    if (peers_[rank] && peers_[rank]->segment.life() == Life::kOpen && !spec_.lost(rank)) {
      ranks.push_back(rank);
    }
  }
  return ranks;
}

// Looks again and again: who frees a window has no more to do with it that could be slowed.
void Window::free(const Deadline& deadline) {
  std::vector<int> missing;
  std::chrono::microseconds pause{20};
  while (true) {
    {
      const Entered entered(this);
      own_->life() = Life::kLeaving;
      missing = not_leaving();
    }
    if (missing.empty() || deadline.passed()) break;
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, std::chrono::microseconds(5000));
  }
  close();
  if (!missing.empty()) {
    fail(ErrorCode::kTimeout, "rank ", spec_.rank, " waited ", deadline.timeout_seconds(),
         " s for ", name_ranks(missing), " to free window '", spec_.name, "' as well");
  }
}

bool Window::lost(int rank) {
  const Entered entered(this);
  return peer(rank).segment.life() == Life::kClosed || spec_.lost(rank) != nullptr;
}

std::size_t Window::nbytes() {
  const Entered entered(this);
  return own_->nbytes();
}

Life Window::neighbor_life(int rank) {
  const Entered entered(this);
  return peer(rank).segment.life();
}

void Window::close() {
  if (forked()) return;  // nothing but the mappings is this process's own
  closed_ = true;
  {
    const std::shared_lock open(open_);
    if (!own_) return;
    mutexes_.close();
    own_->life() = Life::kClosed;
  }
  const std::unique_lock alone(open_);
  inboxes_.clear();
  peers_.clear();
  own_.reset();
}

std::vector<Mutexes::Key> Window::keys(bool as_owner, const std::vector<int>& ranks) const {
  std::vector<Mutexes::Key> keys;
  for (int rank : ranks) {
    if (!has(spec_.in_neighbors, rank) && !has(spec_.out_neighbors, rank)) {
      fail(ErrorCode::kUsage, title("a mutex"), ": rank ", rank, " is no neighbour of rank ",
           spec_.rank);
    }
    keys.push_back(as_owner ? Mutexes::Key{spec_.rank, rank} : Mutexes::Key{rank, spec_.rank});
  }
  std::sort(keys.begin(), keys.end());
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

void Window::lock(const std::vector<Mutexes::Key>& keys, const Deadline& deadline) {
  check_process();
  const std::shared_lock open(open_);
  if (closed_) {
    fail(ErrorCode::kAborted, title("a mutex"), " of rank ", spec_.rank, ": it has been freed");
  }
  mutexes_.lock(keys, deadline);
}

void Window::unlock(const std::vector<Mutexes::Key>& keys) {
  const std::shared_lock open(open_);
  if (!closed_) mutexes_.unlock(keys);
}

}  // namespace bluefog::window
