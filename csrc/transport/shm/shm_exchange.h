// One rank's part in one neighbor operation over shared memory.
//
// The payload goes through the rank's ring in chunks: neighbours combine chunk c while chunk c + 1
// is being copied. A large payload in the rank's heap is lent instead: neighbours read it where it
// is, and the exchange ends when they have. A rank waits only for the slowest reader of the chunk
// that it is about to overwrite, and always takes chunk c of all its sources before chunk c + 1 of
// any; so the rank that is furthest behind can always go on, and no cycle of ranks can wait for
// each other.
#pragma once

#include <optional>
#include <vector>

#include "transport/shm/shm_transport.h"

namespace bluefog::shm {

class ShmExchange : public Exchange {
 public:
  ShmExchange(ShmTransport* transport, const Request& request);
  ~ShmExchange() override;

  std::vector<Greeting> meet() override;
  void drop(int peer) override;
  bool next(Piece& piece) override;

 private:
  // A neighbour from whom this rank reads.
  struct Source {
    int rank;
    std::uint64_t first_chunk = 0;  // in its ring
    std::uint64_t chunks = 0;
    std::uint64_t nbytes = 0;
    std::uint64_t lent = Hello::kNotLent;
    bool live = true;
  };

  std::uint64_t sequence() const { return request_.frame.sequence; }
  const Segment& own() const { return *transport_->own_; }
  const Segment& segment(int peer) const { return *transport_->peers_[peer]; }
  ShmTransport::Pending& pending() { return transport_->pending_.back(); }

  void write_greeting();
  void publish(const std::vector<int>& peers);  // what has been written, and wakes those
  void ring(const std::vector<int>& peers, int from);
  bool can_push() const;
  bool held_by_earlier() const;  // the room for the next chunk, by readers of an earlier exchange
  bool write_chunk();            // the next chunk, if there is one and room for it
  bool push();                   // writes a chunk and publishes it

  bool greeted(int peer) const;
  Greeting read_greeting(int peer);
  bool unread(const Source& source) const { return source.live && read_ < source.chunks; }
  bool arrived(const Source& source) const;
  void fill(Piece& piece) const;
  const std::byte* unread_bytes(const Source& source) const;
  void release_piece();
  void release(int peer, std::uint64_t until);  // its stream has been read up to there
  std::vector<int> readers_of_lent() const;     // who has not read all of it yet

  // Failing (shm_exchange_failing.cc)
  bool gone(int peer) const;  // it will never deliver more of this operation
  Failure reason_gone(int peer) const;
  bool cut_by(int peer) const;    // it has taken this rank out of this operation
  bool moved_on(int peer) const;  // it has barred this rank from this operation, or cut it off
  void give_up(const Failure& failure);
  void give_up_gone_sources();
  void leave_holder_behind();  // the deadlines below have passed
  void give_up_late();

  template <typename Ready, typename Whom>
  bool wait(const Deadline& deadline, Ready&& ready, Whom&& whom);

  ShmTransport* const transport_;
  const Request request_;
  Deadline deadline_;  // of what this rank waits for now: of the meeting, later of the payloads
  const std::optional<std::size_t> lent_;  // place in the heap, if neighbours read it there
  const std::uint64_t chunks_;             // of this rank's payload
  std::uint64_t pushed_ = 0;               // chunks that are out, or that nobody wants
  std::uint64_t written_ = 0;              // chunks in the ring
  std::uint64_t read_ = 0;                 // chunks of every source that are done with
  std::vector<Source> sources_;
  std::vector<bool> failed_;  // by rank
  bool met_ = false;
  bool piece_out_ = false;
};

}  // namespace bluefog::shm
