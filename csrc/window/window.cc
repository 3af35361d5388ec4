// A window's life: made, freed, closed, and the mutexes in between. Its calls: window_calls.cc.
#include "window/window.h"

#include <chrono>
#include <thread>
#include <utility>

#include "base/process.h"
#include "window/window_impl.h"

namespace bluefog::window {

Window::Window(Spec spec, Segment own, Peers peers, std::shared_ptr<Queue> landings)
    : spec_(std::move(spec)),
      pid_(process_id()),
      own_(std::move(own)),
      peers_(std::move(peers)),
      landings_(std::move(landings)),
      inboxes_(spec_.shape.size),
      mutexes_(spec_.rank, spec_.name,
               {[this](auto key, auto& deadline, auto& give_up) {
                  return enter(key, deadline, give_up);
                },
                [this](auto key) { leave(key); }}) {}

Window::~Window() { close(); }

const Arithmetic& Window::arithmetic() const {
  return spec_.device.calls ? *spec_.device.calls : host_arithmetic();
}

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
    if (peers_[rank] && peers_[rank]->life() == Life::kOpen && !lost_how(rank)) {
      ranks.push_back(rank);
    }
  }
  return ranks;
}

const char* Window::lost_how(int rank) const {
  const char* how = spec_.lost(rank);
  return how ? how : peers_[rank]->lost();
}

// What a carrier has under way when it is closed would not arrive; what is lost already is not
// waited for.
void Window::flush_carrier(const Deadline& deadline) {
  if (!spec_.device.carrier) return;
  try {
    flush(deadline);
  } catch (const Error&) {
  }
}

// Looks again and again: who frees a window has no more to do with it that could be slowed.
void Window::free(const Deadline& deadline) {
  flush_carrier(deadline);
  std::vector<int> missing;
  std::chrono::microseconds pause{20};
  while (true) {
    {
      const Entered entered(this);
      if (own_->life().exchange(Life::kLeaving) == Life::kOpen) {
        for (auto& peer : peers_) {
          if (peer) peer->tell(Life::kLeaving);
        }
      }
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
  return peer(rank).life() == Life::kClosed || lost_how(rank) != nullptr;
}

std::size_t Window::nbytes() {
  const Entered entered(this);
  std::size_t nbytes = own_->nbytes();
  for (auto& peer : peers_) nbytes += peer ? peer->nbytes() : 0;
  return nbytes;
}

Life Window::neighbor_life(int rank) {
  const Entered entered(this);
  return peer(rank).life();
}

void Window::close() {
  if (forked()) return;  // nothing but the mappings is this process's own
  closed_ = true;
  {
    const std::shared_lock open(open_);
    if (!own_) return;
    for (auto& peer : peers_) {
      if (peer) peer->interrupt();
    }
    mutexes_.close();
    own_->life() = Life::kClosed;
  }
  const std::unique_lock alone(open_);
  for (auto& peer : peers_) {
    if (peer) peer->tell(Life::kClosed);
  }
  if (spec_.service) spec_.service->close(spec_.channel);  // nothing comes from now on
  if (landings_) {
    spec_.device.carrier->stop();
    landings_->shutdown();
  }
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

// The mutex of a mailbox is with its owner.
PairMutex::Outcome Window::enter(Mutexes::Key key, const Deadline& deadline,
                                 const std::function<bool()>& give_up) {
  const auto [owner, writer] = key;
  const int other = owner == spec_.rank ? writer : owner;
  const auto gone = [&] {
    return lost_how(other) != nullptr || peers_[other]->life() == Life::kClosed;
  };
  return owner == spec_.rank ? own_->mutex_of(writer).lock(Side::kOwner, deadline, gone, give_up)
                             : peers_[owner]->lock(deadline, gone, give_up);
}

void Window::leave(Mutexes::Key key) {
  const auto [owner, writer] = key;
  if (owner != spec_.rank) return peers_[owner]->unlock();
  own_->mutex_of(writer).unlock(Side::kOwner);
  peers_[writer]->unlocked();
}

void Window::unlock(const std::vector<Mutexes::Key>& keys) {
  const std::shared_lock open(open_);
  if (!closed_) mutexes_.unlock(keys);
}

}  // namespace bluefog::window
