// Runs neighbor operations on a device: enqueues them on its streams, and waits for nothing.
//
// As everywhere in c10d, the calls on one group come one after the other and in the same order on
// all ranks. Knows c10's streams and events alone, so that any device type with a DeviceGuardImpl
// can be served, the one of the tests included.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <unordered_map>
#include <vector>

#include "device/work.h"
#include "plan/plan.h"
#include "transport/nccl/wire.h"

namespace bluefog::device {

/// One operation. The tensors are dense, packed and on `device`.
struct Operation {
  const char* name;   // "neighbor_allreduce"
  const char* title;  // in torch.profiler
  at::Device device;
  Tensors inputs;   // of the caller, for the profiler; kept alive
  Tensors outputs;  // likewise
  std::shared_ptr<const Plan> plan;
  std::chrono::milliseconds timeout{};

  /// By source in the order of the plan, and there by tensor: where what arrives goes.
  std::vector<Tensors> arrivals{};
  Tensors sent{};     // goes to every destination, scaled by the edge's weight
  Tensors scratch{};  // what else `finish` uses, where the caller's stream allocated it

  /// Whether `finish` reads the neighbours' memory itself; nothing is moved then, and it comes
  /// behind the last such operation, whatever the streams.
  bool read_in_place = false;

  /// Called with the stream current on which the arrivals are there; enqueues what makes outputs of
  /// them.
  std::function<void()> finish{};
};

struct ExecutorOptions {
  /// On which async operations end, in turn, so that independent ones may overlap; for each device.
  /// Those that read in place stay on the first: they have an order anyway, which within a stream
  /// holds in a captured graph too.
  int streams = 1;
  bool high_priority = true;

  /// Most neighbours that an operation may have; 0 for any number.
  int max_neighbors = 0;
};

class DeviceExecutor {
 public:
  /// `make_wire` is called at the first operation, with its device; what it returns is used for the
  /// group's life.
  DeviceExecutor(int rank, std::function<std::unique_ptr<nccl::Wire>(at::Device)> make_wire,
                 ExecutorOptions options = {})
      : rank_(rank), make_wire_(std::move(make_wire)), options_(options) {}

  /// Enqueues an operation behind what the current stream has been given. Without `async` the
  /// current stream has the outputs, and null is returned; else they are there after the Work's
  /// wait(), and other streams go on meanwhile. The first one on a device is collective over the
  /// group, and the host may wait in it. Throws Error(kUsage) for too many neighbours.
  WorkPtr run(Operation operation, bool async);

  /// Operations started, and payload bytes sent, counted once per destination.
  std::uint64_t sequence() const { return sequence_.load(std::memory_order_relaxed); }
  std::uint64_t bytes_sent() const { return bytes_sent_.load(std::memory_order_relaxed); }

  /// Around a collective of the group's inner backend on the device; see nccl::Wire.
  void before_collective();
  void after_collective(c10d::Work* work);

  /// Frees what is used for moving, once all ranks have what they were sent. Collective.
  void shutdown(std::chrono::milliseconds timeout);

  /// Fails what is under way and what comes later; may be called from any thread.
  void abort();

  /// The last rounds as JSON; empty where torch's flight recorder has them.
  std::string records() const;

 private:
  /// The streams of a device on which async operations end.
  struct Sides {
    std::vector<c10::Stream> streams;
    std::size_t used = 0;

    c10::Stream next(bool read_in_place);
  };

  void check_neighbors(const Operation& operation) const;
  Sides& prepare(at::Device device);
  void finish(const Operation& operation, c10::Stream on);
  nccl::Round round_of(const Operation& operation, Tensors& held) const;

  const int rank_;
  const std::function<std::unique_ptr<nccl::Wire>(at::Device)> make_wire_;
  const ExecutorOptions options_;
  std::unique_ptr<nccl::Wire> wire_;
  std::atomic<nccl::Wire*> made_{nullptr};       // wire_, for abort()
  std::optional<c10::Event> last_in_place_;      // behind the last operation of that kind
  std::optional<c10::Stream> last_stream_;       // that it was on
  std::unordered_map<at::Device, Sides> sides_;  // of devices that have had an operation
  std::atomic<std::uint64_t> sequence_{0};
  std::atomic<std::uint64_t> bytes_sent_{0};
};

}  // namespace bluefog::device
