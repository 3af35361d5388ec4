#include "nccl/exchange.h"

#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <map>

namespace emulator::nccl {
namespace {

constexpr int kPollMs = 10;

struct Header {
  std::uint64_t bytes;
  Kind kind;
};

const char* name_of(Kind kind) {
  constexpr const char* kNames[] = {"point to point", "all-reduce",     "reduce",     "broadcast",
                                    "all-gather",     "reduce-scatter", "all-to-all", "gather",
                                    "scatter",        "control message"};
  const auto index = static_cast<std::size_t>(kind);
  return index < std::size(kNames) ? kNames[index] : "unknown message";
}

void check_match(int rank, int peer, const Header& sent, const Transfer& expected) {
  if (sent.bytes == expected.bytes && sent.kind == expected.kind) return;
  throw Error(ncclInvalidUsage,
              "rank " + std::to_string(peer) + " sent " + std::to_string(sent.bytes) + " bytes (" +
                  name_of(sent.kind) + "), rank " + std::to_string(rank) + " expected " +
                  std::to_string(expected.bytes) + " bytes (" + name_of(expected.kind) + ")");
}

/// The messages of one direction with one peer, the first of which is under way.
class Lane {
 public:
  Lane(const Mesh& mesh, Channel channel, Transfer::Direction direction, int peer)
      : rank_(mesh.rank()),
        peer_(peer),
        socket_(mesh.socket(channel, peer)),
        direction_(direction) {}

  void add(const Transfer& transfer) { transfers_.push_back(transfer); }
  bool done() const { return transfers_.empty(); }
  pollfd entry() const {
    const bool sends = direction_ == Transfer::Direction::kSend;
    return {socket_, static_cast<short>(sends ? POLLOUT : POLLIN), 0};
  }

  /// As far as the socket lets it.
  void advance() {
    while (!done() && step()) {
    }
  }

 private:
  // Moves what is left of the header, and else of the data; false where the socket has to wait.
  bool step() {
    Transfer& transfer = transfers_.front();
    const bool sends = direction_ == Transfer::Direction::kSend;
    if (moved_ == 0 && sends) header_ = {transfer.bytes, transfer.kind};
    const bool in_header = moved_ < sizeof(header_);
    char* const start = in_header ? reinterpret_cast<char*>(&header_) + moved_
                                  : static_cast<char*>(transfer.data) + (moved_ - sizeof(header_));
    const std::size_t total = sizeof(header_) + transfer.bytes;
    const std::size_t wanted = (in_header ? sizeof(header_) : total) - moved_;
    if (wanted > 0) {
      const ssize_t moved = sends ? ::send(socket_, start, wanted, MSG_NOSIGNAL | MSG_DONTWAIT)
                                  : ::recv(socket_, start, wanted, MSG_DONTWAIT);
      if (moved < 0 && (errno == EAGAIN || errno == EINTR)) return false;
      if (moved <= 0) throw_lost();
      moved_ += moved;
    }
    if (in_header && moved_ == sizeof(header_) && !sends) {
      check_match(rank_, peer_, header_, transfer);
    }
    if (moved_ == total) {
      transfers_.pop_front();
      moved_ = 0;
    }
    return true;
  }

  [[noreturn]] void throw_lost() const {
    throw Error(ncclRemoteError, "the connection with rank " + std::to_string(peer_) +
                                     " ended during a call: " + name_of(transfers_.front().kind));
  }

  const int rank_;
  const int peer_;
  const int socket_;
  const Transfer::Direction direction_;
  std::deque<Transfer> transfers_;
  Header header_{};
  std::size_t moved_ = 0;  // of the first transfer's header and data
};

void copy_own(int rank, const std::vector<Transfer>& transfers) {
  std::deque<Transfer> sends;
  std::deque<Transfer> receives;
  for (const Transfer& transfer : transfers) {
    if (transfer.peer != rank) continue;
    const bool is_send = transfer.direction == Transfer::Direction::kSend;
    (is_send ? sends : receives).push_back(transfer);
  }
  for (; !sends.empty() && !receives.empty(); sends.pop_front(), receives.pop_front()) {
    const Transfer& send = sends.front();
    check_match(rank, rank, {send.bytes, send.kind}, receives.front());
    if (send.bytes > 0) std::memmove(receives.front().data, send.data, send.bytes);
  }
}

}  // namespace

void exchange(const Mesh& mesh, Channel channel, const std::vector<Transfer>& transfers,
              const Stop& stop) {
  copy_own(mesh.rank(), transfers);
  std::map<std::pair<int, Transfer::Direction>, Lane> lanes;
  for (const Transfer& transfer : transfers) {
    if (transfer.peer == mesh.rank()) continue;
    const auto [lane, is_new] = lanes.try_emplace({transfer.peer, transfer.direction}, mesh,
                                                  channel, transfer.direction, transfer.peer);
    lane->second.add(transfer);
  }
  for (;;) {
    if (stop()) throw Aborted();
    std::vector<pollfd> waiting;
    try {
      for (auto& [key, lane] : lanes) {
        lane.advance();
        if (!lane.done()) waiting.push_back(lane.entry());
      }
    } catch (const Error&) {
      if (stop()) throw Aborted();  // which is what has cut the connection
      throw;
    }
    if (waiting.empty()) return;
    ::poll(waiting.data(), waiting.size(), kPollMs);
  }
}

}  // namespace emulator::nccl
