// From tensors to tasks for the executor, and back.
#include <ATen/record_function.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <utility>

#include "backend/bluefog_backend.h"
#include "backend/call.h"
#include "backend/neighbor_checks.h"
#include "backend/payload_dtype.h"
#include "backend/schema.h"
#include "backend/work.h"
#include "base/error.h"
#include "device/combine.h"

namespace bluefog {
namespace {

// For streams that are made up like this rank's own.
std::unique_ptr<Sink> sink_into(const std::vector<Tensors>& arrivals, const Payload& own) {
  std::vector<std::vector<PlaceSink::Place>> places;
  for (const Tensors& of_source : arrivals) {
    std::vector<PlaceSink::Place>& to = places.emplace_back();
    for (std::size_t t = 0; t < of_source.size(); ++t) {
      const auto& [data, nbytes, offset] = own.segments()[t];
      to.push_back({offset, nbytes, mutable_bytes_of(of_source[t])});
    }
  }
  return std::make_unique<PlaceSink>(std::move(places));
}

}  // namespace

BluefogBackend::Started BluefogBackend::neighborAllreduce(Tensors inputs,
                                                          std::optional<Tensors> given,
                                                          std::shared_ptr<const Plan> plan,
                                                          AverageOptions options) {
  const auto& [round, async, payload] = options;
  check_plan(plan.get());
  if (payload) check_unscaled(*plan);
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
    TORCH_CHECK_VALUE(inputs[t].device() == inputs[0].device(), "neighbor_allreduce: input ", t,
                      " is on ", inputs[t].device(), ", but input 0 is on ", inputs[0].device(),
                      "; one call serves one device");
    const auto dtype = summed_as(inputs[t].scalar_type());
    TORCH_CHECK_TYPE(dtype.has_value(),
                     "neighbor_allreduce averages float16, bfloat16, float32 and float64, got ",
                     dtype_name(inputs[t].scalar_type()), "; convert it with .float() first");
    const at::Tensor input = averaging->inputs.emplace_back(packed(inputs[t]));
    const at::Tensor result = averaging->results.emplace_back(
        is_packed(outputs[t]) ? outputs[t] : at::empty(input.sizes(), input.options()));
    if (payload) check_payload(input, *payload, t);
    const at::Tensor sent =
        averaging->sent.emplace_back(payload ? rounded(input, *payload) : input);
    task.payload.add(sent.const_data_ptr(), sent.nbytes());
    parts.push_back({task.payload.segments().back().offset, input.nbytes(), *dtype, bytes_of(input),
                     mutable_bytes_of(result)});
  }
  check_aliases(parts);
  averaging->narrow = payload.has_value();
  task.payload.steady = payload || std::none_of(parts.begin(), parts.end(),
                                                [](auto& part) { return part.x == part.y; });
  task.frame = make_frame(Operation::kNeighborAllreduce, averaging->inputs, round, payload);
  task.plan = std::move(plan);
  averaging->outputs = std::move(outputs);
  if (!inputs.empty() && inputs[0].is_cuda()) {
    return average_on_device(std::move(averaging), std::move(task), async);
  }
  std::function<void()> deliver = [averaging] { averaging->deliver(); };
  if (payload) {
    auto arrivals = averaging->make_arrivals(*task.plan);
    task.sink = sink_into(arrivals, task.payload);
    deliver = [averaging, arrivals = std::move(arrivals), plan = task.plan] {
      averaging->combine(*plan, arrivals);
      averaging->deliver();
    };
  } else {
    task.sink = std::make_unique<CombineSink>(std::move(parts));
  }
  return start({std::move(task),
                c10d::OpType::UNKNOWN,
                kTitleAllreduce,
                averaging->inputs,
                {averaging, &averaging->outputs},
                std::move(deliver)},
               async);
}

std::vector<Tensors> BluefogBackend::Averaging::make_arrivals(const Plan& plan) const {
  std::vector<Tensors> arrivals(plan.sources().size());
  for (Tensors& of_source : arrivals) {
    for (const at::Tensor& tensor : sent) of_source.push_back(at::empty_like(tensor));
  }
  return arrivals;
}

void BluefogBackend::Averaging::combine(const Plan& plan,
                                        const std::vector<Tensors>& arrivals) const {
  Tensors terms = narrow ? sent : Tensors();
  for (const Tensors& of_source : arrivals) {
    terms.insert(terms.end(), of_source.begin(), of_source.end());
  }
  device::combine_terms(results, inputs, terms,
                        narrow ? difference_weights_of(plan) : device::weights_of(plan));
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
  if (input.is_cuda()) return gather_on_device(input, std::move(out), std::move(task), async);
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

void BluefogBackend::check_plan(const Plan* plan) const {
  TORCH_CHECK_VALUE(plan && plan->rank() == getRank() && plan->size() == getSize(), "rank ",
                    getRank(), " of ", getSize(), " got the plan of rank ",
                    plan ? plan->rank() : -1, " of ", plan ? plan->size() : 0);
}

BluefogBackend::Started BluefogBackend::start(Call call, bool async) {
  auto& [task, type, title, inputs, outputs, deliver] = call;
  check_plan(task.plan.get());
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
