#include "transport/shm/shm_transport.h"

#include <sys/resource.h>
#include <unistd.h>

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

std::size_t limit_of(int resource) {
  rlimit limit;
  return ::getrlimit(resource, &limit) == 0 ? limit.rlim_cur : RLIM_INFINITY;
}

// Address space is all that it costs, where the user has no limit on that or on files; but n ranks
// that are threads of one process map n * n heaps.
std::size_t heap_bytes(const Env& env, int size) {
  const std::size_t memory = static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) *
                             static_cast<std::size_t>(::sysconf(_SC_PAGE_SIZE));
  const std::size_t wanted = env.shm_heap_bytes < 0 ? memory : env.shm_heap_bytes;
  const std::size_t most = std::min({(std::size_t{1} << 45) / size / size,
                                     limit_of(RLIMIT_AS) / 4 / size, limit_of(RLIMIT_FSIZE) / 2});
  return std::min(wanted, most) / kPage * kPage;
}

}  // namespace

std::unique_ptr<ShmTransport> ShmTransport::connect(const Rendezvous& rendezvous, int rank,
                                                    int size, const Env& env, Deadline deadline) {
  std::shared_ptr<const Segment> own;
  try {
    own = std::make_shared<const Segment>(
        Segment::create(rank, size, env.shm_chunk_bytes, env.shm_chunks, heap_bytes(env, size)));
  } catch (const Error& error) {
    std::fprintf(stderr, "bluefog: rank %d cannot use shared memory (%s)\n", rank, error.what());
  }
  auto peers = exchange_segments(rendezvous, rank, size, own.get(), deadline);
  check_chunk_bytes(peers, rank, env);
  return std::unique_ptr<ShmTransport>(
      new ShmTransport(std::move(own), std::move(peers), rank, env));
}

ShmTransport::ShmTransport(std::shared_ptr<const Segment> own,
                           std::vector<std::optional<Segment>> peers, int rank, const Env& env)
    : own_(std::move(own)),
      heap_(own_ ? std::make_shared<Heap>(own_) : nullptr),
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
    Waiter::before_rings();
    Waiter::ring(own_->control().bell, Waiter::kAnybody);
  }
}

std::shared_ptr<std::byte> ShmTransport::allocate(std::size_t nbytes) {
  return heap_ ? heap_->allocate(nbytes) : nullptr;
}

const char* ShmTransport::lost(int peer) const {
  if (!peers_[peer]) return nullptr;
  if (peers_[peer]->owner_died()) return "its process ended";
  return peers_[peer]->owner_left() ? "it has left the group" : nullptr;
}

void ShmTransport::attach() {
  if (own_) own_->hold_life();
}

void ShmTransport::detach() {
  if (!own_) return;
  own_->say_goodbye();
  Waiter::before_rings();
  for (auto& peer : peers_) {
    if (peer) Waiter::ring(peer->control().bell, rank_);
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
  // Its fence pairs with the one in ShmExchange::moved_on() too: who reads what is written from
  // here on sees the bar.
  Waiter::before_rings();
  Waiter::ring(peers_[peer]->control().bell, rank_);
}

}  // namespace bluefog::shm
