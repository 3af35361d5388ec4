// Standard collectives of a group whose ranks are all on one host, over its shared memory.
//
// Each is a task like a neighbor operation, on a plan that joins all ranks or one root with all
// others; so what is said there of disagreement, deadlines, deaths and aborts holds here too.
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "backend/bluefog_backend.h"
#include "backend/call.h"
#include "backend/schema.h"
#include "backend/shares.h"
#include "backend/work.h"

namespace bluefog {
namespace {

using Place = PlaceSink::Place;
using RedOp = c10d::ReduceOp::RedOpType;

// An all_reduce up to this size is one exchange, in which every rank sums everything. Two ranks
// move no more bytes that way than in two exchanges.
constexpr std::size_t sums_all_up_to(int ranks) { return ranks == 2 ? 1 << 20 : 64 << 10; }

bool is_dense(const at::Tensor& tensor) {
  return tensor.defined() && tensor.is_cpu() && tensor.layout() == at::kStrided &&
         !tensor.is_quantized();
}

bool is_like(const at::Tensor& tensor, const at::Tensor& other) {
  return is_dense(tensor) && tensor.scalar_type() == other.scalar_type() &&
         tensor.sizes() == other.sizes();
}

bool is_flat_of(const at::Tensor& tensor, const at::Tensor& part, int count) {
  return is_dense(tensor) && tensor.scalar_type() == part.scalar_type() &&
         tensor.numel() == part.numel() * count;
}

// The type in which an operation sums this tensor; nothing where that is left to Gloo.
std::optional<DType> summed(RedOp op, const at::Tensor& tensor) {
  return op == RedOp::SUM || op == RedOp::AVG ? summed_as(tensor.scalar_type()) : std::nullopt;
}

const char* name_of(RedOp op) { return op == RedOp::AVG ? " (mean)" : " (sum)"; }

// Where the result for `output` is to be written: a stand-in where it has other strides.
at::Tensor result_for(const at::Tensor& output) {
  return is_packed(output) ? output : at::empty(output.sizes(), output.options());
}

// Modes belong to the caller's thread; this may be another one.
void write_back(const at::Tensor& output, const at::Tensor& result) {
  if (is_packed(output)) return;
  std::optional<c10::InferenceMode> inference;
  if (output.is_inference()) inference.emplace();
  const at::NoGradGuard no_grad;
  output.copy_(result);
}

bool overlap(const std::byte* a, const std::byte* b, std::size_t nbytes) {
  return a < b + nbytes && b < a + nbytes;
}

}  // namespace

WorkPtr BluefogBackend::host_allreduce(const Tensors& tensors, const c10d::AllreduceOptions& opts) {
  const How how{opts.timeout, opts.asyncOp};
  if (tensors.size() != 1 || !is_dense(tensors[0])) return nullptr;
  const at::Tensor& tensor = tensors[0];
  const RedOp op = opts.reduceOp;
  const auto dtype = summed(op, tensor);
  if (!dtype || !host_collectives_) return nullptr;

  const at::Tensor own = packed(tensor);
  std::byte* const data = mutable_bytes_of(own);
  const std::size_t nbytes = own.nbytes();
  Task task;
  task.frame = make_flat_frame(Operation::kAllreduce, own.scalar_type(), own.numel(), name_of(op));
  task.plan = op == RedOp::AVG ? host_plans_.mean : host_plans_.sum;
  if (nbytes <= sums_all_up_to(getSize())) {
    task.payload.add(data, nbytes);
    task.sink = std::make_unique<CombineSink>(
        std::vector<CombineSink::Part>{{0, nbytes, *dtype, data, data}}, getRank());
  } else {
    sum_in_shares(task, *dtype, data, nbytes);
  }
  return start_on_host(
      {std::move(task), c10d::OpType::ALLREDUCE, "bluefog:all_reduce", tensors,
       std::make_shared<const Tensors>(tensors), [tensor, own] { write_back(tensor, own); }},
      how);
}

WorkPtr BluefogBackend::host_broadcast(const Tensors& tensors, const c10d::BroadcastOptions& opts) {
  const How how{opts.timeout, opts.asyncOp};
  const bool fits = tensors.size() == 1 && is_dense(tensors[0]) && opts.rootTensor == 0 &&
                    opts.rootRank >= 0 && opts.rootRank < getSize();
  if (!fits || !host_collectives_) return nullptr;

  const at::Tensor& tensor = tensors[0];
  const bool is_root = opts.rootRank == getRank();
  const at::Tensor own = is_root ? packed(tensor) : result_for(tensor);
  Task task;
  task.frame = make_flat_frame(Operation::kBroadcast, own.scalar_type(), own.numel());
  task.plan = host_plans_.roots[opts.rootRank];
  std::vector<std::vector<Place>> places;
  if (is_root) {
    task.payload.add(bytes_of(own), own.nbytes());
    task.payload.steady = true;
  } else {
    places.push_back({{0, own.nbytes(), mutable_bytes_of(own)}});
  }
  task.sink = std::make_unique<PlaceSink>(std::move(places));
  return start_on_host({std::move(task), c10d::OpType::BROADCAST, "bluefog:broadcast", tensors,
                        std::make_shared<const Tensors>(tensors),
                        [tensor, own, is_root] {
                          if (!is_root) write_back(tensor, own);
                        }},
                       how);
}

WorkPtr BluefogBackend::host_allgather(const Tensors& outputs, const at::Tensor& input, How how) {
  const int n = getSize();
  const bool listed =
      outputs.size() == static_cast<std::size_t>(n) && is_dense(input) &&
      std::all_of(outputs.begin(), outputs.end(), [&](auto& t) { return is_like(t, input); });
  const bool flat = outputs.size() == 1 && is_dense(input) && is_flat_of(outputs[0], input, n);
  if (!(listed || flat) || !host_collectives_) return nullptr;

  Tensors results;
  std::vector<std::byte*> to;  // by rank
  for (const at::Tensor& output : outputs) {
    results.push_back(result_for(output));
    to.push_back(mutable_bytes_of(results.back()));
  }
  at::Tensor own = packed(input);
  const std::size_t nbytes = own.nbytes();
  for (int rank = 1; flat && rank < n; ++rank) to.push_back(to[0] + rank * nbytes);
  // It may be its own place in the output; elsewhere it would be overwritten before it is sent.
  const bool in_place = bytes_of(own) == to[getRank()];
  if (!in_place && std::any_of(to.begin(), to.end(),
                               [&](auto* at) { return overlap(at, bytes_of(own), nbytes); })) {
    own = own.clone();
  }
  Task task;
  task.frame = make_flat_frame(Operation::kAllgather, own.scalar_type(), own.numel());
  task.plan = host_plans_.sum;
  task.payload.add(bytes_of(own), nbytes);
  task.payload.steady = true;
  std::vector<std::vector<Place>> places;
  for (const Edge& source : task.plan->sources()) places.push_back({{0, nbytes, to[source.rank]}});
  task.sink = std::make_unique<PlaceSink>(std::move(places));
  auto deliver = [outputs, results, own, nbytes, place = to[getRank()]] {
    if (nbytes > 0 && bytes_of(own) != place) std::memcpy(place, bytes_of(own), nbytes);
    for (std::size_t i = 0; i < outputs.size(); ++i) write_back(outputs[i], results[i]);
  };
  return start_on_host({std::move(task),
                        c10d::OpType::ALLGATHER,
                        "bluefog:all_gather",
                        {input},
                        std::make_shared<const Tensors>(outputs),
                        std::move(deliver)},
                       how);
}

WorkPtr BluefogBackend::host_reduce_scatter(const at::Tensor& output, const Tensors& inputs,
                                            const c10d::ReduceScatterOptions& opts) {
  const How how{opts.timeout, opts.asyncOp};
  const int n = getSize();
  const RedOp op = opts.reduceOp;
  if (!is_dense(output)) return nullptr;
  const bool listed =
      inputs.size() == static_cast<std::size_t>(n) &&
      std::all_of(inputs.begin(), inputs.end(), [&](auto& t) { return is_like(t, output); });
  const bool flat = inputs.size() == 1 && is_flat_of(inputs[0], output, n);
  const auto dtype = summed(op, output);
  if (!(listed || flat) || !dtype || !host_collectives_) return nullptr;

  const std::size_t nbytes = output.nbytes();
  at::Tensor result = result_for(output);
  mutable_bytes_of(result);  // gives it memory of its own, before the inputs' is looked at
  Tensors own;
  Task task;
  for (const at::Tensor& input : inputs) {
    own.push_back(packed(input));
    for (int part = 0; part < (flat ? n : 1); ++part) {
      task.payload.add(bytes_of(own.back()) + part * nbytes, nbytes);
    }
  }
  // It may be this rank's own part; other parts would be overwritten before they are sent.
  const auto& segments = task.payload.segments();
  const auto& mine = segments[getRank()];
  const bool in_place = mine.data == bytes_of(result);
  const bool clash = !in_place && std::any_of(segments.begin(), segments.end(), [&](auto& segment) {
    return overlap(segment.data, bytes_of(result), nbytes);
  });
  if (clash) result = at::empty(output.sizes(), output.options());
  task.payload.steady = !in_place;
  task.frame = make_flat_frame(Operation::kReduceScatter, output.scalar_type(), output.numel() * n,
                               name_of(op));
  task.plan = op == RedOp::AVG ? host_plans_.mean : host_plans_.sum;
  task.sink = std::make_unique<CombineSink>(
      std::vector<CombineSink::Part>{
          {mine.offset, nbytes, *dtype, mine.data, mutable_bytes_of(result)}},
      getRank());
  auto deliver = [output, result, own, clash] {
    if (clash) std::memcpy(mutable_bytes_of(output), bytes_of(result), result.nbytes());
    if (!clash) write_back(output, result);
  };
  return start_on_host(
      {std::move(task), c10d::OpType::REDUCE_SCATTER, "bluefog:reduce_scatter", inputs,
       std::make_shared<const Tensors>(Tensors{output}), std::move(deliver)},
      how);
}

WorkPtr BluefogBackend::host_barrier(const c10d::BarrierOptions& opts) {
  const How how{opts.timeout, opts.asyncOp};
  if (!host_collectives_) return nullptr;
  Task task;
  task.frame = make_flat_frame(Operation::kBarrier, at::kByte, 0);
  task.plan = host_plans_.sum;
  task.sink = std::make_unique<PlaceSink>(std::vector<std::vector<Place>>(getSize() - 1));
  return start_on_host({std::move(task),
                        c10d::OpType::BARRIER,
                        "bluefog:barrier",
                        {},
                        std::make_shared<const Tensors>(),
                        [] {}},
                       how);
}

// An error of a call that is not async comes from wait() too, as with Gloo.
WorkPtr BluefogBackend::start_on_host(Call call, How how) {
  call.task.timeout = how.timeout == c10d::kUnsetTimeout ? options_->timeout : how.timeout;
  const WorkPtr work = with_work(call);
  Executor& runner = executor();
  how.async ? runner.submit(std::move(call.task)) : runner.run(std::move(call.task));
  if (coalescing_) coalesced_.push_back(work);
  return work;
}

}  // namespace bluefog
