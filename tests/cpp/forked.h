// A rank in a process of its own, which can be killed.
#pragma once

#include <sys/types.h>

#include <functional>
#include <thread>

#include "base/fd.h"
#include "ranks.h"

namespace bluefog::test {

class ForkedRank {
 public:
  /// Forks; the child runs `body` with a rendezvous that reaches `store` of this process, and exits
  /// with 0, or with 1 where `body` throws or an expectation fails. Must be made while this process
  /// has one thread.
  ForkedRank(Store& store, int rank, const std::function<void(const Rendezvous&)>& body);
  ~ForkedRank();  // kills and reaps

  pid_t pid() const { return pid_; }
  void signal(int number) const;

  /// Waits for the end and returns the status as of waitpid().
  int wait();

 private:
  pid_t pid_ = -1;
  UniqueFd link_;  // carries the child's rendezvous
  std::thread server_;
  bool reaped_ = false;
};

}  // namespace bluefog::test
