#include "transport/loopback/loopback.h"

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "transport/greeting.h"

namespace bluefog {

// A rank's posts older than this many operations are forgotten.
constexpr std::uint64_t kKept = 64;

class LoopbackExchange : public Exchange {
 public:
  LoopbackExchange(LoopbackTransport* transport, const Request& request)
      : transport_(transport), request_(request), dropped_(transport->hub_->size(), false) {
    const auto post = std::make_shared<LoopbackHub::Post>();
    post->frame = request.frame;
    post->gave_up.resize(transport->hub_->size(), false);
    for (int peer = 0; peer < transport->hub_->size(); ++peer) {
      post->greetings.push_back(greeting_for(request, peer));
    }
    post->bytes.resize(request.payload->nbytes());
    request.payload->copy(0, post->bytes.size(), post->bytes.data());
    LoopbackHub& hub = *transport->hub_;
    {
      std::lock_guard lock(hub.mutex_);
      auto& mine = hub.posts_[transport->rank_];
      mine[request.frame.sequence] = post;
      mine.erase(mine.begin(), mine.lower_bound(request.frame.sequence -
                                                std::min(request.frame.sequence, kKept)));
    }
    hub.changed_.notify_all();
    own_ = post;
  }

  std::vector<Greeting> meet() override {
    LoopbackHub& hub = *transport_->hub_;
    const auto& neighbors = request_.plan->neighbors();
    std::unique_lock lock(hub.mutex_);
    hub.changed_.wait_for(lock, request_.deadline.left(), [&] {
      return transport_->aborted_ || std::all_of(neighbors.begin(), neighbors.end(),
                                                 [&](int peer) { return find(peer) != nullptr; });
    });
    if (transport_->aborted_) {
      fail_aborted(request_);
    }
    std::vector<Greeting> greetings;
    for (int peer : neighbors) {
      posts_[peer] = find(peer);
      if (posts_[peer] == nullptr) {
        failures_.push_back(not_started(peer));
        own_->gave_up[peer] = true;
        dropped_[peer] = true;
      } else if (posts_[peer]->gave_up[transport_->rank_]) {
        failures_.push_back(gave_up(peer, "before this rank came"));
        dropped_[peer] = true;
      }
      greetings.push_back(posts_[peer] ? posts_[peer]->greetings[transport_->rank_] : Greeting{});
    }
    return greetings;
  }

  void drop(int peer) override { dropped_[peer] = true; }

  bool next(Piece& piece) override {
    if (std::exchange(done_, true)) {
      return false;
    }
    piece.offset = 0;
    piece.sources.clear();
    for (const Edge& source : request_.plan->sources()) {
      piece.sources.emplace_back();
      if (!dropped_[source.rank]) {
        piece.sources.back() = posts_[source.rank]->bytes;
      }
    }
    return piece.size() > 0;
  }

 private:
  std::shared_ptr<LoopbackHub::Post> find(int peer) const {
    const auto& posts = transport_->hub_->posts_[peer];
    const auto found = posts.find(request_.frame.sequence);
    return found == posts.end() ? nullptr : found->second;
  }

  LoopbackTransport* transport_;
  Request request_;
  std::shared_ptr<LoopbackHub::Post> own_;
  std::map<int, std::shared_ptr<LoopbackHub::Post>> posts_;  // of the neighbours met
  std::vector<bool> dropped_;
  bool done_ = false;
};

std::unique_ptr<Exchange> LoopbackTransport::begin(const Request& request) {
  return std::make_unique<LoopbackExchange>(this, request);
}

void LoopbackTransport::abort() {
  {
    std::lock_guard lock(hub_->mutex_);
    aborted_ = true;
  }
  hub_->changed_.notify_all();
}

}  // namespace bluefog
