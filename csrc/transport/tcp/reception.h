// Where a rank takes the calls of others, and finds out who they are.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "transport/tcp/endpoint.h"

namespace bluefog::tcp {

/// Not thread-safe. Waits for nobody.
class Reception {
 public:
  struct Caller {
    int rank;
    UniqueFd fd;  // does not block; hellos have been exchanged
  };

  /// Listens from now on; `interface`: see listen_at(). Throws Error(kSystem).
  Reception(int rank, int size, const std::string& interface);
  ~Reception();

  const Endpoint& endpoint() const { return endpoint_; }

  /// To wait on, with poll or epoll: can be read when take() has something to do.
  int fd() const { return epoll_.get(); }

  /// Whether somebody has called and not said yet who it is; take() sends those away who never do.
  bool has_guests() const { return !guests_.empty(); }

  /// Ranks that have called since the last time, higher ones that are `expected`. Strangers may say
  /// anything or nothing, and are sent away.
  std::vector<Caller> take(const std::function<bool(int)>& expected);

 private:
  struct Guest;

  void let_in();
  bool hear(Guest& guest);  // whether it has said all that it will
  bool welcome(const Guest& guest, const std::function<bool(int)>& expected) const;

  const int rank_;
  const int size_;
  Endpoint endpoint_{};
  UniqueFd listener_, epoll_;
  std::map<int, std::unique_ptr<Guest>> guests_;  // by descriptor
};

}  // namespace bluefog::tcp
