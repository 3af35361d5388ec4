#include "transport/shm/shm_transport.h"

#include <algorithm>
#include <cstdio>
#include <utility>

#include "base/error.h"
#include "transport/shm/handshake.h"
#include "transport/shm/shm_exchange.h"

namespace bluefog::shm {
namespace {

int count_local(const std::vector<std::optional<Segment>>& peers) {
  return 1 + static_cast<int>(std::count_if(peers.begin(), peers.end(),
                                            [](auto& peer) { return peer.has_value(); }));
}

// Pieces of all sources cover the same range, so all ranks cut their payloads alike.
void check_chunk_bytes(const std::vector<std::optional<Segment>>& peers, int rank, const Env& env) {
  for (const auto& peer : peers) {
    if (peer && peer->control().chunk_bytes != env.shm_chunk_bytes) {
      fail(ErrorCode::kUsage, "rank ", rank, " has BLUEFOG_SHM_CHUNK_BYTES=", env.shm_chunk_bytes,
           ", rank ", peer->control().rank, " has ", peer->control().chunk_bytes,
           "; set it alike on all ranks");
    }
  }
}

}  // namespace

std::unique_ptr<ShmTransport> ShmTransport::connect(const Rendezvous& rendezvous, int rank,
                                                    int size, const Env& env, Deadline deadline) {
  std::optional<Segment> own;
  try {
    own.emplace(Segment::create(rank, size, env.shm_chunk_bytes, env.shm_chunks));
  } catch (const Error& error) {
    std::fprintf(stderr, "bluefog: rank %d cannot use shared memory (%s)\n", rank, error.what());
  }
  auto peers = exchange_segments(rendezvous, rank, size, own ? &*own : nullptr, deadline);
  check_chunk_bytes(peers, rank, env);
  return std::unique_ptr<ShmTransport>(
      new ShmTransport(std::move(own), std::move(peers), rank, env));
}

ShmTransport::ShmTransport(std::optional<Segment> own, std::vector<std::optional<Segment>> peers,
                           int rank, const Env& env)
    : own_(std::move(own)),
      peers_(std::move(peers)),
      rank_(rank),
      env_(env),
      waiter_(own_ ? &own_->control().bell : &spare_bell_, env.spin_us, count_local(peers_)) {}

std::unique_ptr<Exchange> ShmTransport::begin(const Request& request) {
  return std::make_unique<ShmExchange>(this, request);
}

void ShmTransport::abort() {
  aborted_.store(true, std::memory_order_release);
  if (own_) {
    Waiter::ring(own_->control().bell);
  }
}

void ShmTransport::attach() {
  if (own_) own_->hold_life();
}

void ShmTransport::detach() {
  if (!own_) return;
  own_->say_goodbye();
  for (auto& peer : peers_) {
    if (peer) Waiter::ring(peer->control().bell);
  }
}

bool ShmTransport::done_with(int peer, std::uint64_t until) const {
  // Acquire: the reader's last look at the chunk comes before this rank overwrites it. A peer that
  // has begun a later operation is done with all before it, also with one that it never joined.
  const Segment& theirs = *peers_[peer];
  const std::uint64_t next = ((until - 1) >> 24) + 1;
  return theirs.released(rank_).value.load(std::memory_order_acquire) >= until ||
         theirs.control().published.value.load(std::memory_order_acquire) >= position(next, 0) ||
         theirs.owner_died() || theirs.owner_left();
}

std::vector<int> ShmTransport::late(const std::vector<int>& ranks, std::uint64_t until) const {
  std::vector<int> late;
  std::copy_if(ranks.begin(), ranks.end(), std::back_inserter(late),
               [&](int rank) { return !done_with(rank, until); });
  return late;
}

std::pair<ShmTransport::Pending*, std::uint64_t> ShmTransport::holder_of(std::uint64_t index) {
  const std::uint64_t old =
      index - env_.shm_chunks;  // wraps to a huge number while the ring is new
  for (Pending& pending : pending_) {
    if (old - pending.first_chunk < pending.chunks) {
      return {&pending, position(pending.sequence, old - pending.first_chunk + 1)};
    }
  }
  return {nullptr, 0};
}

bool ShmTransport::chunk_is_free(std::uint64_t index) {
  const auto [holder, until] = holder_of(index);
  return holder == nullptr || late(holder->readers, until).empty();
}

bool ShmTransport::make_room(std::uint64_t sequence) {
  auto over = [this](const Pending& pending) {
    return late(pending.peers, position(pending.sequence + 1, 0)).empty();
  };
  while (!pending_.empty() && over(pending_.front())) {
    pending_.pop_front();
  }
  return std::all_of(pending_.begin(), pending_.end(), [&](const Pending& pending) {
    return pending.sequence + kHellos > sequence || over(pending);
  });
}

void ShmTransport::leave_behind(Pending& pending, std::uint64_t until) {
  for (int peer : late(pending.peers, until)) {
    bar(peer, pending.sequence);
    std::erase(pending.peers, peer);
    std::erase(pending.readers, peer);
  }
}

void ShmTransport::leave_behind_before(std::uint64_t sequence) {
  for (Pending& pending : pending_) {
    if (pending.sequence + kHellos <= sequence) {
      leave_behind(pending, position(pending.sequence + 1, 0));
    }
  }
}

void ShmTransport::bar(int peer, std::uint64_t sequence) {
  std::atomic<std::uint64_t>& barred = own_->barred(peer).value;
  barred.store(std::max(barred.load(std::memory_order_relaxed), position(sequence + 1, 0)),
               std::memory_order_release);
  // Pairs with the fence in ShmExchange::moved_on(): who reads what is written from here on sees
  // the bar.
  std::atomic_thread_fence(std::memory_order_release);
  Waiter::ring(peers_[peer]->control().bell);
}

}  // namespace bluefog::shm
