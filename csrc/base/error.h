// The one error vocabulary of the data plane.
//
// Everything below csrc/backend reports failure by throwing Error. The executor catches it once and
// puts it into the Work; the binding turns it into the Python exception of the same kind
// (bind_errors.cc).
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <utility>

namespace bluefog {

enum class ErrorCode {
  kUsage,     // the caller's arguments cannot work; nothing was sent
  kMismatch,  // two neighbours disagree about an operation; both raise, outputs are untouched
  kTimeout,   // a neighbour did not come before the deadline
  kPeerLost,  // a neighbour's process ended or its connection broke
  kAborted,   // this group was aborted or destroyed while the operation was pending
  kSystem,    // the operating system refused something (memory, sockets)
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& what) : std::runtime_error(what), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

/// Concatenates its arguments with operator<<.
template <typename... Args>
std::string concat(const Args&... args) {
  std::ostringstream out;
  (out << ... << args);
  return out.str();
}

/// Throws an Error of kind `code` with the concatenated message.
template <typename... Args>
[[noreturn]] void fail(ErrorCode code, const Args&... args) {
  throw Error(code, concat(args...));
}

/// Renders ranks as "rank 3" or "ranks {1, 3}".
template <typename Ranks>
std::string name_ranks(const Ranks& ranks) {
  std::ostringstream out;
  const char* separator = "";
  for (auto rank : ranks) {
    out << separator << rank;
    separator = ", ";
  }
  return ranks.size() == 1 ? "rank " + out.str() : "ranks {" + out.str() + "}";
}

}  // namespace bluefog
