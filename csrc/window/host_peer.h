// A neighbour of this host: loads and stores.
#pragma once

#include <optional>

#include "window/peer.h"

namespace bluefog::window {

class HostPeer : public Peer {
 public:
  HostPeer(Segment mapped, int self, int rank)
      : Peer(rank), segment_(std::move(mapped)), self_(self) {
    if (segment_.has_mailbox_of(self)) writer_.emplace(segment_.mailbox_of(self));
  }

  void send(Sending kind, const std::byte* x, double weight, double p) override {
    kind == Sending::kPut ? writer_->put(x, weight, p) : writer_->accumulate(x, weight, p);
  }
  double outstanding(std::byte* y) override { return writer_->outstanding(y); }
  double read(std::byte* to, const Deadline&) override { return segment_.own().read(to); }
  Life life() const override { return segment_.life(); }

  PairMutex::Outcome lock(const Deadline& deadline, const std::function<bool()>& gone,
                          const std::function<bool()>& give_up) override {
    return segment_.mutex_of(self_).lock(Side::kWriter, deadline, gone, give_up);
  }
  void unlock() override { segment_.mutex_of(self_).unlock(Side::kWriter); }

 private:
  const Segment segment_;
  const int self_;
  std::optional<MailboxWriter> writer_;
};

}  // namespace bluefog::window
