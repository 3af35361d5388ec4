// Ranks of one host exchange through shared memory: each publishes a payload once, however many
// neighbours read it, and neighbours combine straight out of it.
#pragma once

#include <atomic>
#include <deque>
#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "base/env.h"
#include "transport/rendezvous.h"
#include "transport/shm/heap.h"
#include "transport/shm/segment.h"
#include "transport/shm/waiter.h"
#include "transport/transport.h"

namespace bluefog::shm {

class ShmTransport : public Transport {
 public:
  /// Collective over the group: makes this rank's segment and maps those of the ranks of its host.
  /// Where the system refuses the memory this rank reaches nobody, and says so once on stderr.
  /// Throws Error(kUsage) where two ranks have different chunk_bytes.
  static std::unique_ptr<ShmTransport> connect(const Rendezvous& rendezvous, int rank, int size,
                                               const Env& env, Deadline deadline);

  /// Whether exchanges with `peer` can go through shared memory.
  bool reaches(int peer) const { return peers_[peer].has_value(); }

  const char* name() const override { return "shm"; }
  std::unique_ptr<Exchange> begin(const Request& request) override;
  void abort() override;
  std::shared_ptr<std::byte> allocate(std::size_t nbytes) override;
  const char* lost(int peer) const override;
  void attach() override;
  void detach() override;

 private:
  friend class ShmExchange;

  // An exchange of this rank whose greeting or chunks some neighbour may still be reading.
  struct Pending {
    std::uint64_t sequence;
    std::uint64_t first_chunk;
    std::uint64_t chunks;
    std::vector<int> peers;    // who read the greeting
    std::vector<int> readers;  // who read the chunks too
  };

  ShmTransport(std::shared_ptr<const Segment> own, std::vector<std::optional<Segment>> peers,
               int rank, const Env& env);

  // `peer` has read this rank's stream up to `until`, or will never read again.
  bool done_with(int peer, std::uint64_t until) const;

  // Those of `ranks` that have not.
  std::vector<int> late(const std::vector<int>& ranks, std::uint64_t until) const;

  // The exchange whose chunk still lies where chunk `index` would go, and the position up to which
  // its readers must have read; null when the place is free of any.
  std::pair<Pending*, std::uint64_t> holder_of(std::uint64_t index);
  bool chunk_is_free(std::uint64_t index);

  // Forgets exchanges that are over; true when the greeting of `sequence` can be written.
  bool make_room(std::uint64_t sequence);

  // Neighbours that are still not done with an exchange long over here lose the right to read it.
  void leave_behind(Pending& pending, std::uint64_t until);
  void leave_behind_before(std::uint64_t sequence);
  void bar(int peer, std::uint64_t sequence);

  std::shared_ptr<const Segment> own_;  // null where the system refused the memory
  std::shared_ptr<Heap> heap_;          // of own_
  Doorbell spare_bell_;                 // of a rank without a segment: nobody rings it
  std::vector<std::optional<Segment>> peers_;
  const int rank_;
  const Env env_;
  Waiter waiter_;
  std::atomic<bool> aborted_{false};

  // Touched only by the thread that drives an exchange.
  std::deque<Pending> pending_;
  std::uint64_t next_chunk_ = 0;  // counts all chunks ever published
};

}  // namespace bluefog::shm
