// A rank's side of a communicator: its connections, its state, and its work on the streams.
#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "cuda/stream.h"
#include "nccl/mesh.h"
#include "nccl/signals.h"
#include "nccl/turns.h"

namespace emulator::nccl {

class Window;

/// Handles stay in use after a communicator has gone: that they are found or not is what tells.
class Communicator : public std::enable_shared_from_this<Communicator> {
 public:
  /// A new one is ncclInProgress until its first job has ended.
  Communicator(int rank, int size, int device, bool blocking);

  const int rank;
  const int size;
  const int device;
  const bool blocking;

  const Mesh& mesh() const { return mesh_; }
  Signals& signals() { return signals_; }
  Stop stop() const;

  /// Collective; `stop` besides this communicator's own.
  void connect(const ncclUniqueId& id, const Stop& stop = {});

  ncclResult_t state() const;
  /// Throws what forbids a call now.
  void check_ready() const;
  /// The first error stays, and is printed.
  void fail(const Error& error);

  /// What a call does on the host that needs its peers; the state is ncclInProgress meanwhile.
  void begin_job();
  ncclResult_t run_job(const std::function<void()>& job);

  /// In turn is what works on the connections: it waits for what has been enqueued earlier, on
  /// other streams too. `work` may throw Aborted or an Error; it then blocks its stream until the
  /// abort, as a kernel of NCCL does.
  void enqueue(cudaStream_t stream, bool in_turn, std::function<void()> work);

  /// No more work is taken; returns once all of it has ended, or never will.
  void finalize();
  bool idle() const;
  /// Returns once nothing of it runs any more.
  void abort();

  void add(Window* window);
  void remove(Window* window);
  bool has(Window* window) const;
  /// Whether they are all in one of its windows.
  bool in_window(const void* data, std::size_t bytes) const;

 private:
  void run(const std::function<void()>& work) noexcept;
  void count(int& counter, int change);

  Mesh mesh_;
  Signals signals_;
  Turns turns_;
  std::mutex enqueue_mutex_;  // tickets in the order in which streams get their work
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  ncclResult_t state_ = ncclInProgress;
  std::string failure_;
  bool finalized_ = false;
  int jobs_ = 0;
  int enqueued_ = 0;  // without what graphs hold
  int running_ = 0;
  std::set<Window*> windows_;
};

}  // namespace emulator::nccl
