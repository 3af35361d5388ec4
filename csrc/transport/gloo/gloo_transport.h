// Neighbours are reached through send and recv of a c10d backend, Gloo's, that nothing else uses:
// for what only Gloo has, such as encryption (GLOO_DEVICE_TRANSPORT=TCP_TLS).
#pragma once

#include <atomic>
#include <mutex>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <vector>

#include "transport/transport.h"

namespace bluefog {

class GlooTransport : public Transport {
 public:
  /// `backend` has the ranks of the group and is used by this transport alone: Gloo closes all
  /// pairs of a backend when one fails, which must not hurt the user's collectives.
  explicit GlooTransport(c10::intrusive_ptr<c10d::Backend> backend)
      : backend_(std::move(backend)) {}

  const char* name() const override { return "gloo"; }
  std::unique_ptr<Exchange> begin(const Request& request) override;
  void abort() override;

 private:
  friend class GlooExchange;
  using WorkPtr = c10::intrusive_ptr<c10d::Work>;

  c10::intrusive_ptr<c10d::Backend> backend_;
  std::atomic<bool> aborted_{false};
  std::mutex mutex_;
  WorkPtr waited_for_;  // under mutex_: what the exchange waits for now; a Gloo backend cannot be
                        // aborted as a whole
};

}  // namespace bluefog
