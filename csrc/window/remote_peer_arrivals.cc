// What comes from a peer, in the service's thread; what a carrier brings, in that of landings.
#include "base/error.h"
#include "window/remote_peer.h"

namespace bluefog::window {

using messages::Header;
using messages::Payload;

RemotePeer& RemotePeers::at(int rank) const {
  if (peers_[rank] == nullptr) fail(ErrorCode::kSystem, "it is no neighbour in the window");
  return *peers_[rank];
}

Payload RemotePeer::room(const Header& header) {
  const bool parcel = header.kind == kReplace || header.kind == kAdd;
  if (header.nbytes != edge_.shape.nbytes ||
      !(parcel ? writer_.has_value() : header.kind == kValue)) {
    fail(ErrorCode::kSystem, "kind ", header.kind, " with ", header.nbytes,
         " bytes in a window of ", edge_.shape.nbytes);
  }
  if (!parcel) {
    const std::lock_guard lock(mutex_);
    return header.number == get_ticket_ ? got_ : nullptr;
  }
  if (!parcel_) parcel_ = host_arithmetic().allocate(edge_.shape.nbytes);
  return parcel_;
}

void RemotePeer::arrived(const Header& header, const Payload& payload) {
  switch (header.kind) {
    case kReplace:
    case kAdd:
      return edge_.carrier ? land(header) : apply(header, payload.get());
    case kGet:
      return show(header.number);
    case kLock:
      return after_landings([this, header] { mutex_here_.ask(header.number); });
    case kUnlock:
      return after_landings([this, header] { mutex_here_.give(header.number); });
    default:
      break;
  }
  {
    const std::lock_guard lock(mutex_);
    if (header.kind == kApplied && !closed_) {
      outbox_.applied(header.number, header.extra);
      post_late();
    } else if (header.kind == kConsumed) {
      outbox_.consumed(header.number);
    } else if (header.kind == kGranted) {
      granted_ = granted_ || header.number == lock_ticket_;
    } else if (header.kind == kValue && header.number == get_ticket_) {
      got_p_ = header.p;
      got_all_ = true;
    } else if (header.kind == kLeaving || header.kind == kClosed) {
      life_ = header.kind == kClosed ? Life::kClosed : Life::kLeaving;
    }
  }
  changed_.notify_all();
}

// What was sent while the mutex was held is in the mailbox when it is given back.
void RemotePeer::after_landings(std::function<void()> call) {
  edge_.carrier ? void(edge_.landings->submit(std::move(call))) : call();
}

void RemotePeer::land(const Header& header) {
  edge_.landings->submit([this, header] {
    try {
      edge_.carrier->await(edge_.rank);
      apply(header, edge_.carrier->landing(edge_.rank));
    } catch (const Error& error) {
      break_off(error);
    } catch (const std::exception& error) {  // the device's
      break_off(Error(ErrorCode::kSystem,
                      concat("rank ", edge_.self, " could not take what rank ", edge_.rank,
                             " sent in window '", edge_.window, "': ", error.what())));
    }
  });
}

void RemotePeer::break_off(const Error& error) {
  {
    const std::lock_guard lock(mutex_);
    broken_ = error;
  }
  changed_.notify_all();
}

void RemotePeer::apply(const Header& parcel, const std::byte* value) {
  if (!writer_ || parcel.nbytes != (edge_.carrier ? 0 : edge_.shape.nbytes)) {
    fail(ErrorCode::kSystem, "a parcel for no mailbox");
  }
  if (parcel.kind == kReplace) {
    writer_->replace(value, 1, parcel.p, parcel.extra);
  } else {
    writer_->add(value, 1, parcel.p);
  }
  Header answer = header(kApplied, parcel.number);
  const std::lock_guard lock(arrivals_);
  writer_->settle();
  writer_->publish();
  answer.extra = edge_.mailbox->control->consumed.load(std::memory_order_acquire);
  edge_.service->send(edge_.rank, answer);
}

void RemotePeer::show(std::uint64_t ticket) {
  if (!edge_.shown) fail(ErrorCode::kSystem, "a get in a window that is not readable");
  const Bytes value = edge_.shown->arithmetic->allocate(edge_.shown->stride);
  Header answer = header(kValue, ticket);
  answer.p = edge_.shown->read(value.get());
  answer.nbytes = edge_.shape.nbytes;
  edge_.service->send(edge_.rank, answer, value);
}

void RemotePeer::connection_lost() {
  mutex_here_.give();
  {
    const std::lock_guard lock(mutex_);
  }
  changed_.notify_all();
}

}  // namespace bluefog::window
