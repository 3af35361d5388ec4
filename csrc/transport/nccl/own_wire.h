// Rounds through a communicator of our own: no other operation is ahead of them in its queue, and
// NCCL sizes its channels for a sparse graph where it can.
//
// A second communicator on a device brings a rule. The kernels of two wait for each other's
// multiprocessors, so ranks that run them in different orders can deadlock. So all rounds are put
// behind the inner backend's collectives so far, and those behind the rounds, by events. While a
// graph is captured only its own streams' order counts: nothing in it may wait for what is not.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "transport/nccl/communicator.h"
#include "transport/nccl/flight_recorder.h"
#include "transport/nccl/watchdog.h"
#include "transport/nccl/wire.h"

namespace bluefog::nccl {

/// What c10 cannot say of a device in all versions of torch.
struct DeviceHooks {
  /// Whether a graph is being captured on a stream; null means never.
  std::function<bool(const c10::Stream&)> is_capturing = nullptr;

  /// Called first in the watchdog's thread: with CUDA it sets the thread's capture mode, without
  /// which an event query breaks captures of other threads.
  std::function<void()> watchdog_thread = nullptr;
};

/// What the module _C_cuda brings for an OwnWire.
struct CudaLibrary {
  std::shared_ptr<NcclApi> nccl;
  DeviceHooks hooks;
};

class OwnWire final : public Wire {
 public:
  struct Options {
    int rank;
    int size;
    std::chrono::milliseconds connect_timeout;
    /// Most neighbours, in and out, that any rank has in a round, the same on all ranks; 0 where
    /// that is not known.
    int degree = 0;
    std::string name = "bluefog";  // in NCCL's messages
    std::string key = "nccl_id";   // of the communicator's id in the store
    bool high_priority = true;     // of the stream of its rounds
    DeviceHooks hooks = {};
    std::chrono::milliseconds poll_interval = Watchdog::kInterval;
  };

  /// The store is the group's, or a prefix of it.
  OwnWire(std::shared_ptr<NcclApi> api, c10::intrusive_ptr<c10d::Store> store, Options options);

  /// Aborts what is pending; shutdown() comes first where others may still fetch what was sent.
  ~OwnWire() override;

  /// A rank has one device here; again with the same one does nothing. A wire that fails to connect
  /// stays failed.
  void connect(at::Device device) override;

  /// The host waits only for the group to be enqueued, which takes longer where a peer is new.
  /// Tensors without bytes are skipped, at both ends alike. The deadline includes the work that the
  /// stream has before. A failure in here fails all pending rounds.
  c10::intrusive_ptr<c10d::Work> exchange(const Round& round) override;

  void abort() override;

  /// Nothing may be called after it but abort().
  void shutdown(std::chrono::milliseconds timeout) override;

  /// What the current stream is given from now on waits for all rounds so far.
  void before_collective() override;

  /// Later rounds wait for it.
  void after_collective(c10d::Work& work) override;

  std::string records() const override { return recorder_.json(); }

  /// For tests, which look when they want to.
  Watchdog& watchdog() { return *watchdog_; }

 private:
  void check(const Round& round) const;
  void rethrow_failure() const;
  c10::Stream current_stream() const;
  bool is_captured(const c10::Stream& stream) const;
  c10::intrusive_ptr<c10d::Work> enqueue(const Round& round, const Operation& operation);
  void abort_communicator() noexcept;

  const std::shared_ptr<NcclApi> api_;
  const c10::intrusive_ptr<c10d::Store> store_;
  const Options options_;
  FlightRecorder recorder_;
  Communicator communicator_;
  std::atomic<c10::Device> device_{c10::Device(c10::kCPU)};  // kCPU until connect()
  std::optional<c10::Stream> stream_;                        // likewise
  std::unique_ptr<Watchdog> watchdog_;                       // last: its thread uses the others
};

}  // namespace bluefog::nccl
