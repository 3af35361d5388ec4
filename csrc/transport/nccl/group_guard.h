// An NCCL group that no path leaves open: one left open swallows the thread's later calls, those of
// other communicators too.
#pragma once

#include "transport/nccl/api.h"

namespace bluefog::nccl {

class GroupGuard {
 public:
  explicit GroupGuard(NcclApi& api)
      : api_(api), started_(api.group_start()), open_(started_ == Result::kSuccess) {}
  ~GroupGuard() {
    if (open_) api_.group_end();
  }
  GroupGuard(const GroupGuard&) = delete;
  GroupGuard& operator=(const GroupGuard&) = delete;

  /// Whether there is a group: only where this is kSuccess.
  Result started() const { return started_; }

  /// Ends the group, which is what posts its calls. Call it once. The group is closed whatever the
  /// result: NCCL leaves it before it looks at its calls.
  Result end() {
    open_ = false;
    return api_.group_end();
  }

 private:
  NcclApi& api_;
  const Result started_;
  bool open_;
};

}  // namespace bluefog::nccl
