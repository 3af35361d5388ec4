// A neighbour that is reached by messages: between hosts, or where no memory is shared.
//
// Its mailbox here is one like any other, in this rank's own memory; who writes it is the service's
// thread, with what comes from the peer, or, where a carrier brings that, the thread that waits for
// it to land. What this rank sends goes through an outbox. Neither side's program takes part: a
// peer that computes, or waits, is answered for by its service.
#pragma once

#include <condition_variable>
#include <deque>
#include <optional>
#include <string>

#include "base/error.h"
#include "transport/messages/service.h"
#include "window/carrier.h"
#include "window/peer.h"
#include "window/queue.h"
#include "window/remote_mutex.h"

namespace bluefog::window {

/// Where this rank's part of the window is, and the way to the peer's.
struct RemoteEdge {
  std::string window;
  int self;
  int rank;  // the peer's
  std::shared_ptr<messages::Service> service;
  std::uint64_t channel;
  Shape shape;
  bool out;                        // whether the peer is an out-neighbour
  std::optional<Mailbox> mailbox;  // the peer's here, where it is an in-neighbour
  PairMutex* mutex;                // of that
  std::optional<OwnValue> shown;   // this rank's
  OutboxArithmetic outbox;
  std::shared_ptr<Carrier> carrier;  // or null: parcels go in messages
  std::shared_ptr<Queue> landings;   // of the window; for what the carrier brings
};

class RemotePeer : public Peer {
 public:
  explicit RemotePeer(RemoteEdge edge);

  void send(Sending kind, const std::byte* x, double weight, double p) override;
  double outstanding(std::byte* y) override;
  bool flush(const Deadline& deadline) override;
  PairMutex::Outcome lock(const Deadline& deadline, const std::function<bool()>& gone,
                          const std::function<bool()>& give_up) override;
  void unlock() override;
  double read(std::byte* to, const Deadline& deadline) override;
  Life life() const override { return life_; }
  const char* lost() const override { return edge_.service->lost(edge_.rank); }
  void tell(Life life) override;
  void unlocked() override { mutex_here_.look(); }
  std::unique_lock<std::mutex> pause() override { return std::unique_lock(arrivals_); }
  void collected(std::uint64_t record) override;
  void interrupt() override;
  std::size_t nbytes() const override;

  // ---- By the service's thread, as in messages::Channel

  messages::Payload room(const messages::Header& header);
  void arrived(const messages::Header& header, const messages::Payload& payload);
  void connection_lost();

 private:
  enum Kind : std::uint32_t {
    kReplace,   // number, extra: puts in it, p, value: a parcel that supersedes
    kAdd,       // number, p, value: one that does not
    kApplied,   // number: of the parcel, extra: what has been consumed
    kConsumed,  // number: of the record
    kGet,       // number: a ticket
    kValue,     // number: the ticket, p, value
    kLock,      // number: a ticket
    kGranted,
    kUnlock,
    kLeaving,
    kClosed,
  };

  messages::Header header(Kind kind, std::uint64_t number = 0) const;
  void post(Kind kind, std::uint64_t number = 0);
  void post_in_turn(Kind kind, std::uint64_t number);
  void post_late();
  void post_parcel(std::uint64_t number, const Parcel& parcel);
  void after_landings(std::function<void()> call);
  void land(const messages::Header& header);
  void break_off(const Error& error);
  void apply(const messages::Header& header, const std::byte* value);
  void show(std::uint64_t ticket);
  void unlock_locked();
  bool ended() const {
    return interrupted_ || broken_ || life_ == Life::kClosed || lost() != nullptr;
  }
  [[noreturn]] void fail_ended(const char* what) const;

  const RemoteEdge edge_;
  std::atomic<Life> life_{Life::kOpen};  // the peer's

  // Of the peer's mailbox here. The writer belongs to the thread that brings parcels.
  std::optional<MailboxWriter> writer_;
  messages::Payload parcel_;  // the one that arrives
  std::mutex arrivals_;       // a record is shown or taken out, and the peer is told, in one
  std::uint64_t told_ = 0;    // under arrivals_: what the peer knows to be consumed
  RemoteMutex mutex_here_;

  std::mutex mutex_;                 // of what follows
  std::condition_variable changed_;  // something has come
  Outbox outbox_;
  std::optional<Error> broken_;  // what the carrier has met
  bool closed_ = false;          // nothing more is sent
  std::atomic<bool> interrupted_{false};
  std::uint64_t tickets_ = 0;
  std::deque<std::pair<Kind, std::uint64_t>> late_;  // go after the parcel that waits
  std::uint64_t lock_ticket_ = 0;
  bool granted_ = false;
  std::uint64_t get_ticket_ = 0;
  Bytes got_;  // what the answer to a get goes to
  double got_p_ = 0;
  bool got_all_ = false;
};

/// All of a window. Not the owner.
class RemotePeers : public messages::Channel {
 public:
  explicit RemotePeers(int size) : peers_(size) {}

  void add(int rank, RemotePeer* peer) { peers_[rank] = peer; }

  messages::Payload room(int from, const messages::Header& header) override {
    return at(from).room(header);
  }
  void arrived(int from, const messages::Header& header,
               const messages::Payload& payload) override {
    at(from).arrived(header, payload);
  }
  void lost(int rank) override {
    if (peers_[rank] != nullptr) peers_[rank]->connection_lost();
  }

 private:
  RemotePeer& at(int rank) const;

  std::vector<RemotePeer*> peers_;  // by rank; null for all others
};

}  // namespace bluefog::window
