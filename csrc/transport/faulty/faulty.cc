#include "transport/faulty/faulty.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "transport/greeting.h"

namespace bluefog {

class FaultyExchange : public Exchange {
 public:
  FaultyExchange(std::unique_ptr<Exchange> inner, FaultyTransport* transport, const Plan* plan)
      : inner_(std::move(inner)), transport_(transport), plan_(plan) {}

  std::vector<Greeting> meet() override {
    std::vector<Greeting> greetings = inner_->meet();
    note_failures();
    if (fault() == Fault::kLosePeer) {
      inner_->drop(peer());
      failures_.push_back(lost(peer(), "injected fault"));
      ++transport_->injected_;
    } else if (fault() == Fault::kChangeGreeting) {
      const auto& neighbors = plan_->neighbors();
      const auto at = std::lower_bound(neighbors.begin(), neighbors.end(), peer());
      greetings.at(at - neighbors.begin()).frame.schema ^= 1;
      ++transport_->injected_;
    }
    return greetings;
  }

  void drop(int peer) override { inner_->drop(peer); }

  bool next(Piece& piece) override {
    if (fault() == Fault::kBreak) {
      ++transport_->injected_;
      fail(ErrorCode::kSystem, "injected fault: rank ", plan_->rank(), " stops in the middle");
    }
    const bool more = inner_->next(piece);
    note_failures();
    return more;
  }

 private:
  Fault fault() const { return transport_->injection_.fault; }
  int peer() const { return transport_->injection_.peer; }

  void note_failures() {
    const auto& failures = inner_->failures();
    failures_.insert(failures_.end(), failures.begin() + noted_, failures.end());
    noted_ = failures.size();
  }

  const std::unique_ptr<Exchange> inner_;
  FaultyTransport* const transport_;
  const Plan* const plan_;
  std::size_t noted_ = 0;  // how many of the inner failures are in failures_
};

FaultyTransport::FaultyTransport(std::unique_ptr<Transport> inner, Injection injection)
    : inner_(std::move(inner)), injection_(injection) {}

std::unique_ptr<Exchange> FaultyTransport::begin(const Request& request) {
  if (++begun_ != injection_.exchange) {
    return inner_->begin(request);
  }
  if (injection_.fault == Fault::kRefuse) {
    ++injected_;
    fail(ErrorCode::kSystem, "injected fault: rank ", request.plan->rank(), " does not take part");
  }
  return std::make_unique<FaultyExchange>(inner_->begin(request), this, request.plan);
}

}  // namespace bluefog
