#include "transport/gloo/gloo_transport.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "transport/greeting.h"

namespace bluefog {
namespace {

using WorkPtr = c10::intrusive_ptr<c10d::Work>;

// Messages between two ranks match by tag, in order; the sequence number keeps operations apart.
int tag_of(const Frame& frame, int part) {
  return static_cast<int>((frame.sequence * 2 + part) & 0x3fffffff);
}

at::Tensor bytes(std::size_t size) { return at::empty({static_cast<int64_t>(size)}, at::kByte); }

}  // namespace

// Greetings go both ways along every edge and are checked before any payload is received: a receive
// that is smaller than its message ends the process inside Gloo.
class GlooExchange : public Exchange {
 public:
  GlooExchange(GlooTransport* transport, const Request& request)
      : transport_(transport), request_(request) {
    for (int rank : request.plan->neighbors()) {
      Neighbor& neighbor = neighbors_.emplace_back();
      neighbor.rank = rank;
      neighbor.sent = bytes(sizeof(Greeting));
      neighbor.received = bytes(sizeof(Greeting));
      const Greeting greeting = greeting_for(request, rank);
      std::memcpy(neighbor.sent.data_ptr(), &greeting, sizeof(Greeting));
      post(neighbor, /*part=*/0, neighbor.sent, neighbor.received);
    }
  }

  std::vector<Greeting> meet() override {
    std::vector<Greeting> greetings;
    for (Neighbor& neighbor : neighbors_) {
      if (finish(neighbor, "greeting")) {
        std::memcpy(&neighbor.greeting, neighbor.received.data_ptr(), sizeof(Greeting));
      }
      greetings.push_back(neighbor.greeting);
    }
    request_.deadline = request_.deadline.renewed();
    return greetings;
  }

  void drop(int peer) override { of(peer).live = false; }

  // The whole payload is one piece.
  bool next(Piece& piece) override {
    if (std::exchange(done_, true)) {
      return false;
    }
    const at::Tensor payload = contiguous_payload();
    for (Neighbor& neighbor : neighbors_) {
      if (!neighbor.live) continue;
      const Greeting own = greeting_for(request_, neighbor.rank);
      neighbor.received = bytes(own.receives ? neighbor.greeting.frame.nbytes : 0);
      post(neighbor, /*part=*/1, own.sends ? payload : bytes(0), neighbor.received);
    }
    for (Neighbor& neighbor : neighbors_) {
      if (neighbor.live) finish(neighbor, "payload");
    }
    piece.offset = 0;
    piece.sources.clear();
    for (const Edge& source : request_.plan->sources()) {
      const Neighbor& neighbor = of(source.rank);
      piece.sources.emplace_back();
      if (neighbor.live) {
        piece.sources.back() = {static_cast<const std::byte*>(neighbor.received.data_ptr()),
                                static_cast<std::size_t>(neighbor.received.numel())};
      }
    }
    return piece.size() > 0;
  }

 private:
  struct Neighbor {
    int rank = -1;
    bool live = true;
    Greeting greeting;
    at::Tensor sent;
    at::Tensor received;
    std::vector<WorkPtr> works;
  };

  Neighbor& of(int rank) {
    return *std::find_if(neighbors_.begin(), neighbors_.end(),
                         [&](auto& neighbor) { return neighbor.rank == rank; });
  }

  // The caller's memory where it is one segment; it stays unchanged until all sends are done.
  at::Tensor contiguous_payload() const {
    const Payload& payload = *request_.payload;
    if (payload.segments().size() == 1) {
      return at::from_blob(const_cast<std::byte*>(payload.segments()[0].data),
                           {static_cast<int64_t>(payload.nbytes())}, at::kByte);
    }
    at::Tensor copy = bytes(payload.nbytes());
    payload.copy(0, payload.nbytes(), static_cast<std::byte*>(copy.data_ptr()));
    return copy;
  }

  void post(Neighbor& neighbor, int part, const at::Tensor& out, const at::Tensor& in) {
    try {
      if (in.numel() > 0) {
        std::vector<at::Tensor> tensors{in};
        neighbor.works.push_back(
            transport_->backend_->recv(tensors, neighbor.rank, tag_of(request_.frame, part)));
      }
      if (out.numel() > 0) {
        std::vector<at::Tensor> tensors{out};
        neighbor.works.push_back(
            transport_->backend_->send(tensors, neighbor.rank, tag_of(request_.frame, part)));
      }
    } catch (const std::exception& error) {
      give_up(neighbor, "greeting", error.what());
    }
  }

  // Waits for what was posted with this neighbour. Gloo takes zero for "no timeout", hence at least
  // a millisecond.
  bool finish(Neighbor& neighbor, const char* part) {
    for (WorkPtr& work : std::exchange(neighbor.works, {})) {
      if (!neighbor.live) continue;
      try {
        wait_for(work, std::max(request_.deadline.left_in_ms(), std::chrono::milliseconds(1)));
      } catch (const std::exception& error) {
        give_up(neighbor, part, error.what());
      }
    }
    return neighbor.live;
  }

  void wait_for(const WorkPtr& work, std::chrono::milliseconds timeout) {
    {
      std::lock_guard lock(transport_->mutex_);
      transport_->waited_for_ = work;
    }
    if (transport_->aborted_.load(std::memory_order_acquire)) {
      fail_aborted(request_);
    }
    const bool arrived = work->wait(timeout);
    std::lock_guard lock(transport_->mutex_);
    transport_->waited_for_.reset();
    if (!arrived) {
      fail_aborted(request_);
    }
  }

  void give_up(Neighbor& neighbor, const char* part, const char* error) {
    if (transport_->aborted_.load(std::memory_order_acquire)) {
      fail_aborted(request_);
    }
    neighbor.live = false;
    if (!request_.deadline.passed()) {
      failures_.push_back(lost(neighbor.rank, error));
    } else if (std::string_view(part) == "greeting") {
      failures_.push_back(not_started(neighbor.rank));
    } else {
      failures_.push_back(stalled(neighbor.rank, 0, neighbor.greeting.frame.nbytes));
    }
  }

  GlooTransport* const transport_;
  Request request_;
  std::vector<Neighbor> neighbors_;
  bool done_ = false;
};

std::unique_ptr<Exchange> GlooTransport::begin(const Request& request) {
  if (aborted_.load(std::memory_order_acquire)) {
    fail_aborted(request);
  }
  return std::make_unique<GlooExchange>(this, request);
}

void GlooTransport::abort() {
  aborted_.store(true, std::memory_order_release);
  std::lock_guard lock(mutex_);
  if (waited_for_) {
    waited_for_->abort();
  }
}

}  // namespace bluefog
