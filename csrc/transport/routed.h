// A transport made of others: each neighbour is reached through one of them.
#pragma once

#include <memory>
#include <vector>

#include "transport/transport.h"

namespace bluefog {

class RoutedTransport : public Transport {
 public:
  /// routes[r] is the index in `transports` that serves rank r (any value for this rank itself).
  /// Each next() is served in this order on all ranks, so one that has a payload in a single piece
  /// (gloo, and tcp then) comes before one that goes chunk by chunk and waits for its readers
  /// (shm); otherwise two ranks could wait for each other.
  RoutedTransport(std::vector<std::unique_ptr<Transport>> transports, std::vector<int> routes);

  const char* name() const override { return "routed"; }
  std::unique_ptr<Exchange> begin(const Request& request) override;
  void abort() override;
  std::shared_ptr<std::byte> allocate(std::size_t nbytes) override;
  const char* lost(int peer) const override { return transports_[routes_[peer]]->lost(peer); }
  void attach() override;
  void detach() override;

 private:
  std::vector<std::unique_ptr<Transport>> transports_;
  std::vector<int> routes_;
};

}  // namespace bluefog
