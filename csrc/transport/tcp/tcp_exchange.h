// One rank's part in one neighbor operation over TCP.
//
// The stream of each rank is cut into pieces, or is one. A rank hands out piece p once it has
// arrived from all sources and its own piece p has gone into all connections; then its own piece p
// + 1 is already on the way. So a rank waits only for ranks that are at the same piece or behind
// it, and the one that is furthest behind can always go on.
#pragma once

#include <poll.h>

#include <span>
#include <vector>

#include "transport/tcp/tcp_transport.h"

namespace bluefog::tcp {

class TcpExchange : public Exchange {
 public:
  TcpExchange(TcpTransport* transport, const Request& request);
  ~TcpExchange() override;

  std::vector<Greeting> meet() override;
  void drop(int peer) override;
  bool next(Piece& piece) override;

 private:
  struct Neighbor {
    int rank;
    Pair* pair;
    bool live = true;       // neither failed nor dropped
    std::size_t due = 0;    // bytes of its payload, where it is a source
    bool receives = false;  // this rank's payload
  };

  Neighbor& of(int rank);
  bool sends() const;           // this rank has a payload, and somebody wants it
  std::size_t longest() const;  // of the payloads that are to be moved
  std::size_t in_piece(const Neighbor& source) const;  // bytes of it
  void send_piece();                                   // the next one of this rank
  std::span<const std::byte> own(std::size_t offset, std::size_t nbytes);
  void make_room();
  bool fill(Piece& piece);  // whether there is anything in it

  /// Moves bytes until `done` of all neighbours that live, and gives up those that cannot be; false
  /// once the deadline has passed.
  template <typename Done>
  bool wait(const Deadline& deadline, Done done);
  bool gone(const Neighbor& neighbor) const;
  Failure reason_gone(const Neighbor& neighbor) const;
  void give_up(Neighbor& neighbor, const Failure& failure);

  TcpTransport* const transport_;
  const Request request_;
  std::vector<Neighbor> neighbors_;  // as in the plan
  Deadline deadline_;                // of the payloads
  bool met_ = false;
  bool begun_ = false;
  bool complete_ = false;
  std::size_t offset_ = 0;       // of the piece that is moved now
  std::size_t posted_ = 0;       // bytes of this rank that are on the way
  std::vector<std::byte> copy_;  // of a piece of this rank that is not in one place
};

}  // namespace bluefog::tcp
