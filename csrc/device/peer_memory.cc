#include "device/peer_memory.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <utility>

#include "base/error.h"
#include "device/combine.h"

namespace bluefog::device {
namespace {

namespace symm = c10d::symmetric_memory;

/// What fn() returns, or an empty one with the reason in `why`.
template <typename Fn>
auto attempt(Fn&& fn, std::string& why) -> decltype(fn()) {
  try {
    return fn();
  } catch (const std::exception& error) {
    why = error.what();
    return {};
  }
}

bool reaches_all(symm::SymmetricMemory& memory) {
  const auto none_null = [](const std::vector<void*>& pointers) {
    return std::find(pointers.begin(), pointers.end(), nullptr) == pointers.end();
  };
  return none_null(memory.get_buffer_ptrs()) && none_null(memory.get_signal_pad_ptrs()) &&
         memory.world_within_direct_access();
}

/// One channel of a signal pad. A signal is a flag of its own per sender, receiver and channel:
/// putting it waits on the device while it is up and puts it up; waiting for it takes it down.
class Channel {
 public:
  Channel(symm::SymmetricMemory& memory, int channel, std::chrono::milliseconds timeout)
      : memory_(memory),
        channel_(channel),
        timeout_ms_(static_cast<std::size_t>(std::max<std::int64_t>(timeout.count(), 0))) {}

  void put(const std::vector<Edge>& to) const {
    for (const Edge& edge : to) memory_.put_signal(edge.rank, channel_, timeout_ms_);
  }
  void wait(const std::vector<Edge>& from) const {
    for (const Edge& edge : from) memory_.wait_signal(edge.rank, channel_, timeout_ms_);
  }

 private:
  symm::SymmetricMemory& memory_;
  const int channel_;
  const std::size_t timeout_ms_;
};

}  // namespace

at::Tensor PeerMemory::allocate(std::int64_t numel, const at::TensorOptions& options) {
  TORCH_CHECK_VALUE(options.device().type() == device_.type() &&
                        (!options.device().has_index() || options.device() == device_),
                    "memory of ", options.device(), " asked of that of ", device_);
  if (!is_on() || numel == 0) return {};
  forget_freed();

  std::string why;
  const at::ScalarType dtype = c10::typeMetaToScalarType(options.dtype());
  const at::Tensor memory = attempt(
      [&] { return symm::empty_strided_p2p({numel}, {1}, dtype, device_, group_.name, {}); }, why);
  if (!group_.all_agree(memory.defined())) return {};  // one is out of memory, maybe for now

  const auto mapping = attempt(
      [&] {
        auto made = symm::rendezvous(memory, group_.name);
        if (!made || !reaches_all(*made)) fail(ErrorCode::kSystem, "a device cannot be reached");
        return made;
      },
      why);
  if (!group_.all_agree(mapping.defined())) {
    refuse(why.empty() ? "another rank cannot reach the others' memory" : why);
    return {};
  }

  // Who frees the tensor last frees the mapping of the neighbours' memory with it, at once and with
  // torch's own synchronisation of the device.
  const at::Tensor owner = at::from_blob(
      memory.mutable_data_ptr(), memory.sizes(), [memory, mapping](void*) {}, memory.options());
  allocations_.insert_or_assign(static_cast<const std::byte*>(memory.const_data_ptr()),
                                Allocation{memory.nbytes(), ++allocated_,
                                           owner.storage().getWeakStorageImpl(), mapping.get()});
  return owner;
}

bool PeerMemory::is_on() {
  if (state_ != State::kUntried) return state_ == State::kOn;
  std::string why;
  const bool mine = attempt(
      [&] {
        if (symm::get_backend(device_) != group_.implementation) {
          fail(ErrorCode::kUsage, "torch's symmetric memory for ", device_.type(), " is not ",
               group_.implementation);
        }
        if (!group_.reachable()) fail(ErrorCode::kUsage, "not all devices have peer access");
        return true;
      },
      why);
  if (group_.all_agree(mine)) {
    state_ = State::kOn;
  } else {
    refuse(why.empty() ? "another rank sees no way to reach the others' memory" : why);
  }
  return state_ == State::kOn;
}

void PeerMemory::refuse(std::string why) {
  state_ = State::kOff;
  refusal_ = std::move(why);
}

// Before new memory takes a place that was freed, so that ranges never overlap.
void PeerMemory::forget_freed() {
  std::erase_if(allocations_, [](const auto& entry) { return entry.second.storage.expired(); });
}

std::optional<PeerMemory::Place> PeerMemory::find(const at::Tensor& tensor) const {
  if (tensor.numel() == 0 || !tensor.is_non_overlapping_and_dense()) return {};
  const auto* begin = static_cast<const std::byte*>(tensor.const_data_ptr());
  auto entry = allocations_.upper_bound(begin);
  if (entry == allocations_.begin()) return {};
  --entry;
  const Allocation& allocation = entry->second;
  const std::size_t offset = begin - entry->first;
  if (offset + tensor.nbytes() > allocation.bytes || offset % tensor.element_size() != 0) return {};
  auto storage = allocation.storage.lock();
  if (!storage) return {};
  return Place{std::move(storage), allocation.mapping, allocation.number, offset};
}

std::string PeerMemory::place_of(const at::Tensor& tensor) const {
  const auto place = find(tensor);
  return place ? concat("allocation ", place->allocation, " + ", place->offset, " bytes") : "";
}

std::byte* PeerMemory::address_at(int rank, const at::Tensor& tensor) const {
  const auto place = find(tensor);
  TORCH_CHECK(place, "a tensor is not in registered memory");
  const at::Tensor there = place->mapping->get_buffer(rank, {tensor.numel()}, tensor.scalar_type(),
                                                      place->offset / tensor.element_size());
  return static_cast<std::byte*>(there.mutable_data_ptr());
}

bool PeerMemory::serves(const std::vector<at::Tensor>& inputs, bool of_topology) const {
  if (!of_topology || state_ != State::kOn) return false;
  const auto is_empty = [](const at::Tensor& input) { return input.numel() == 0; };
  return !std::all_of(inputs.begin(), inputs.end(), is_empty) &&
         std::all_of(inputs.begin(), inputs.end(),
                     [&](const at::Tensor& input) { return is_empty(input) || find(input); });
}

// Why no signal is mixed up or left over, and nobody waits forever. A flag is put and awaited
// within one operation, by the two ends of one edge of its graph: i's `ready` for j by an i that
// then waits for j's `done`, which j puts after it took `ready` down. So i leaves an operation with
// all `ready` flags it put down again; and when j puts `done` for i once more, it has seen i's
// `ready` of that operation, put after i took the last `done` down. So no put ever waits, and a
// flag that is up is of the operation that waits for it, whoever the neighbours in between were.
// Puts come before waits, so by induction over the operations, all ranks reach each wait's put.
void PeerMemory::exchange(const PeerRound& round, const Combine& combine) const {
  const auto& [plan, inputs, outputs, channel_base, timeout] = round;
  for (const Edge& destination : plan.destinations()) {
    if (destination.weight != 1) {
      fail(ErrorCode::kUsage, plan.describe(), " scales what it sends, which is read in place");
    }
  }
  std::vector<std::optional<Place>> places;
  symm::SymmetricMemory* pad = nullptr;  // the first input's: the same on all ranks, as places are
  for (const at::Tensor& input : inputs) {
    places.push_back(find(input));
    TORCH_CHECK(places.back() || input.numel() == 0, "an input is not in registered memory");
    if (!pad && places.back()) pad = places.back()->mapping;
  }
  TORCH_CHECK(pad && pad->get_rank() == plan.rank() && pad->get_world_size() == plan.size(),
              "the operation is not of this group: ", plan.describe());

  std::vector<at::Tensor> arrivals;
  for (const Edge& source : plan.sources()) {
    for (std::size_t t = 0; t < inputs.size(); ++t) {
      const at::Tensor& input = inputs[t];
      arrivals.push_back(places[t] ? places[t]->mapping->get_buffer(
                                         source.rank, {input.numel()}, input.scalar_type(),
                                         places[t]->offset / input.element_size())
                                   : input.flatten());
    }
  }

  // Neighbours read an input until they are done, so the result waits beside it until then.
  std::vector<at::Tensor> results;
  for (std::size_t t = 0; t < outputs.size(); ++t) {
    const bool in_place = outputs[t].const_data_ptr() == inputs[t].const_data_ptr();
    results.push_back(in_place && !plan.destinations().empty() ? at::empty_like(outputs[t])
                                                               : outputs[t]);
  }

  const Channel ready(*pad, channel_base, timeout);
  const Channel done(*pad, channel_base + 1, timeout);
  ready.put(plan.destinations());
  ready.wait(plan.sources());
  combine(results, inputs, arrivals, weights_of(plan));
  done.put(plan.sources());
  done.wait(plan.destinations());
  const at::AutoDispatchBelowADInplaceOrView unseen_by_autograd;
  for (std::size_t t = 0; t < outputs.size(); ++t) {
    if (!results[t].is_same(outputs[t])) outputs[t].copy_(results[t], /*non_blocking=*/true);
  }
}

}  // namespace bluefog::device
