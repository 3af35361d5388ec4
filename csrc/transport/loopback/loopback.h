// A transport inside one process: ranks are threads that share a hub. For tests of everything above
// a transport.
#pragma once

#include <condition_variable>
#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "transport/transport.h"

namespace bluefog {

/// Where the ranks of one loopback group meet. Outlives its transports.
class LoopbackHub {
 public:
  explicit LoopbackHub(int size) : posts_(size) {}
  int size() const { return static_cast<int>(posts_.size()); }

 private:
  friend class LoopbackTransport;
  friend class LoopbackExchange;

  // One rank's side of one exchange: a copy of all it sends.
  struct Post {
    Frame frame;
    std::vector<Greeting> greetings;  // by rank: how the poster sees its edge with that rank
    std::vector<std::byte> bytes;
    std::vector<bool> gave_up;  // by rank: who came too late for the poster; under mutex_
  };

  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::map<std::uint64_t, std::shared_ptr<Post>>>
      posts_;  // by rank, by sequence; under mutex_
};

class LoopbackTransport : public Transport {
 public:
  LoopbackTransport(LoopbackHub* hub, int rank) : hub_(hub), rank_(rank) {}

  const char* name() const override { return "loopback"; }
  std::unique_ptr<Exchange> begin(const Request& request) override;
  void abort() override;

 private:
  friend class LoopbackExchange;
  LoopbackHub* const hub_;
  const int rank_;
  bool aborted_ = false;  // under hub_->mutex_
};

}  // namespace bluefog
