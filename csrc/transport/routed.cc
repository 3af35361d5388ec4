#include "transport/routed.h"

#include <algorithm>
#include <utility>

namespace bluefog {
namespace {

// The part of an exchange that one transport serves.
struct Leg {
  Plan plan;
  std::unique_ptr<Exchange> exchange;
  std::vector<std::size_t> positions;  // of its sources in the whole plan
  std::size_t failures = 0;            // how many of its failures are known here
  Piece piece;
  std::size_t end = 0;  // of `piece` in the stream
  bool done = false;
};

Plan part_of(const Plan& plan, const std::vector<int>& routes, int route) {
  auto select = [&](const std::vector<Edge>& edges) {
    std::vector<Edge> chosen;
    std::copy_if(edges.begin(), edges.end(), std::back_inserter(chosen),
                 [&](const Edge& edge) { return routes[edge.rank] == route; });
    return chosen;
  };
  return Plan(plan.rank(), plan.size(), plan.self_weight(), select(plan.sources()),
              select(plan.destinations()));
}

class RoutedExchange : public Exchange {
 public:
  RoutedExchange(const Request& request, const std::vector<std::unique_ptr<Transport>>& transports,
                 const std::vector<int>& routes)
      : plan_(request.plan), routes_(routes) {
    // The legs are sized once: requests point at their plans.
    for (std::size_t route = 0; route < transports.size(); ++route) {
      legs_.push_back(std::make_unique<Leg>(
          Leg{part_of(*plan_, routes, static_cast<int>(route)), nullptr, {}, 0, {}}));
    }
    for (std::size_t position = 0; position < plan_->sources().size(); ++position) {
      legs_[routes[plan_->sources()[position].rank]]->positions.push_back(position);
    }
    for (std::size_t route = 0; route < transports.size(); ++route) {
      Leg& leg = *legs_[route];
      Request part = request;
      part.plan = &leg.plan;
      leg.done = leg.plan.neighbors().empty();
      if (!leg.done) {
        leg.exchange = transports[route]->begin(part);
      }
    }
  }

  std::vector<Greeting> meet() override {
    std::vector<Greeting> greetings(plan_->neighbors().size());
    for (auto& leg : legs_) {
      if (!leg->exchange) continue;
      const auto met = leg->exchange->meet();
      collect_failures(*leg);
      for (std::size_t i = 0; i < met.size(); ++i) {
        const auto& all = plan_->neighbors();
        const auto at = std::lower_bound(all.begin(), all.end(), leg->plan.neighbors()[i]);
        greetings[at - all.begin()] = met[i];
      }
    }
    return greetings;
  }

  void drop(int peer) override { legs_[routes_[peer]]->exchange->drop(peer); }

  // Legs hand out pieces of different lengths; what all of them have goes on.
  bool next(Piece& piece) override {
    std::size_t until = SIZE_MAX;
    for (auto& leg : legs_) {
      while (!leg->done && leg->end <= position_) {
        leg->done = !leg->exchange->next(leg->piece);
        collect_failures(*leg);
        leg->end = leg->piece.offset + leg->piece.size();
      }
      if (!leg->done) {
        until = std::min(until, leg->end);
      }
    }
    if (until == SIZE_MAX) {
      return false;
    }
    piece.offset = position_;
    piece.sources.assign(plan_->sources().size(), {});
    for (auto& leg : legs_) {
      if (leg->done) continue;
      for (std::size_t i = 0; i < leg->positions.size(); ++i) {
        const auto bytes = leg->piece.sources[i];
        const std::size_t skip = std::min(position_ - leg->piece.offset, bytes.size());
        piece.sources[leg->positions[i]] =
            bytes.subspan(skip, std::min(until - position_, bytes.size() - skip));
      }
    }
    position_ = until;
    return true;
  }

 private:
  void collect_failures(Leg& leg) {
    const auto& failures = leg.exchange->failures();
    failures_.insert(failures_.end(), failures.begin() + leg.failures, failures.end());
    leg.failures = failures.size();
  }

  const Plan* plan_;
  const std::vector<int>& routes_;
  std::vector<std::unique_ptr<Leg>> legs_;
  std::size_t position_ = 0;
};

}  // namespace

RoutedTransport::RoutedTransport(std::vector<std::unique_ptr<Transport>> transports,
                                 std::vector<int> routes)
    : transports_(std::move(transports)), routes_(std::move(routes)) {}

std::unique_ptr<Exchange> RoutedTransport::begin(const Request& request) {
  return std::make_unique<RoutedExchange>(request, transports_, routes_);
}

void RoutedTransport::abort() {
  for (auto& transport : transports_) transport->abort();
}

std::shared_ptr<std::byte> RoutedTransport::allocate(std::size_t nbytes) {
  for (auto& transport : transports_) {
    if (auto memory = transport->allocate(nbytes)) return memory;
  }
  return nullptr;
}

void RoutedTransport::attach() {
  for (auto& transport : transports_) transport->attach();
}

void RoutedTransport::detach() {
  for (auto& transport : transports_) transport->detach();
}

}  // namespace bluefog
