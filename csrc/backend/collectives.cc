// Standard collectives: each goes to the inner backend of its tensors' device as it is, unless the
// ranks of one host can do it among themselves.
#include "backend/bluefog_backend.h"

namespace bluefog {
namespace {

at::Device place_of(const at::Tensor& tensor) { return tensor.device(); }

at::Device place_of(const Tensors& tensors) {
  return tensors.empty() ? at::Device(at::kCPU) : tensors[0].device();
}

}  // namespace

WorkPtr BluefogBackend::broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) {
  if (WorkPtr work = host_broadcast(tensors, opts)) return work;
  return forward(place_of(tensors),
                 [&](Backend& backend) { return backend.broadcast(tensors, opts); });
}

WorkPtr BluefogBackend::allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  if (WorkPtr work = host_allreduce(tensors, opts)) return work;
  return forward(place_of(tensors),
                 [&](Backend& backend) { return backend.allreduce(tensors, opts); });
}

WorkPtr BluefogBackend::allreduce_sparse(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  return forward(place_of(tensors),
                 [&](Backend& backend) { return backend.allreduce_sparse(tensors, opts); });
}

WorkPtr BluefogBackend::allreduce_coalesced(Tensors& tensors,
                                            const c10d::AllreduceCoalescedOptions& opts) {
  return forward(place_of(tensors),
                 [&](Backend& backend) { return backend.allreduce_coalesced(tensors, opts); });
}

WorkPtr BluefogBackend::reduce(Tensors& tensors, const c10d::ReduceOptions& opts) {
  return forward(place_of(tensors),
                 [&](Backend& backend) { return backend.reduce(tensors, opts); });
}

WorkPtr BluefogBackend::allgather(std::vector<Tensors>& outputs, Tensors& inputs,
                                  const c10d::AllgatherOptions& opts) {
  if (outputs.size() == 1 && inputs.size() == 1) {
    if (WorkPtr work = host_allgather(outputs[0], inputs[0], {opts.timeout, opts.asyncOp})) {
      return work;
    }
  }
  return forward(place_of(inputs),
                 [&](Backend& backend) { return backend.allgather(outputs, inputs, opts); });
}

WorkPtr BluefogBackend::_allgather_base(at::Tensor& output, at::Tensor& input,
                                        const c10d::AllgatherOptions& opts) {
  if (WorkPtr work = host_allgather({output}, input, {opts.timeout, opts.asyncOp})) return work;
  return forward(place_of(input),
                 [&](Backend& backend) { return backend._allgather_base(output, input, opts); });
}

WorkPtr BluefogBackend::allgather_coalesced(std::vector<Tensors>& outputs, Tensors& inputs,
                                            const c10d::AllgatherOptions& opts) {
  return forward(place_of(inputs), [&](Backend& backend) {
    return backend.allgather_coalesced(outputs, inputs, opts);
  });
}

WorkPtr BluefogBackend::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                        const c10d::AllgatherOptions& opts) {
  return forward(place_of(inputs), [&](Backend& backend) {
    return backend.allgather_into_tensor_coalesced(outputs, inputs, opts);
  });
}

WorkPtr BluefogBackend::gather(std::vector<Tensors>& outputs, Tensors& inputs,
                               const c10d::GatherOptions& opts) {
  return forward(place_of(inputs),
                 [&](Backend& backend) { return backend.gather(outputs, inputs, opts); });
}

WorkPtr BluefogBackend::scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                const c10d::ScatterOptions& opts) {
  return forward(place_of(outputs),
                 [&](Backend& backend) { return backend.scatter(outputs, inputs, opts); });
}

WorkPtr BluefogBackend::reduce_scatter(Tensors& outputs, std::vector<Tensors>& inputs,
                                       const c10d::ReduceScatterOptions& opts) {
  if (outputs.size() == 1 && inputs.size() == 1) {
    if (WorkPtr work = host_reduce_scatter(outputs[0], inputs[0], opts)) return work;
  }
  return forward(place_of(outputs),
                 [&](Backend& backend) { return backend.reduce_scatter(outputs, inputs, opts); });
}

WorkPtr BluefogBackend::_reduce_scatter_base(at::Tensor& output, at::Tensor& input,
                                             const c10d::ReduceScatterOptions& opts) {
  if (WorkPtr work = host_reduce_scatter(output, {input}, opts)) return work;
  return forward(place_of(input), [&](Backend& backend) {
    return backend._reduce_scatter_base(output, input, opts);
  });
}

WorkPtr BluefogBackend::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs,
                                                        const c10d::ReduceScatterOptions& opts) {
  return forward(place_of(inputs), [&](Backend& backend) {
    return backend.reduce_scatter_tensor_coalesced(outputs, inputs, opts);
  });
}

WorkPtr BluefogBackend::alltoall_base(at::Tensor& output, at::Tensor& input,
                                      std::vector<int64_t>& output_splits,
                                      std::vector<int64_t>& input_splits,
                                      const c10d::AllToAllOptions& opts) {
  return forward(place_of(input), [&](Backend& backend) {
    return backend.alltoall_base(output, input, output_splits, input_splits, opts);
  });
}

WorkPtr BluefogBackend::alltoall(Tensors& outputs, Tensors& inputs,
                                 const c10d::AllToAllOptions& opts) {
  return forward(place_of(inputs),
                 [&](Backend& backend) { return backend.alltoall(outputs, inputs, opts); });
}

WorkPtr BluefogBackend::send(Tensors& tensors, int destination, int tag) {
  return forward(place_of(tensors),
                 [&](Backend& backend) { return backend.send(tensors, destination, tag); });
}

WorkPtr BluefogBackend::recv(Tensors& tensors, int source, int tag) {
  return forward(place_of(tensors),
                 [&](Backend& backend) { return backend.recv(tensors, source, tag); });
}

WorkPtr BluefogBackend::recvAnysource(Tensors& tensors, int tag) {
  return forward(place_of(tensors),
                 [&](Backend& backend) { return backend.recvAnysource(tensors, tag); });
}

WorkPtr BluefogBackend::barrier(const c10d::BarrierOptions& opts) {
  const bool on_cuda = (opts.device && opts.device->is_cuda()) || !opts.device_ids.empty();
  if (!on_cuda) {
    if (WorkPtr work = host_barrier(opts)) return work;
  }
  return forward(on_cuda ? at::kCUDA : at::kCPU,
                 [&](Backend& backend) { return backend.barrier(opts); });
}

void BluefogBackend::monitoredBarrier(const c10d::BarrierOptions& opts, bool wait_all_ranks) {
  cpu_->monitoredBarrier(opts, wait_all_ranks);
}

}  // namespace bluefog
