// The process group backend "bluefog": standard collectives go to Gloo (CPU) and NCCL (CUDA),
// reached through their c10d backends, the commonest of them through the shared memory of a host
// that has all ranks; neighbor operations are this project's own.
//
// Thread-safe to the extent that c10d asks for: calls on one group come in the same order on all
// ranks. There is no state outside the object: groups, and ranks that are threads of one process,
// work side by side.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "backend/connect.h"
#include "backend/executor.h"
#include "backend/options.h"
#include "device/executor.h"
#include "device/peer_memory.h"
#include "plan/plan.h"
#include "transport/nccl/own_wire.h"
#include "transport/nccl/puts.h"

namespace bluefog {

struct GroupWindows;
namespace window {
class Queue;
class Window;
struct Device;
struct Spec;
}  // namespace window

using BackendPtr = c10::intrusive_ptr<c10d::Backend>;
using WorkPtr = c10::intrusive_ptr<c10d::Work>;
using Tensors = std::vector<at::Tensor>;

/// Makers of the backends below this one; each call is collective over the group. They are Python
/// functions (bluefog_pg/_create.py), because torch's own classes are made there on all versions
/// alike.
struct Makers {
  std::function<BackendPtr()> cuda;  // NCCL; called at the first CUDA tensor
  std::function<std::shared_ptr<nccl::CudaLibrary>()> nccl;  // for a communicator of our own
  std::function<BackendPtr()>
      edges;  // Gloo for neighbor operations alone; called where some rank is on another host
  std::function<BackendPtr(c10::intrusive_ptr<c10d::Store>, int rank, int size,
                           c10::intrusive_ptr<BluefogOptions>)>
      child;  // a group split off this one
  std::function<void(std::uintptr_t address, std::size_t nbytes)> pin;  // for all GPUs
  std::function<void(std::uintptr_t address)> unpin;
};

class BluefogBackend : public c10d::Backend {
 public:
  BluefogBackend(c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                 c10::intrusive_ptr<BluefogOptions> options, BackendPtr cpu, Makers makers);
  ~BluefogBackend() override;

  /// Collective, once, right after the constructor and without Python's lock: connects the ranks if
  /// all are on one host, for collectives over its memory. Throws what an Exchange's start does:
  /// Error(kTimeout) naming ranks that do not come, Error(kUsage), Error(kSystem).
  void meetOnHost();

  // ---- Neighbor operations (neighbor_ops.cc)

  /// What an operation leaves: its outputs, and a Work if it is async. One that is not async
  /// returns when it is done, and throws its error.
  struct Started {
    WorkPtr work;
    Tensors outputs;
  };

  struct AverageOptions {
    int64_t round;  // the step of the topology, or -1
    bool async;
    std::optional<at::ScalarType> payload;  // what is sent is rounded to it (payload_dtype.h)
  };

  /// outputs[t] = self_weight * inputs[t] + sum over sources of weight * their inputs[t], all
  /// tensors in one exchange. Without outputs they are made.
  Started neighborAllreduce(Tensors inputs, std::optional<Tensors> outputs,
                            std::shared_ptr<const Plan> plan, AverageOptions options);

  /// The sources' tensors, concatenated along dimension 0 in the order of the plan; first
  /// dimensions may differ. Without `out` their place comes into being with their arrival.
  Started neighborAllgather(const at::Tensor& input, std::optional<at::Tensor> out,
                            std::shared_ptr<const Plan> plan, int64_t round, bool async);

  /// Payload bytes sent to neighbours so far, counted once per destination.
  uint64_t bytesSent() const;

  /// Neighbor operations started so far; one that is refused for its arguments does not count.
  uint64_t sequence() const;

  /// Collectives that have gone, or go, over shared memory.
  uint64_t hostCollectives() const;

  /// The last neighbor operations on the GPU as JSON, with a communicator of our own; else empty,
  /// since torch's flight recorder has them.
  std::string deviceRecords() const { return device_->records(); }

  /// Memory that neighbours of the host can read in place, where there is any. On the CPU
  /// collective at the first time. On a GPU collective each time, with a wait for the other ranks:
  /// so it is not allocateTensor(), which torch calls in the middle of training.
  at::Tensor allocateShared(int64_t size, at::ScalarType dtype, at::Device device);

  /// Why GPUs do not read each other's memory in place; empty where they do, or nothing was
  /// allocated yet.
  std::string symmetricMemoryRefusal() const;

  /// "shm", "tcp" or "gloo": how neighbor operations reach `peer`. Connects the group if nothing
  /// has yet: collective.
  std::string transportOf(int peer);

  // ---- One-sided memory (windows.cc)

  /// Collective. What of `spec` the group knows is filled in here. Throws what Window::create does.
  std::shared_ptr<window::Window> makeWindow(window::Spec spec, const at::Tensor& own);

  /// Carries out the calls on windows that their callers do not wait for.
  const std::shared_ptr<window::Queue>& windowQueue() const;

  /// Memory of a GPU for puts of `nbytes` between the ranks of the group (puts.cc). Collective,
  /// also for ranks without an edge. Nothing here ends it: who has it calls its abort().
  std::unique_ptr<nccl::Puts> makePuts(at::Device device, std::size_t nbytes,
                                       std::vector<int> sources, std::vector<int> destinations);

#ifdef C10D_BACKEND_HAS_WINDOW
  // torch's own windows (c10d_window.cc).
  bool supportsWindow() const override { return shares_memory(options_->transport); }
  c10::intrusive_ptr<c10d::Window> new_window(const std::optional<at::Tensor>& tensor) override;

  /// Collective: hands `own` to all ranks of the host, and theirs to `accept`.
  void meetForWindow(std::uint64_t number, int registration, int own,
                     const std::function<void(int, UniqueFd)>& accept);

  /// How a rank was lost, as far as the transport knows; null while it lives.
  const char* lost(int rank);
#endif

  /// What bluefog_pg/group.py keeps for this group (its topology); opaque here.
  std::shared_ptr<void> python_state;

  // ---- Groups (bluefog_backend.cc)

  const std::string getBackendName() const override { return "bluefog"; }
  c10::intrusive_ptr<Options> getBackendOptions() override { return options_; }
  const c10::intrusive_ptr<BluefogOptions>& options() const { return options_; }
  bool supportsSplitting() const override { return true; }
  bool supportsCoalescing() const override;
  bool supportsTensorAlloc(c10::DeviceIndex device) override;
  /// On the CPU: memory that neighbours of the host can read in place, where there is any.
  /// Collective at the first time.
  at::Tensor allocateTensor(long size, at::TensorOptions options) override;
  std::shared_ptr<c10::Allocator> getMemAllocator() override;
  void eagerConnectSingleDevice(at::Device device) override;
  void setGroupUid(const std::string& uid) override;
  void setTimeout(std::chrono::milliseconds timeout) override;
  void setSequenceNumberForGroup() override;
  uint64_t getSequenceNumberForGroup() override;
  BackendPtr split(const c10::intrusive_ptr<c10d::Store>& store, const std::vector<int>& ranks,
                   const c10::intrusive_ptr<Options>& options) override;
  uint64_t splitCount() const { return split_count_; }
  void startCoalescing() override;
  WorkPtr endCoalescing() override;
  void registerOnCompletionHook(
      std::function<void(std::shared_ptr<c10d::WorkInfo>)>&& hook) override;
  void waitForPendingWorks() override;
  void enableCollectivesTiming() override;
  c10d::ErrorType getError() override;
  void abort() override;
  void shutdown() override;

  // ---- Standard collectives (collectives.cc). Only the old names of methods that torch 2.14
  // renamed: they exist everywhere, and the new ones forward to them.

  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) override;
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  WorkPtr allreduce_sparse(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  WorkPtr allreduce_coalesced(Tensors& tensors,
                              const c10d::AllreduceCoalescedOptions& opts) override;
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& opts) override;
  WorkPtr allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                    const c10d::AllgatherOptions& opts) override;
  WorkPtr _allgather_base(at::Tensor& output, at::Tensor& input,
                          const c10d::AllgatherOptions& opts) override;
  WorkPtr allgather_coalesced(std::vector<Tensors>& outputs, Tensors& inputs,
                              const c10d::AllgatherOptions& opts) override;
  WorkPtr allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                          const c10d::AllgatherOptions& opts) override;
  WorkPtr gather(std::vector<Tensors>& outputs, Tensors& inputs,
                 const c10d::GatherOptions& opts) override;
  WorkPtr scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                  const c10d::ScatterOptions& opts) override;
  WorkPtr reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                         const c10d::ReduceScatterOptions& opts) override;
  WorkPtr _reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                               const c10d::ReduceScatterOptions& opts) override;
  WorkPtr reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                          const c10d::ReduceScatterOptions& opts) override;
  WorkPtr alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits,
                        std::vector<int64_t>& input_splits,
                        const c10d::AllToAllOptions& opts) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) override;
  WorkPtr send(Tensors& tensors, int destination, int tag) override;
  WorkPtr recv(Tensors& tensors, int source, int tag) override;
  WorkPtr recvAnysource(Tensors& tensors, int tag) override;
  WorkPtr barrier(const c10d::BarrierOptions& opts) override;
  void monitoredBarrier(const c10d::BarrierOptions& opts, bool wait_all_ranks) override;

 private:
  // The inner backend for tensors of this device; makes the CUDA one on first use.
  c10d::Backend& inner(at::Device device);
  BackendPtr cuda_if_made();

  // Calls `collective` on the inner backend of the device; inside a coalescing block also remembers
  // its Work.
  template <typename Collective>
  WorkPtr forward(at::Device device, Collective&& collective);

  // Connecting (connecting.cc). The executor of a group that is not on one host connects at its
  // first use: collective then.
  Executor& executor();
  void connect();
  void adopt(Connection connection);
  void make_host_plans();
  ConnectOptions connect_options(const Env& env) const;
  Rendezvous rendezvous_at(const std::string& place, const char* what);
  void wait_for_ranks(const std::vector<std::string>& keys, const char* what);
  std::vector<std::vector<uint8_t>> read_all(const std::vector<std::string>& keys);

  // Throws in a process that was forked from the one that made the group: there are no threads.
  void check_process() const;

  struct Call;
  struct Averaging;
  void check_plan(const Plan* plan) const;
  Started start(Call call, bool async);
  WorkPtr with_work(Call& call);

  // Neighbor operations on CUDA tensors (device_ops.cc). Of the task they take frame and plan.
  Started average_on_device(std::shared_ptr<Averaging> averaging, Task task, bool async);
  Started gather_on_device(const at::Tensor& input, std::optional<at::Tensor> out, Task task,
                           bool async);
  Started start_on_device(device::Operation operation, Task task, bool async);
  void agree_on_host(Task task);
  std::unique_ptr<nccl::Wire> make_wire(at::Device device);
  device::PeerMemory& peers(at::Device device);
  bool on_one_host();

  // A window on a GPU (window_device.cc); collective. What the ranks cannot have has no `calls`.
  window::Device window_device(at::Device device, window::Spec& spec);
  window::Device shared_values(at::Device device, window::Spec& spec);
  window::Device carried_values(at::Device device, window::Spec& spec);
  std::int64_t over_all_ranks(std::int64_t value, c10d::ReduceOp::RedOpType op);

  // Collectives over shared memory (host_collectives.cc): null where the call is one for Gloo,
  // which depends only on what is the same on all ranks. They take arguments that Gloo would take,
  // and leave others to its error messages.
  struct How {
    std::chrono::milliseconds timeout;
    bool async;
  };
  WorkPtr host_allreduce(const Tensors& tensors, const c10d::AllreduceOptions& opts);
  WorkPtr host_broadcast(const Tensors& tensors, const c10d::BroadcastOptions& opts);
  WorkPtr host_allgather(const Tensors& outputs, const at::Tensor& input, How how);
  WorkPtr host_reduce_scatter(const at::Tensor& output, const Tensors& inputs,
                              const c10d::ReduceScatterOptions& opts);
  WorkPtr host_barrier(const c10d::BarrierOptions& opts);
  WorkPtr start_on_host(Call call, How how);

  const c10::intrusive_ptr<c10d::Store> store_;
  const c10::intrusive_ptr<BluefogOptions> options_;
  BackendPtr cpu_;
  const Makers makers_;
  const int pid_;                  // of the process that made the group
  bool host_collectives_ = false;  // set before the group is in use
  std::atomic<uint64_t> split_count_{0};
  struct Split {
    c10::intrusive_ptr<c10d::Store> store;   // kept, so that no other one gets its address
    c10::weak_intrusive_ptr<Backend> child;  // null on a rank that is in no part
  };
  std::optional<Split> last_split_;
  std::atomic<uint64_t> puts_made_{0};  // the same on all ranks

  std::mutex cuda_mutex_;
  BackendPtr cuda_;                                 // under cuda_mutex_
  std::unique_ptr<device::DeviceExecutor> device_;  // goes before cuda_
  std::optional<device::PeerMemory> peers_;         // made at the first allocation on a GPU

  // Coalescing is per group and, as everywhere in c10d, for one thread at a time.
  bool coalescing_ = false;
  bool cuda_coalescing_ = false;
  std::vector<WorkPtr> coalesced_;

  const std::unique_ptr<GroupWindows> windows_;

  std::mutex connect_mutex_;
  std::atomic<bool> closed_{false};            // by abort() and shutdown()
  int connect_tries_ = 0;                      // under connect_mutex_
  std::unique_ptr<Transport> transport_;       // made under connect_mutex_
  std::unique_ptr<Executor> executor_;         // made under connect_mutex_; goes before transport_
  std::atomic<Executor*> connected_{nullptr};  // executor_, once it can be used
  std::vector<std::string> transport_names_;   // by rank
  HostPart host_;                              // until connect() where that is not all ranks
  struct HostPlans {
    std::shared_ptr<const Plan> sum, mean;           // all to all
    std::vector<std::shared_ptr<const Plan>> roots;  // by rank: from it to all others
  } host_plans_;
};

template <typename Collective>
WorkPtr BluefogBackend::forward(at::Device device, Collective&& collective) {
  c10d::Backend& backend = inner(device);
  if (!coalescing_) {
    if (!device.is_cuda()) return collective(backend);
    device_->before_collective();
    WorkPtr work = collective(backend);
    device_->after_collective(work.get());
    return work;
  }
  if (device.is_cuda() && !cuda_coalescing_) {
    device_->before_collective();
    backend.startCoalescing();
    cuda_coalescing_ = true;
  }
  WorkPtr work = collective(backend);
  if (work && !device.is_cuda()) {
    coalesced_.push_back(work);
  }
  return work;
}

}  // namespace bluefog
