// How an exchange notices that a neighbour has failed, and goes on without it.
#include "base/error.h"
#include "transport/greeting.h"
#include "transport/shm/shm_exchange.h"

namespace bluefog::shm {

bool ShmExchange::moved_on(int peer) const {
  std::atomic_thread_fence(
      std::memory_order_acquire);  // what was read so far is read before this look
  const Segment& theirs = segment(peer);
  return theirs.barred(transport_->rank_).value.load(std::memory_order_acquire) >
             position(sequence(), 0) ||
         (met_ && cut_by(peer));
}

bool ShmExchange::cut_by(int peer) const {
  const EdgeView& edge = segment(peer).edge(sequence(), transport_->rank_);
  return edge.sequence.load(std::memory_order_relaxed) == sequence() &&
         edge.cut.load(std::memory_order_acquire) != 0;
}

bool ShmExchange::gone(int peer) const {
  return moved_on(peer) || segment(peer).owner_died() || segment(peer).owner_left();
}

Failure ShmExchange::reason_gone(int peer) const {
  if (moved_on(peer)) {
    return gave_up(peer, met_ ? "in the middle" : "before this rank came");
  }
  return lost(peer, segment(peer).owner_left() ? "it has destroyed the process group"
                                               : "its process ended");
}

void ShmExchange::give_up(const Failure& failure) {
  failures_.push_back(failure);
  failed_[failure.peer] = true;
  drop(failure.peer);
  std::erase(pending().peers, failure.peer);
}

void ShmExchange::give_up_gone_sources() {
  for (const Source& source : sources_) {
    // gone() is looked at first: its last chunk comes before.
    if (unread(source) && gone(source.rank) && !arrived(source)) {
      give_up(reason_gone(source.rank));
    }
  }
}

void ShmExchange::leave_holder_behind() {
  const auto [holder, until] = transport_->holder_of(pending().first_chunk + pushed_);
  transport_->leave_behind(*holder, until);
}

void ShmExchange::give_up_late() {
  for (const Source& source : sources_) {
    if (unread(source) && !arrived(source)) {
      give_up(stalled(source.rank, read_ * transport_->env_.shm_chunk_bytes, source.nbytes));
    }
  }
  for (int reader : readers_of_lent()) {
    give_up(stalled(reader, 0, request_.payload->nbytes()));
  }
  if (pushed_ == chunks_ || can_push()) {
    return;
  }
  const auto [holder, until] = transport_->holder_of(pending().first_chunk + pushed_);
  for (int reader : transport_->late(holder->readers, until)) {
    give_up(
        stalled(reader, pushed_ * transport_->env_.shm_chunk_bytes, request_.payload->nbytes()));
  }
}

}  // namespace bluefog::shm
