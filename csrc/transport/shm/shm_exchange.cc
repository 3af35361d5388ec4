#include "transport/shm/shm_exchange.h"

#include <algorithm>

#include "base/error.h"
#include "transport/greeting.h"

namespace bluefog::shm {
namespace {

// Waiting for the readers at the end costs more than copying what is smaller.
std::optional<std::size_t> place_to_lend(const Request& request, const Heap* heap,
                                         std::size_t least) {
  const auto& segments = request.payload->segments();
  if (!heap || !request.payload->steady || segments.size() != 1 || segments[0].nbytes < least ||
      request.plan->destinations().empty()) {
    return std::nullopt;
  }
  return heap->offset_of(segments[0].data, segments[0].nbytes);
}

std::uint64_t chunks_of(std::uint64_t nbytes, std::uint64_t chunk_bytes) {
  return (nbytes + chunk_bytes - 1) / chunk_bytes;
}

}  // namespace

template <typename Ready, typename Whom>
bool ShmExchange::wait(const Deadline& deadline, Ready&& ready, Whom&& whom) {
  const std::atomic<bool>& aborted = transport_->aborted_;
  const bool in_time = transport_->waiter_.wait(
      deadline, [&] { return aborted.load(std::memory_order_acquire) || ready(); }, whom);
  if (aborted.load(std::memory_order_acquire)) {
    fail_aborted(request_);
  }
  return in_time;
}

ShmExchange::ShmExchange(ShmTransport* transport, const Request& request)
    : transport_(transport),
      request_(request),
      deadline_(request.deadline),
      lent_(place_to_lend(request, transport->heap_.get(), transport->env_.shm_chunk_bytes)),
      chunks_(request.plan->destinations().empty()
                  ? 0
                  : chunks_of(request.payload->nbytes(), transport->env_.shm_chunk_bytes)),
      failed_(request.plan->size(), false) {
  for (const Edge& source : request.plan->sources()) {
    sources_.push_back({source.rank});
  }
  const bool room = wait(
      deadline_, [&] { return transport_->make_room(sequence()); },
      [] { return Waiter::kAnybody; });
  if (!transport_->own_) {
    return;  // this rank reaches nobody: its plans for this transport have no neighbours
  }
  if (!room) {
    transport_->leave_behind_before(sequence());
  }
  write_greeting();
  write_chunk();  // goes out with the greeting: a small payload is all there at the first look
  publish(request_.plan->neighbors());
  while (push()) {
  }
}

ShmExchange::~ShmExchange() {
  if (!transport_->own_) {
    return;
  }
  // Chunks that were never written take no place in the ring: what lies where they would have gone
  // may still be read.
  pending().chunks = written_;
  transport_->next_chunk_ = pending().first_chunk + written_;
  const bool complete = pushed_ == chunks_ && readers_of_lent().empty();
  for (int peer : request_.plan->neighbors()) {
    if (failed_[peer] || !complete) {
      transport_->bar(peer, sequence());
    }
    release(peer, position(sequence() + 1, 0));
  }
  ring(request_.plan->neighbors(), Waiter::kRoom);
}

// ---- Publishing

void ShmExchange::write_greeting() {
  Hello& hello = own().hello(sequence());
  hello.sequence.store(0, std::memory_order_relaxed);
  std::atomic_thread_fence(
      std::memory_order_release);  // pairs with the acquire fence in read_greeting()
  hello.frame = request_.frame;
  hello.first_chunk = transport_->next_chunk_;
  hello.lent = lent_.value_or(Hello::kNotLent);
  for (int peer : request_.plan->neighbors()) {
    const Greeting greeting = greeting_for(request_, peer);
    EdgeView& edge = own().edge(sequence(), peer);
    edge.sequence.store(sequence(), std::memory_order_relaxed);
    edge.weight = greeting.weight;
    edge.sends = greeting.sends;
    edge.receives = greeting.receives;
    edge.cut.store(0, std::memory_order_relaxed);
  }
  hello.sequence.store(sequence(), std::memory_order_release);

  const std::uint64_t in_ring = lent_ ? 0 : chunks_;
  ShmTransport::Pending pending{
      sequence(), transport_->next_chunk_, in_ring, request_.plan->neighbors(), {}};
  for (const Edge& destination : request_.plan->destinations()) {
    pending.readers.push_back(destination.rank);
  }
  transport_->pending_.push_back(std::move(pending));
  transport_->next_chunk_ += in_ring;
  if (lent_) pushed_ = chunks_;
}

void ShmExchange::publish(const std::vector<int>& peers) {
  own().control().published.value.store(position(sequence(), 1 + pushed_),
                                        std::memory_order_release);
  ring(peers, transport_->rank_);
}

void ShmExchange::ring(const std::vector<int>& peers, int from) {
  Waiter::before_rings();
  for (int peer : peers) {
    Waiter::ring(segment(peer).control().bell, from);
  }
}

bool ShmExchange::can_push() const {
  return pushed_ < chunks_ &&
         transport_->chunk_is_free(transport_->pending_.back().first_chunk + pushed_);
}

bool ShmExchange::held_by_earlier() const {
  return pushed_ < chunks_ && !can_push() &&
         transport_->holder_of(transport_->pending_.back().first_chunk + pushed_).first !=
             &transport_->pending_.back();
}

bool ShmExchange::push() {
  if (!write_chunk()) {
    return false;
  }
  publish(pending().readers);
  return true;
}

bool ShmExchange::write_chunk() {
  if (pushed_ == chunks_) {
    return false;
  }
  if (pending().readers.empty()) {
    pushed_ = chunks_;
  }
  if (!can_push()) {
    return false;
  }
  const std::size_t chunk_bytes = transport_->env_.shm_chunk_bytes;
  const std::size_t offset = pushed_ * chunk_bytes;
  request_.payload->copy(offset, std::min(chunk_bytes, request_.payload->nbytes() - offset),
                         own().chunk(pending().first_chunk + pushed_));
  ++pushed_;
  ++written_;
  return true;
}

// ---- Meeting

bool ShmExchange::greeted(int peer) const {
  return segment(peer).control().published.value.load(std::memory_order_acquire) >=
         position(sequence(), 1);
}

Greeting ShmExchange::read_greeting(int peer) {
  const Hello& hello = segment(peer).hello(sequence());
  Greeting greeting;
  const std::uint64_t before = hello.sequence.load(std::memory_order_acquire);
  const EdgeView& edge = segment(peer).edge(sequence(), transport_->rank_);
  if (edge.sequence.load(std::memory_order_relaxed) == sequence()) {
    greeting.weight = edge.weight;
    greeting.sends = edge.sends;
    greeting.receives = edge.receives;
  }
  const std::uint64_t first_chunk = hello.first_chunk;
  const std::uint64_t lent = hello.lent;
  greeting.frame = hello.frame;
  std::atomic_thread_fence(
      std::memory_order_acquire);  // pairs with the release fence in write_greeting()
  if (before != sequence() || hello.sequence.load(std::memory_order_relaxed) != sequence()) {
    give_up(moved_on(peer)
                ? reason_gone(peer)
                : Failure{peer, ErrorCode::kMismatch,
                          concat("is at a later operation already and had no exchange with rank ",
                                 transport_->rank_, " in this one")});
  } else if (moved_on(peer)) {
    give_up(reason_gone(peer));
  } else if (lent != Hello::kNotLent && !segment(peer).heap_has(lent, greeting.frame.nbytes)) {
    give_up({peer, ErrorCode::kMismatch, "lends memory that it does not have"});
  } else if (!greeting.sends && !greeting.receives) {
    // It does not count this rank among its neighbours, and will never read what is posted here.
    std::erase(pending().peers, peer);
    std::erase(pending().readers, peer);
  }
  for (Source& source : sources_) {
    if (source.rank == peer) {
      source.first_chunk = first_chunk;
      source.nbytes = greeting.frame.nbytes;
      source.lent = lent;
      source.chunks = chunks_of(source.nbytes, transport_->env_.shm_chunk_bytes);
    }
  }
  return greeting;
}

std::vector<Greeting> ShmExchange::meet() {
  const std::vector<int>& neighbors = request_.plan->neighbors();
  std::vector<Greeting> greetings(neighbors.size());
  std::vector<std::size_t> open(neighbors.size());
  for (std::size_t i = 0; i < open.size(); ++i) open[i] = i;

  while (true) {
    while (push()) {
    }
    std::erase_if(open, [&](std::size_t i) {
      const bool no_more = gone(neighbors[i]);  // looked at first: its last words come before
      if (greeted(neighbors[i])) {
        greetings[i] = read_greeting(neighbors[i]);
        return true;
      }
      if (no_more) {
        give_up(reason_gone(neighbors[i]));
        return true;
      }
      return false;
    });
    if (open.empty()) {
      break;
    }
    const bool in_time = wait(
        deadline_,
        [&] {
          return can_push() || std::any_of(open.begin(), open.end(), [&](std::size_t i) {
                   return greeted(neighbors[i]) || gone(neighbors[i]);
                 });
        },
        [&] { return pushed_ < chunks_ ? Waiter::kAnybody : neighbors[open.front()]; });
    if (!in_time) {
      for (std::size_t i : open) give_up(not_started(neighbors[i]));
      break;
    }
  }
  deadline_ = request_.deadline.renewed();
  met_ = true;
  return greetings;
}

void ShmExchange::drop(int peer) {
  for (Source& source : sources_) {
    if (source.rank == peer) source.live = false;
  }
  std::erase(pending().readers, peer);
  // Release: a peer that sees what is published from here on sees this too, and does not take it
  // for its own. Acquire in moved_on().
  own().edge(sequence(), peer).cut.store(1, std::memory_order_release);
  release(peer, position(sequence() + 1, 0));  // it need not wait for this rank to read
  ring({peer}, transport_->rank_);
}

// Release: this rank's last look at the peer's chunks comes before the peer may overwrite them. The
// peer's bell is rung by the caller.
void ShmExchange::release(int peer, std::uint64_t until) {
  own().released(peer).value.store(until, std::memory_order_release);
}

// ---- Reading

bool ShmExchange::arrived(const Source& source) const {
  return segment(source.rank).control().published.value.load(std::memory_order_acquire) >=
         position(sequence(), 2 + read_);
}

void ShmExchange::fill(Piece& piece) const {
  const std::size_t chunk_bytes = transport_->env_.shm_chunk_bytes;
  piece.offset = read_ * chunk_bytes;
  piece.sources.clear();
  for (const Source& source : sources_) {
    piece.sources.emplace_back();
    if (unread(source)) {
      piece.sources.back() = {unread_bytes(source),
                              std::min<std::size_t>(chunk_bytes, source.nbytes - piece.offset)};
    }
  }
}

const std::byte* ShmExchange::unread_bytes(const Source& source) const {
  return source.lent == Hello::kNotLent
             ? segment(source.rank).chunk(source.first_chunk + read_)
             : segment(source.rank).heap(source.lent + read_ * transport_->env_.shm_chunk_bytes);
}

void ShmExchange::release_piece() {
  if (!piece_out_) {
    return;
  }
  piece_out_ = false;
  std::vector<int> read_from;
  for (Source& source : sources_) {
    if (!unread(source)) continue;
    if (moved_on(source.rank)) {
      give_up(reason_gone(source.rank));
      continue;
    }
    if (source.lent == Hello::kNotLent || read_ + 1 == source.chunks) {
      release(source.rank, position(sequence(), read_ + 1));
      read_from.push_back(source.rank);
    }
  }
  ++read_;
  // After the last piece this exchange ends, and rings then, unless it waits for its own readers.
  const bool last =
      !lent_ && pushed_ == chunks_ &&
      std::none_of(sources_.begin(), sources_.end(), [&](auto& source) { return unread(source); });
  if (!last) ring(read_from, Waiter::kRoom);
}

bool ShmExchange::next(Piece& piece) {
  release_piece();
  while (true) {
    while (push()) {
    }
    give_up_gone_sources();
    const bool reading =
        std::any_of(sources_.begin(), sources_.end(), [&](auto& source) { return unread(source); });
    // A result may overwrite this rank's own value, so its chunk is published before the piece is
    // handed out.
    const auto ready = [&] {
      const bool own_is_out = pushed_ == chunks_ || pushed_ > read_;
      return own_is_out && std::all_of(sources_.begin(), sources_.end(), [&](auto& source) {
               return !unread(source) || arrived(source) || gone(source.rank);
             });
    };
    if (reading && ready()) {
      give_up_gone_sources();
      fill(piece);
      piece_out_ = true;
      return true;
    }
    const auto handed_over = [&] { return pushed_ == chunks_ && readers_of_lent().empty(); };
    if (!reading && handed_over()) {
      return false;
    }
    // Who is late in an earlier exchange is left behind before the neighbours of this one give up.
    const bool earlier = held_by_earlier();
    const auto whom = [&] {
      if (pushed_ < chunks_) return Waiter::kAnybody;
      const auto late = std::find_if(sources_.begin(), sources_.end(), [&](auto& source) {
        return unread(source) && !arrived(source);
      });
      return late == sources_.end() ? Waiter::kAnybody : late->rank;
    };
    if (!wait(
            earlier ? request_.deadline : deadline_,
            [&] { return can_push() || (reading ? ready() : handed_over()); }, whom)) {
      earlier ? leave_holder_behind() : give_up_late();
    }
  }
}

std::vector<int> ShmExchange::readers_of_lent() const {
  if (!lent_) return {};
  return transport_->late(transport_->pending_.back().readers, position(sequence(), chunks_));
}

}  // namespace bluefog::shm
