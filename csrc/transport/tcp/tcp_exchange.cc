#include "transport/tcp/tcp_exchange.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "transport/greeting.h"

namespace bluefog::tcp {

TcpExchange::TcpExchange(TcpTransport* transport, const Request& request)
    : transport_(transport), request_(request), deadline_(request.deadline) {
  for (int rank : request.plan->neighbors()) {
    neighbors_.push_back({rank, transport->pairs_[rank].get()});
    Pair& pair = *neighbors_.back().pair;
    pair.enter(request.frame.sequence);
    pair.greet(greeting_for(request, rank));
    pair.progress();
  }
  for (const Edge& destination : request.plan->destinations()) {
    of(destination.rank).receives = true;
  }
}

TcpExchange::~TcpExchange() {
  for (Neighbor& neighbor : neighbors_) {
    if (neighbor.live && !complete_) neighbor.pair->leave(Head::Kind::kGiveUp);
  }
}

TcpExchange::Neighbor& TcpExchange::of(int rank) {
  return *std::ranges::find(neighbors_, rank, &Neighbor::rank);
}

// ---- Meeting

std::vector<Greeting> TcpExchange::meet() {
  const auto met = [](const Neighbor& neighbor) {
    return neighbor.pair->greeted() && neighbor.pair->all_sent();
  };
  if (!wait(request_.deadline, met)) {
    for (Neighbor& neighbor : neighbors_) {
      if (neighbor.live && !met(neighbor)) give_up(neighbor, not_started(neighbor.rank));
    }
  }
  std::vector<Greeting> greetings;
  for (Neighbor& neighbor : neighbors_) {
    if (neighbor.live && neighbor.pair->gave_up()) give_up(neighbor, reason_gone(neighbor));
    greetings.push_back(neighbor.pair->greeting());
  }
  for (const Edge& source : request_.plan->sources()) {
    of(source.rank).due = of(source.rank).pair->greeting().frame.nbytes;
  }
  met_ = true;
  deadline_ = request_.deadline.renewed();
  return greetings;
}

void TcpExchange::drop(int peer) {
  of(peer).live = false;
  of(peer).pair->leave(Head::Kind::kDrop);
}

// ---- Moving payloads

bool TcpExchange::next(Piece& piece) {
  if (std::exchange(begun_, true)) {
    offset_ += transport_->piece_;
  } else {
    send_piece();
  }
  for (; offset_ < longest(); offset_ += transport_->piece_) {
    make_room();
    const auto moved = [](const Neighbor& neighbor) {
      return neighbor.pair->all_sent() && neighbor.pair->filled();
    };
    if (!wait(deadline_, moved)) {
      for (Neighbor& neighbor : neighbors_) {
        if (!neighbor.live || moved(neighbor)) continue;
        const std::size_t got = neighbor.pair->received();
        give_up(neighbor, stalled(neighbor.rank, got, std::max(got, neighbor.due)));
      }
    }
    send_piece();
    if (fill(piece)) return true;
  }
  complete_ = true;
  return false;
}

bool TcpExchange::sends() const {
  return std::ranges::any_of(neighbors_, [](auto& each) { return each.live && each.receives; });
}

std::size_t TcpExchange::longest() const {
  std::size_t most = sends() ? request_.payload->nbytes() : 0;
  for (const Neighbor& neighbor : neighbors_) {
    if (neighbor.live) most = std::max(most, neighbor.due);
  }
  return most;
}

std::size_t TcpExchange::in_piece(const Neighbor& source) const {
  return source.live && offset_ < source.due ? std::min(transport_->piece_, source.due - offset_)
                                             : 0;
}

void TcpExchange::send_piece() {
  const std::size_t size = std::min(transport_->piece_, request_.payload->nbytes() - posted_);
  if (size == 0 || !sends()) return;
  const auto bytes = own(posted_, size);
  posted_ += size;
  for (Neighbor& neighbor : neighbors_) {
    if (!neighbor.live || !neighbor.receives) continue;
    neighbor.pair->send(bytes);
    neighbor.pair->progress();
  }
}

std::span<const std::byte> TcpExchange::own(std::size_t offset, std::size_t nbytes) {
  for (const Payload::Segment& segment : request_.payload->segments()) {
    if (segment.offset <= offset && offset + nbytes <= segment.offset + segment.nbytes) {
      return {segment.data + (offset - segment.offset), nbytes};
    }
  }
  copy_.resize(nbytes);
  request_.payload->copy(offset, nbytes, copy_.data());
  return copy_;
}

void TcpExchange::make_room() {
  for (Neighbor& neighbor : neighbors_) {
    if (!neighbor.live) continue;
    auto& room = transport_->rooms_[neighbor.rank];
    room.resize(std::max(room.size(), in_piece(neighbor)));
    neighbor.pair->make_room(std::span(room).first(in_piece(neighbor)));
  }
}

bool TcpExchange::fill(Piece& piece) {
  piece.offset = offset_;
  piece.sources.clear();
  for (const Edge& source : request_.plan->sources()) {
    const auto& room = transport_->rooms_[source.rank];
    piece.sources.emplace_back(std::span(room).first(in_piece(of(source.rank))));
  }
  return piece.size() > 0;
}

// ---- Waiting

template <typename Done>
bool TcpExchange::wait(const Deadline& deadline, Done done) {
  std::vector<pollfd> awaited;
  while (true) {
    awaited.assign(1, {transport_->wake_.get(), POLLIN, 0});
    for (Neighbor& neighbor : neighbors_) {
      if (!neighbor.live) continue;
      neighbor.pair->progress();
      if (done(neighbor)) continue;
      if (gone(neighbor)) {
        give_up(neighbor, reason_gone(neighbor));
      } else {
        awaited.push_back(neighbor.pair->awaited());
      }
    }
    if (transport_->aborted_.load(std::memory_order_acquire)) {
      fail_aborted(request_);
    }
    if (awaited.size() == 1) return true;
    if (deadline.passed()) return false;
    const auto most = std::min<long>(deadline.left_in_ms().count(), 1 << 30);
    ::poll(awaited.data(), awaited.size(), static_cast<int>(most));
  }
}

bool TcpExchange::gone(const Neighbor& neighbor) const {
  const Pair& pair = *neighbor.pair;
  return pair.lost() || pair.gave_up() || pair.ahead() || (met_ && pair.dropped());
}

Failure TcpExchange::reason_gone(const Neighbor& neighbor) const {
  const Pair& pair = *neighbor.pair;
  if (pair.lost()) return lost(neighbor.rank, pair.lost());
  if (pair.greeted()) {
    return gave_up(neighbor.rank, met_ ? "in the middle" : "before this rank came");
  }
  return {neighbor.rank, ErrorCode::kMismatch,
          concat("is at a later operation already and had no exchange with rank ",
                 request_.plan->rank(), " in this one")};
}

void TcpExchange::give_up(Neighbor& neighbor, const Failure& failure) {
  failures_.push_back(failure);
  neighbor.live = false;
  neighbor.pair->leave(Head::Kind::kGiveUp);
}

}  // namespace bluefog::tcp
