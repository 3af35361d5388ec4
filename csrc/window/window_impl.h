// What window.cc and window_calls.cc share.
#pragma once

#include <algorithm>
#include <array>

#include "base/error.h"
#include "window/window.h"

namespace bluefog::window {

using Bytes = std::shared_ptr<std::byte>;

inline Bytes make_bytes(std::size_t nbytes) {
  return {new std::byte[nbytes], std::default_delete<std::byte[]>()};
}

inline bool has(const std::vector<int>& ranks, int rank) {
  return std::binary_search(ranks.begin(), ranks.end(), rank);
}

struct Window::Peer {
  Peer(Segment mapped, int self, int rank) : segment(std::move(mapped)), statistics{rank} {
    if (segment.has_mailbox_of(self)) writer.emplace(segment.mailbox_of(self));
  }

  // A buffer for what it shows: one that no mailbox holds any more, if there is one.
  const Bytes& room() {
    for (Bytes& buffer : buffers) {
      if (buffer && buffer.use_count() == 1) return buffer;
    }
    std::swap(buffers[0], buffers[1]);
    return buffers[0] = make_bytes(segment.own().stride);
  }

  Segment segment;
  std::optional<MailboxWriter> writer;
  OutStatistics statistics;
  std::array<Bytes, 2> buffers;
};

class Window::Entered {
 public:
  explicit Entered(Window* window)
      : open_((window->check_process(), window->open_)), alone_(window->mutex_) {
    if (window->closed_) {
      fail(ErrorCode::kAborted, "window '", window->spec_.name, "' of rank ", window->spec_.rank,
           " has been freed, or its process group destroyed");
    }
  }

 private:
  std::shared_lock<std::shared_mutex> open_;
  std::lock_guard<std::mutex> alone_;
};

class Window::Holding {
 public:
  Holding(Window* window, const Call& call, bool as_owner, const std::vector<Edge>& edges)
      : window_(window) {
    if (!call.require_mutex) return;
    std::vector<int> ranks;
    for (const Edge& edge : edges) ranks.push_back(edge.rank);
    auto keys = window->keys(as_owner, ranks);
    window->lock(keys, call.deadline);
    keys_ = std::move(keys);
  }
  ~Holding() { window_->unlock(keys_); }
  Holding(const Holding&) = delete;
  Holding& operator=(const Holding&) = delete;

 private:
  Window* const window_;
  std::vector<Mutexes::Key> keys_;
};

}  // namespace bluefog::window
