// A transport with one fault built in, for tests of everything above a transport.
//
// It passes every exchange on to another transport and spoils the n-th one, once. A test asserts
// injected(): a fault that never happened proves nothing.
#pragma once

#include <atomic>
#include <memory>

#include "transport/transport.h"

namespace bluefog {

enum class Fault {
  kRefuse,         // begin() throws kSystem: this rank does not take part
  kBreak,          // the first next() throws kSystem: this rank stops in the middle
  kLosePeer,       // meet() notes that `peer` was lost; nothing more goes to it or comes from it
  kChangeGreeting  // meet() hands out the greeting of `peer` with another schema
};

struct Injection {
  Fault fault;
  std::uint64_t exchange = 1;  // which of this rank's exchanges, from 1
  int peer = -1;               // a neighbour in that exchange, for the faults that have one
};

class FaultyTransport : public Transport {
 public:
  FaultyTransport(std::unique_ptr<Transport> inner, Injection injection);

  const char* name() const override { return "faulty"; }
  std::unique_ptr<Exchange> begin(const Request& request) override;
  void abort() override { inner_->abort(); }
  void attach() override { inner_->attach(); }
  void detach() override { inner_->detach(); }

  /// How often the fault has happened: 0 or 1.
  int injected() const { return injected_.load(std::memory_order_relaxed); }

 private:
  friend class FaultyExchange;

  const std::unique_ptr<Transport> inner_;
  const Injection injection_;
  std::uint64_t begun_ = 0;  // touched only by the thread that drives exchanges
  std::atomic<int> injected_{0};
};

}  // namespace bluefog
