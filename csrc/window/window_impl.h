// What window.cc and window_calls.cc share.
#pragma once

#include <algorithm>

#include "base/error.h"
#include "window/window.h"

namespace bluefog::window {

inline bool has(const std::vector<int>& ranks, int rank) {
  return std::binary_search(ranks.begin(), ranks.end(), rank);
}

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
