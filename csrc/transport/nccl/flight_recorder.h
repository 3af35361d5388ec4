// The last rounds of a rank, for the question who hung in what: compare the ranks' records, and the
// one whose sequence is behind is the one that others wait for.
//
// Thread-safe. Knows neither torch nor NCCL.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace bluefog::nccl {

/// A round in words.
struct Operation {
  std::string name;
  std::uint64_t sequence;
  std::vector<std::pair<int, int>> edges;  // source and destination, each once
  std::uint64_t bytes;                     // sent by this rank

  /// "neighbor_allreduce #12 (0 -> 1, 1 -> 2; 4096 bytes sent)".
  std::string describe() const;
};

class FlightRecorder {
 public:
  static constexpr std::size_t kDefaultCapacity = 2048;

  /// Nanoseconds since 1970 by the wall clock: it jumps, but it is the one that other hosts share.
  static std::int64_t wall_clock();

  explicit FlightRecorder(std::size_t capacity = kDefaultCapacity,
                          std::function<std::int64_t()> now = wall_clock);

  /// Returns a ticket for what becomes of it.
  std::uint64_t enqueued(Operation operation);

  /// The first of these counts. The time is when the host noticed, up to the watchdog's interval
  /// late. An operation that is no longer kept is ignored.
  void completed(std::uint64_t ticket);
  void failed(std::uint64_t ticket, std::string error);

  /// For a round in a CUDA graph, whose end the host never sees.
  void captured(std::uint64_t ticket);

  /// {"version": 1, "forgotten": 0, "entries": [{"operation": "neighbor_allreduce", "sequence": 12,
  /// "edges": [[0, 1], [1, 2]], "bytes": 4096, "state": "completed", "enqueued_ns": 17,
  /// "finished_ns": 23, "error": null}]}, oldest first. What has not finished has null there. Text
  /// is taken to be UTF-8.
  std::string json() const;

 private:
  // kEnqueued -> kCompleted | kFailed | kCaptured, in finish().
  enum class State { kEnqueued, kCompleted, kFailed, kCaptured };
  struct Entry {
    Operation operation;
    State state;
    std::int64_t enqueued_ns;
    std::int64_t finished_ns;  // where the state is kCompleted or kFailed
    std::string error;         // where it is kFailed
  };

  void finish(std::uint64_t ticket, State state, std::string error);
  static std::string json_of(const Entry& entry);

  const std::size_t capacity_;  // at least 1
  const std::function<std::int64_t()> now_;
  mutable std::mutex mutex_;
  std::vector<Entry> ring_;    // under mutex_; a ticket's place is ticket % capacity_
  std::uint64_t tickets_ = 0;  // under mutex_; given out so far
};

}  // namespace bluefog::nccl
