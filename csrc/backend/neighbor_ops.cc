// From tensors to tasks for the executor, and back.
#include <ATen/MemoryOverlap.h>
#include <ATen/record_function.h>
#include <c10/core/InferenceMode.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "backend/bluefog_backend.h"
#include "backend/call.h"
#include "backend/schema.h"
#include "backend/work.h"
#include "base/error.h"

namespace bluefog {
namespace {

const char* const kTitleAllreduce = "bluefog:neighbor_allreduce";
const char* const kTitleAllgather = "bluefog:neighbor_allgather";

// The tensors of one averaging, kept alive until its Work is complete.
struct Averaging {
  Tensors inputs;   // packed
  Tensors outputs;  // the user's
  Tensors results;  // packed: an output itself, or a stand-in for one with other strides

  // Autograd learns of the writing, as it does for any in-place operation. Modes belong to the
  // caller's thread; this may be another one.
  void deliver() {
    for (std::size_t t = 0; t < outputs.size(); ++t) {
      std::optional<c10::InferenceMode> inference;
      if (outputs[t].is_inference()) inference.emplace();
      const at::NoGradGuard no_grad;
      if (results[t].unsafeGetTensorImpl() != outputs[t].unsafeGetTensorImpl()) {
        outputs[t].copy_(results[t]);
      } else if (!outputs[t].is_inference()) {
        outputs[t].unsafeGetTensorImpl()->bump_version();
      }
    }
  }
};

void check_output(const at::Tensor& input, const at::Tensor& output, std::size_t index) {
  TORCH_CHECK_VALUE(output.sizes() == input.sizes() &&
                        output.scalar_type() == input.scalar_type() &&
                        output.layout() == at::kStrided && output.device() == input.device(),
                    "neighbor_allreduce: output ", index, " is ", dtype_name(output.scalar_type()),
                    output.sizes(), " on ", output.device(), ", but input ", index, " is ",
                    dtype_name(input.scalar_type()), input.sizes(), " on ", input.device());
  TORCH_CHECK_VALUE(at::has_internal_overlap(output) != at::MemOverlap::Yes,
                    "neighbor_allreduce: output ", index,
                    " has several elements in one place (an expanded tensor?); give it memory of "
                    "its own with .contiguous()");
}

void check_gathered(const at::Tensor& input, const at::Tensor& out) {
  TORCH_CHECK_VALUE(
      out.scalar_type() == input.scalar_type() && out.device() == input.device() && is_packed(out),
      "neighbor_allgather: out must be a contiguous ", dtype_name(input.scalar_type()),
      " tensor on ", input.device(), " as the input is, got ", dtype_name(out.scalar_type()),
      out.sizes(), " on ", out.device(), is_packed(out) ? "" : ", not contiguous");
  const auto overlap = at::get_overlap_status(input, out);
  TORCH_CHECK_VALUE(overlap == at::MemOverlapStatus::No || input.numel() == 0 || out.numel() == 0,
                    "neighbor_allgather: out shares memory with the input");
}

// An output may take the place of its own input, and of nothing else: other memory would be
// overwritten before it is sent, or twice.
void check_aliases(const std::vector<CombineSink::Part>& parts) {
  struct Range {
    const std::byte* begin;
    const std::byte* end;
    bool written;
    std::size_t tensor;
  };
  std::vector<Range> ranges;
  for (std::size_t t = 0; t < parts.size(); ++t) {
    const auto& [offset, nbytes, dtype, x, y] = parts[t];
    if (nbytes == 0) continue;
    ranges.push_back({y, y + nbytes, true, t});
    if (x != y) ranges.push_back({x, x + nbytes, false, t});
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  auto name = [](const Range& range) {
    return concat(range.written ? "output " : "input ", range.tensor);
  };
  const Range* furthest[2] = {nullptr, nullptr};  // which ends last, of those read and written
  for (const Range& range : ranges) {
    for (const Range* other : furthest) {
      TORCH_CHECK_VALUE(!other || other->end <= range.begin || !(other->written || range.written),
                        "neighbor_allreduce: ", name(range), " shares memory with ", name(*other),
                        "; an output may be its own input, and share nothing with other tensors");
    }
    const Range*& last = furthest[range.written];
    if (!last || last->end < range.end) last = &range;
  }
}

}  // namespace

void BluefogBackend::check_neighbor_tensor(const char* operation, const at::Tensor& tensor) const {
  TORCH_CHECK_VALUE(tensor.defined(), operation, " got an undefined tensor");
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, operation, " takes dense tensors, got layout ",
                    tensor.layout(), "; convert it with .to_dense()");
  TORCH_CHECK_VALUE(!tensor.is_quantized(), operation,
                    " takes plain tensors, got a quantized one; .dequantize() it");
  TORCH_CHECK_VALUE(!tensor.is_meta(), operation,
                    " got a tensor on the meta device, which has no data");
  TORCH_CHECK_VALUE(tensor.is_cpu(), operation, " serves tensors on cpu, got one on ",
                    tensor.device(),
                    "; neighbor operations have no CUDA transport yet, standard collectives do");
}

BluefogBackend::Started BluefogBackend::neighborAllreduce(Tensors inputs,
                                                          std::optional<Tensors> given,
                                                          std::shared_ptr<const Plan> plan,
                                                          int64_t round, bool async) {
  TORCH_CHECK_VALUE(!given || given->size() == inputs.size(), "neighbor_allreduce got ",
                    inputs.size(), " tensors and ", given->size(), " outputs");
  Tensors outputs = given.value_or(Tensors());
  auto averaging = std::make_shared<Averaging>();
  Task task;
  std::vector<CombineSink::Part> parts;
  for (std::size_t t = 0; t < inputs.size(); ++t) {
    check_neighbor_tensor("neighbor_allreduce", inputs[t]);
    if (!given) outputs.push_back(at::empty_like(inputs[t]));
    check_output(inputs[t], outputs[t], t);
    const auto dtype = summed_as(inputs[t].scalar_type());
    TORCH_CHECK_TYPE(dtype.has_value(),
                     "neighbor_allreduce averages float16, bfloat16, float32 and float64, got ",
                     dtype_name(inputs[t].scalar_type()), "; convert it with .float() first");
    const at::Tensor input = averaging->inputs.emplace_back(packed(inputs[t]));
    const at::Tensor result = averaging->results.emplace_back(
        is_packed(outputs[t]) ? outputs[t] : at::empty(input.sizes(), input.options()));
    task.payload.add(input.const_data_ptr(), input.nbytes());
    parts.push_back({task.payload.segments().back().offset, input.nbytes(), *dtype, bytes_of(input),
                     mutable_bytes_of(result)});
  }
  check_aliases(parts);
  task.payload.steady =
      std::none_of(parts.begin(), parts.end(), [](auto& part) { return part.x == part.y; });
  task.frame = make_frame(Operation::kNeighborAllreduce, averaging->inputs, round);
  task.plan = std::move(plan);
  task.sink = std::make_unique<CombineSink>(std::move(parts));
  averaging->outputs = std::move(outputs);
  return start({std::move(task),
                c10d::OpType::UNKNOWN,
                kTitleAllreduce,
                averaging->inputs,
                {averaging, &averaging->outputs},
                [averaging] { averaging->deliver(); }},
               async);
}

BluefogBackend::Started BluefogBackend::neighborAllgather(const at::Tensor& tensor,
                                                          std::optional<at::Tensor> out,
                                                          std::shared_ptr<const Plan> plan,
                                                          int64_t round, bool async) {
  check_neighbor_tensor("neighbor_allgather", tensor);
  const at::Tensor input = packed(tensor);
  if (out) check_gathered(input, *out);
  Task task;
  task.payload.add(input.const_data_ptr(), input.nbytes());
  task.payload.steady = true;
  task.frame = make_frame(Operation::kNeighborAllgather, {input}, round);
  task.plan = std::move(plan);
  const auto outputs = std::make_shared<Tensors>();
  task.sink = std::make_unique<GatherSink>([outputs, input, out](std::span<const int64_t> rows) {
    std::vector<int64_t> sizes = input.dim() == 0 ? std::vector<int64_t>{1} : input.sizes().vec();
    sizes[0] = 0;
    for (int64_t count : rows) sizes[0] += count;
    if (out && out->sizes() != sizes) {
      fail(ErrorCode::kUsage, "neighbor_allgather: out has the shape ", out->sizes(),
           ", but what the in-neighbours bring has ", at::IntArrayRef(sizes));
    }
    *outputs = {out ? *out : at::empty(sizes, input.options())};
    return static_cast<std::byte*>(outputs->front().mutable_data_ptr());
  });
  return start({std::move(task), c10d::OpType::UNKNOWN, kTitleAllgather, {input}, outputs, [] {}},
               async);
}

BluefogBackend::Started BluefogBackend::start(Call call, bool async) {
  auto& [task, type, title, inputs, outputs, deliver] = call;
  TORCH_CHECK_VALUE(task.plan && task.plan->rank() == getRank() && task.plan->size() == getSize(),
                    "rank ", getRank(), " of ", getSize(), " got the plan of rank ",
                    task.plan ? task.plan->rank() : -1, " of ", task.plan ? task.plan->size() : 0);
  task.timeout = options_->timeout;
  Executor& runner = executor();
  if (!async) {
    RECORD_FUNCTION_WITH_SCOPE(at::RecordScope::USER_SCOPE, title,
                               std::vector<c10::IValue>(inputs.begin(), inputs.end()));
    std::exception_ptr failure;
    task.done = [&failure](std::exception_ptr error) { failure = error; };
    runner.run(std::move(task));
    if (failure) std::rethrow_exception(failure);
    deliver();
    return {nullptr, *outputs};
  }
  const auto work = with_work(call);
  runner.submit(std::move(task));
  return {work, {}};
}

// Requires that nothing looks at the call's delivery afterwards: the task has it.
WorkPtr BluefogBackend::with_work(Call& call) {
  auto work = c10::make_intrusive<OperationWork>(getRank(), call.type, call.title, call.inputs,
                                                 call.outputs);
  call.task.done = [work, inputs = call.inputs,
                    deliver = std::move(call.deliver)](std::exception_ptr error) {
    if (!error) {
      try {
        deliver();
      } catch (...) {
        error = std::current_exception();
      }
    }
    work->end(error);
  };
  call.task.after = [work] { work->complete(); };
  return work;
}

}  // namespace bluefog
