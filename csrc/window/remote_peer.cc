// What this rank wants of the peer. What the peer wants of it: remote_peer_arrivals.cc.
#include "window/remote_peer.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace bluefog::window {

using messages::Header;

constexpr std::chrono::milliseconds kLongestSleep{20};

RemotePeer::RemotePeer(RemoteEdge edge)
    : Peer(edge.rank),
      edge_(std::move(edge)),
      mutex_here_(*edge_.mutex, [this](std::uint64_t ticket) { post(kGranted, ticket); }),
      outbox_(
          edge_.shape.dtype, edge_.shape.nbytes,
          [this](auto number, auto& parcel) { post_parcel(number, parcel); }, edge_.outbox) {
  if (edge_.mailbox) writer_.emplace(*edge_.mailbox);
}

Header RemotePeer::header(Kind kind, std::uint64_t number) const {
  Header message;
  message.kind = kind;
  message.channel = edge_.channel;
  message.number = number;
  return message;
}

void RemotePeer::post(Kind kind, std::uint64_t number) {
  edge_.service->send(edge_.rank, header(kind, number));
}

// Announced when the carrier has it, since the peer may wait for it from then on.
void RemotePeer::post_parcel(std::uint64_t number, const Parcel& parcel) {
  Header message = header(parcel.supersedes ? kReplace : kAdd, number);
  message.extra = parcel.puts;
  message.p = parcel.p;
  if (!edge_.carrier) {
    message.nbytes = edge_.shape.nbytes;
    return edge_.service->send(edge_.rank, message, parcel.value);
  }
  edge_.outbox.parcels->show(edge_.carrier->outgoing(edge_.rank), parcel.value.get(),
                             edge_.shape.nbytes);
  edge_.carrier->put(edge_.rank);
  edge_.service->send(edge_.rank, message);
}

void RemotePeer::send(Sending kind, const std::byte* x, double weight, double p) {
  const std::lock_guard lock(mutex_);
  if (broken_) throw *broken_;
  outbox_.send(kind, x, weight, p);
}

double RemotePeer::outstanding(std::byte* y) {
  const std::lock_guard lock(mutex_);
  return outbox_.outstanding(y);
}

void RemotePeer::fail_ended(const char* what) const {
  if (interrupted_) {
    fail(ErrorCode::kAborted, "window '", edge_.window, "' of rank ", edge_.self,
         " was freed, or its process group destroyed, while it waited for ", what);
  }
  if (broken_) throw *broken_;
  const char* how = lost();
  fail(ErrorCode::kPeerLost, "rank ", edge_.self, " waited for ", what, " in window '",
       edge_.window, "', but rank ", edge_.rank,
       how == nullptr ? " has freed the window" : concat(" was lost: ", how));
}

bool RemotePeer::flush(const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  const auto over = [&] { return outbox_.delivered() || ended(); };
  if (!changed_.wait_for(lock, deadline.left(), over)) return false;
  if (!outbox_.delivered()) fail_ended("what it has sent to be applied");
  return true;
}

double RemotePeer::read(std::byte* to, const Deadline& deadline) {
  std::unique_lock lock(mutex_);
  got_ = host_arithmetic().allocate(edge_.shape.nbytes);
  got_all_ = false;
  get_ticket_ = ++tickets_;
  post(kGet, get_ticket_);
  changed_.wait_for(lock, deadline.left(), [&] { return got_all_ || ended(); });
  const Bytes got = std::exchange(got_, nullptr);
  if (!got_all_ && ended()) fail_ended("another rank's value");
  if (!got_all_) {
    fail(ErrorCode::kTimeout, "rank ", edge_.self, " waited ", deadline.timeout_seconds(),
         " s for the value of rank ", edge_.rank, " in window '", edge_.window,
         "': it is stopped, or the connection is");
  }
  std::memcpy(to, got.get(), edge_.shape.nbytes);
  return got_p_;
}

PairMutex::Outcome RemotePeer::lock(const Deadline& deadline, const std::function<bool()>& gone,
                                    const std::function<bool()>& give_up) {
  std::unique_lock lock(mutex_);
  granted_ = false;
  lock_ticket_ = ++tickets_;
  post_in_turn(kLock, lock_ticket_);
  while (true) {
    if (granted_ || gone()) return PairMutex::Outcome::kTaken;
    const bool given_up = give_up();
    if (given_up || deadline.passed()) {
      unlock_locked();
      return given_up ? PairMutex::Outcome::kGivenUp : PairMutex::Outcome::kLate;
    }
    changed_.wait_for(lock, std::min<std::chrono::nanoseconds>(deadline.left(), kLongestSleep));
  }
}

void RemotePeer::unlock() {
  const std::lock_guard lock(mutex_);
  unlock_locked();
}

void RemotePeer::unlock_locked() {
  if (lock_ticket_ == 0) return;
  post_in_turn(kUnlock, std::exchange(lock_ticket_, 0));
}

// What was put while the mutex was held comes before the end of that.
void RemotePeer::post_in_turn(Kind kind, std::uint64_t number) {
  late_.emplace_back(kind, number);
  post_late();
}

void RemotePeer::post_late() {
  while (!late_.empty() && !(late_.front().first == kUnlock && outbox_.waits())) {
    post(late_.front().first, late_.front().second);
    late_.pop_front();
  }
}

void RemotePeer::collected(std::uint64_t record) {
  if (record <= told_) return;
  told_ = record;
  post(kConsumed, record);
}

void RemotePeer::tell(Life life) {
  const std::lock_guard lock(mutex_);
  if (closed_) return;
  if (life == Life::kClosed) {
    if (!edge_.carrier) outbox_.send_last();
    post_late();
    closed_ = true;
  }
  post(life == Life::kClosed ? kClosed : kLeaving);
}

void RemotePeer::interrupt() {
  interrupted_ = true;
  {
    const std::lock_guard lock(mutex_);
  }
  changed_.notify_all();
}

std::size_t RemotePeer::nbytes() const {
  const std::size_t sending = edge_.carrier ? Outbox::kBuffers + 1 : Outbox::kBuffers;
  return ((edge_.out ? sending : 0) + (edge_.mailbox ? 1 : 0)) * edge_.shape.nbytes;
}

}  // namespace bluefog::window
