// Ranks as threads of this process, and what connects them.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/env.h"
#include "transport/loopback/loopback.h"
#include "transport/rendezvous.h"
#include "transport/shm/shm_transport.h"
#include "transport/transport.h"

namespace bluefog::test {

using std::chrono::milliseconds;

/// For what is expected to succeed: a busy machine is late without a bug.
constexpr milliseconds kPlenty{30000};

/// For what is expected to fail. Ranks that are to meet within it start together.
constexpr milliseconds kShort{300};

/// Runs fn(rank) in `n` threads, waits for all of them and rethrows the first failure.
/// `on_failure` is called before, to wake the ranks that wait for the one that failed.
void run_ranks(
    int n, const std::function<void(int)>& fn, const std::function<void()>& on_failure = [] {});

/// The code of the Error that fn() throws, with its message; no code where it returns.
struct Caught {
  std::optional<ErrorCode> code;
  std::string what;
};
Caught catch_error(const std::function<void()>& fn);
Caught describe(std::exception_ptr error);

/// A key-value store within this process.
class Store {
 public:
  void set(int rank, const std::string& key, const std::string& value);
  /// Throws Error(kTimeout) where the value does not come.
  std::string get(int of, const std::string& key, milliseconds timeout = kPlenty);
  Rendezvous rendezvous(int rank);

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<std::pair<int, std::string>, std::string> values_;  // under mutex_
};

/// Settings of shared memory; `chunk_bytes * chunks` is what a rank can be ahead of its readers.
/// The heap is small, since all ranks of a test map all of them into one process.
Env shm_env(std::size_t chunk_bytes, std::size_t chunks);

std::vector<std::unique_ptr<shm::ShmTransport>> make_shm(int n, const Env& env);

/// One transport per rank, of one of the kinds that the conformance tests run over.
class Group {
 public:
  /// "loopback", "shm", "shm_tiny", "tcp"; "routed", which is loopback between ranks whose sum is
  /// even, else shared memory; "hosts", where rank 2 is on a host of its own; "lent", where
  /// neighbours read payloads in place; "mixed", where they do so from every other rank.
  static const std::vector<std::string>& kinds();

  Group(const std::string& kind, int size);

  int size() const { return static_cast<int>(transports_.size()); }
  Transport& operator[](int rank) { return *transports_[rank]; }

  /// More bytes than any rank can publish before somebody reads.
  std::size_t more_than_the_ring() const { return ring_bytes_ + 5; }

  /// run_ranks() where a failure of one rank aborts the others.
  void run(const std::function<void(int)>& fn);

 private:
  std::unique_ptr<LoopbackHub> hub_;
  std::vector<std::unique_ptr<Transport>> transports_;
  std::size_t ring_bytes_ = 0;
};

}  // namespace bluefog::test
