// Neighbor operations on CUDA tensors: what is to be moved and combined, for the device's executor.
//
// Nothing is said among ranks that the host would have to wait for. So, as with NCCL's own
// operations, ranks that disagree on dtype or shape are not found out, except under
// TORCH_DISTRIBUTED_DEBUG=DETAIL.
#include <ATen/ops/empty.h>
#include <torch/csrc/distributed/c10d/debug.h>

#include <algorithm>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <utility>

#include "backend/bluefog_backend.h"
#include "backend/call.h"
#include "base/error.h"
#include "device/combine.h"
#include "transport/nccl/inner_wire.h"

namespace bluefog {
namespace {

// Operations in place follow one another, on whichever streams, so one pair of channels serves
// them. A program's own signals on the group's memory begin at channel 0.
constexpr int kPeerChannel = 16;

}  // namespace

std::unique_ptr<nccl::Wire> BluefogBackend::make_wire(at::Device device) {
  if (!options_->own_communicator) return std::make_unique<nccl::InnerWire>(&inner(device));
  const auto library = makers_.nccl();
  return std::make_unique<nccl::OwnWire>(
      library->nccl, c10::make_intrusive<c10d::PrefixStore>("nccl", store_),
      nccl::OwnWire::Options{.rank = getRank(),
                             .size = getSize(),
                             .connect_timeout = options_->timeout,
                             .degree = options_->max_neighbors,
                             .name = concat("bluefog ", options_->group_name),
                             .high_priority = options_->high_priority,
                             .hooks = library->hooks});
}

// Memory on another device than the first is not shared.
device::PeerMemory& BluefogBackend::peers(at::Device device) {
  if (!peers_) {
    peers_.emplace(
        device,
        device::PeerGroup{
            .name = options_->group_name,
            .reachable = [this] { return on_one_host(); },
            .all_agree = [this](bool yes) { return over_all_ranks(yes, c10d::ReduceOp::MIN) == 1; },
        });
  }
  return *peers_;
}

// Collective at the first time.
bool BluefogBackend::on_one_host() {
  executor();
  return std::ranges::all_of(transport_names_,
                             [](auto& name) { return name == "shm" || name == "self"; });
}

at::Tensor BluefogBackend::allocateShared(int64_t size, at::ScalarType dtype, at::Device device) {
  const auto options = at::TensorOptions(device).dtype(dtype);
  if (device.is_cuda() && options_->symmetric_memory) {
    at::Tensor memory = peers(device).allocate(size, options);
    if (memory.defined()) return memory;
  }
  return allocateTensor(size, options);
}

std::string BluefogBackend::symmetricMemoryRefusal() const {
  if (!options_->symmetric_memory) return "symmetric_memory=False";
  return peers_ ? peers_->refusal() : "";
}

BluefogBackend::Started BluefogBackend::average_on_device(std::shared_ptr<Averaging> averaging,
                                                          Task task, bool async) {
  check_plan(task.plan.get());
  const at::Device device = averaging->inputs[0].device();
  const c10::OptionalDeviceGuard guard(device);
  device::Operation operation{"neighbor_allreduce", kTitleAllreduce,    device,
                              averaging->inputs,    averaging->outputs, task.plan};
  operation.scratch = averaging->results;
  // A narrower payload is made at each call, in memory that nobody else reaches.
  if (peers_ && !averaging->narrow && peers_->serves(averaging->inputs, task.frame.round >= 0)) {
    operation.read_in_place = true;
    operation.finish = [this, averaging, plan = task.plan] {
      peers_->exchange(
          {*plan, averaging->inputs, averaging->results, kPeerChannel, options_->timeout},
          device::combine_terms);
      averaging->deliver();
    };
    return start_on_device(std::move(operation), std::move(task), async);
  }
  operation.sent = averaging->sent;
  operation.arrivals = averaging->make_arrivals(*task.plan);
  operation.finish = [averaging, plan = task.plan, arrivals = operation.arrivals] {
    averaging->combine(*plan, arrivals);
    averaging->deliver();
  };
  return start_on_device(std::move(operation), std::move(task), async);
}

BluefogBackend::Started BluefogBackend::gather_on_device(const at::Tensor& input,
                                                         std::optional<at::Tensor> out, Task task,
                                                         bool async) {
  check_plan(task.plan.get());
  const c10::OptionalDeviceGuard guard(input.device());
  const int64_t rows = input.dim() == 0 ? 1 : input.size(0);
  const auto sources = static_cast<int64_t>(task.plan->sources().size());
  std::vector<int64_t> sizes = input.dim() == 0 ? std::vector<int64_t>{1} : input.sizes().vec();
  sizes[0] = rows * sources;
  TORCH_CHECK_VALUE(!out || out->sizes() == sizes, "neighbor_allgather: out has the shape ",
                    out ? out->sizes() : at::IntArrayRef(), ", but ", sources,
                    " in-neighbours with tensors like this rank's bring ", at::IntArrayRef(sizes));
  const at::Tensor gathered = out ? *out : at::empty(sizes, input.options());
  device::Operation operation{"neighbor_allgather", kTitleAllgather, input.device(), {input},
                              {gathered},           task.plan};
  operation.sent = {input};
  for (int64_t j = 0; j < sources; ++j) {
    operation.arrivals.push_back({gathered.detach().narrow(0, j * rows, rows)});
  }
  operation.finish = [] {};
  return start_on_device(std::move(operation), std::move(task), async);
}

BluefogBackend::Started BluefogBackend::start_on_device(device::Operation operation, Task task,
                                                        bool async) {
  check_process();
  if (closed_) {
    fail(ErrorCode::kAborted, "rank ", getRank(), "'s process group has been destroyed or aborted");
  }
  operation.timeout = options_->timeout;
  if (c10d::debug_level() == c10d::DebugLevel::Detail) {
    if (operation.read_in_place) {
      std::vector<std::string> places;
      for (const auto& input : operation.inputs) places.push_back(peers_->place_of(input));
      add_places(task.frame, places);
    }
    agree_on_host(std::move(task));
  }
  Tensors outputs = operation.outputs;
  WorkPtr work = device_->run(std::move(operation), async);
  return {work, work ? Tensors() : std::move(outputs)};
}

// An exchange of headers between the hosts of neighbours, with no payload: throws what the same
// operation on the CPU would throw. If it throws on one rank it does on all: whoever went on would
// be a round ahead of its neighbours.
void BluefogBackend::agree_on_host(Task task) {
  const char* const name = name_of(task.frame.operation);
  task.payload = {};
  task.sink = std::make_unique<CombineSink>(std::vector<CombineSink::Part>());
  task.timeout = options_->timeout;
  std::exception_ptr failure;
  task.done = [&failure](std::exception_ptr error) { failure = error; };
  executor().run(std::move(task));
  bool all_agree = false;
  try {
    all_agree = over_all_ranks(!failure, c10d::ReduceOp::MIN) == 1;
  } catch (const std::exception&) {  // of a rank that does not come
    if (!failure) throw;
  }
  if (failure) std::rethrow_exception(failure);
  if (!all_agree) {
    fail(ErrorCode::kMismatch, name, " on rank ", getRank(),
         ": other ranks do not agree with their neighbours, and say why");
  }
}

}  // namespace bluefog
