// Averaging between the GPUs of one host, with nothing copied in between: every rank's combine
// kernel reads its neighbours' inputs where they lie, in memory that torch's symmetric memory has
// mapped into all processes of the group.
//
// The ranks of a group must take this path or another one together: a rank that signals on it waits
// for neighbours that would be sending elsewhere. Nothing is negotiated before an operation, so the
// choice rests only on what all ranks know alike; serves() says what that is.
#pragma once

#include <ATen/core/Tensor.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <torch/csrc/distributed/c10d/symm_mem/SymmetricMemory.hpp>
#include <vector>

#include "plan/plan.h"

namespace bluefog::device {

/// What PeerMemory asks its group.
struct PeerGroup {
  /// The name under which torch.distributed has registered the process group, which torch's
  /// rendezvous and signals look up.
  std::string name;

  /// Whether the devices of all ranks of the group are in this host and have peer access to each
  /// other. Asked once, at the first allocation; each rank may say what it sees. Between hosts a
  /// rendezvous does not fail, but waits for the Store's timeout: this keeps it from being tried.
  std::function<bool()> reachable;

  /// Whether every rank says yes. Collective. Must be patient: where the rendezvous fails on one
  /// rank, the others come here only after the timeout of the group's Store.
  std::function<bool(bool)> all_agree;

  /// The implementation of symmetric memory whose signals work as exchange() needs them: those of
  /// "NVSHMEM" and "NCCL" do not, or only within a node.
  std::string implementation = "CUDA";
};

/// One neighbor_allreduce. The tensors are dense and packed; outputs[t] is inputs[t] or overlaps no
/// input. Inputs have the same types and sizes on all ranks.
struct PeerRound {
  const Plan& plan;
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> outputs;

  /// The operation signals on this channel and the next. Operations that may be under way at once,
  /// on two streams, need channels two apart. Channels end at
  /// get_signal_pad_size() / 4 / size of the group: at least 32 of them for up to 72 ranks.
  int channel_base = 0;

  /// For each signal. Zero waits forever. When it is over, the kernel that waits traps, and the
  /// process can use the device no more: the message is on the process's standard output.
  std::chrono::milliseconds timeout{0};
};

/// outputs[t] = weights[0] * inputs[t] + sum over j of weights[j + 1] * arrivals[j * T + t]:
/// bluefog::device::combine, of combine_op.h. Arrivals are flat, and may be empty.
using Combine = std::function<void(
    const std::vector<at::Tensor>& outputs, const std::vector<at::Tensor>& inputs,
    const std::vector<at::Tensor>& arrivals, const std::vector<double>& weights)>;

/// The registered memory of one group on one device. Not thread-safe, but for the const functions
/// among themselves; the tensors may be freed by any thread and may outlive this object.
class PeerMemory {
 public:
  PeerMemory(at::Device device, PeerGroup group) : device_(device), group_(std::move(group)) {}

  /// A flat tensor that neighbours can read in place; undefined on all ranks alike where that
  /// cannot be had, and then memory comes from elsewhere. Collective: with the same size and type,
  /// and in the same order with this group's other operations. The host waits for the other ranks.
  /// Its memory is registered for as long as its storage lives.
  at::Tensor allocate(std::int64_t numel, const at::TensorOptions& options);

  /// Whether exchange() can do an operation with these inputs. The same on all ranks, provided that
  /// - the inputs are symmetric: on all ranks input t lies in memory of the same allocate(), at the
  ///   same offset there, or on all outside of any. This is the caller's to ensure, as calling in
  ///   the same order is. Who slices or swaps buffers by rank breaks it, and then ranks wait
  ///   forever, or read from the wrong place; place_of() is there to check it.
  /// - `of_topology` says the same on all ranks: the plan is that of the group's topology, whose
  ///   destinations have weight 1. Weights given with a call are not for this path, whatever they
  ///   are: what a sender scales by, its receivers cannot know, and the other ranks cannot know
  ///   whether this one scales.
  /// Where outputs lie and how many neighbours a rank has may differ, and does not count here.
  bool serves(const std::vector<at::Tensor>& inputs, bool of_topology) const;

  /// Where a tensor lies, in words that can be compared between ranks: "allocation 3 + 512 bytes",
  /// or "" for a tensor that is empty or in no registered memory.
  std::string place_of(const at::Tensor& tensor) const;

  /// Where `rank` has what this rank has in a tensor that lies in registered memory; an address for
  /// this process and its device.
  std::byte* address_at(int rank, const at::Tensor& tensor) const;

  /// Enqueues an operation that serves() has agreed to on the current stream, and returns without
  /// waiting. Behind it on that stream the outputs are there, and the inputs may be overwritten: no
  /// neighbour reads them any more. On a channel, all ranks have their operations in the same
  /// order, each behind the one before; a rank without neighbours may stay away.
  /// The caller keeps the tensors alive for that stream.
  /// Throws Error(kUsage), before anything is enqueued, for a plan that scales what it sends. After
  /// any other failure signals may be left over: the group is to be aborted.
  void exchange(const PeerRound& round, const Combine& combine) const;

  /// Why allocate() gives nothing, for people; empty as long as it may.
  const std::string& refusal() const { return refusal_; }

 private:
  // The storage owns the mapping. No weak pointer to the mapping itself: that would keep it, since
  // an intrusive object ends with the last of those.
  struct Allocation {
    std::size_t bytes;
    std::uint64_t number;  // counts the calls of allocate() that came to memory
    c10::weak_intrusive_ptr<c10::StorageImpl> storage;
    c10d::symmetric_memory::SymmetricMemory* mapping;  // lives as long as `storage`
  };
  struct Place {
    c10::intrusive_ptr<c10::StorageImpl> storage;
    c10d::symmetric_memory::SymmetricMemory* mapping;
    std::uint64_t allocation;
    std::size_t offset;  // bytes
  };

  /// untried -> on -> off or untried -> off, at an allocate() and so on all ranks at once.
  enum class State { kUntried, kOn, kOff };

  bool is_on();
  void refuse(std::string why);
  void forget_freed();
  std::optional<Place> find(const at::Tensor& tensor) const;

  const at::Device device_;
  const PeerGroup group_;
  State state_ = State::kUntried;
  std::string refusal_;
  std::uint64_t allocated_ = 0;
  std::map<const std::byte*, Allocation> allocations_;  // by their first byte
};

}  // namespace bluefog::device
