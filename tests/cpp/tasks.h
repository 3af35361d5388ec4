// Neighbor operations on vectors of numbers, for tests of the executor.
#pragma once

#include <future>
#include <memory>
#include <vector>

#include "backend/executor.h"
#include "graphs.h"
#include "ranks.h"

namespace bluefog::test {

/// Tells of a task's end; may be asked while the task runs.
class Outcome {
 public:
  /// What Task::done is to call; a second call is a failure of the test.
  std::function<void(std::exception_ptr)> callback() {
    return [this](std::exception_ptr error) {
      ++calls;
      thread = std::this_thread::get_id();
      promise_.set_value(error);  // throws when called twice
    };
  }

  bool ready() const { return future_.wait_for(milliseconds(0)) == std::future_status::ready; }

  /// Waits for the end; the error, or no code for success.
  Caught get() {
    if (future_.wait_for(kPlenty) != std::future_status::ready) {
      return {ErrorCode::kTimeout, "the task did not end"};
    }
    return describe(future_.get());
  }

  std::atomic<int> calls{0};
  std::thread::id thread;  // that called; set before get() returns

 private:
  std::promise<std::exception_ptr> promise_;
  std::shared_future<std::exception_ptr> future_{promise_.get_future()};
};

/// A frame for n float32 values; tests change what neighbours are to disagree about.
inline Frame frame_of(std::size_t n) {
  Frame frame;
  frame.tensors = 1;
  frame.schema = n;
  concat("float32[", n, "]").copy(frame.text, Frame::kTextSize - 1);
  return frame;
}

using Done = std::function<void(std::exception_ptr)>;

/// y = w0 * x + ..., where y may be x.
inline Task averaging(const Plan& plan, const std::vector<float>& x, std::vector<float>& y,
                      Done done, milliseconds timeout = kPlenty) {
  Task task;
  task.frame = frame_of(x.size());
  task.plan = std::make_shared<const Plan>(plan);
  const std::size_t nbytes = x.size() * sizeof(float);
  task.payload.add(x.data(), nbytes);
  task.sink = std::make_unique<CombineSink>(std::vector<CombineSink::Part>{
      {0, nbytes, DType::kFloat32, reinterpret_cast<const std::byte*>(x.data()),
       reinterpret_cast<std::byte*>(y.data())}});
  task.timeout = timeout;
  task.done = std::move(done);
  return task;
}

inline Task averaging(const Plan& plan, const std::vector<float>& x, std::vector<float>& y,
                      Outcome& outcome, milliseconds timeout = kPlenty) {
  return averaging(plan, x, y, outcome.callback(), timeout);
}

/// rank + i modulo 1024 + 1: sums of a few are exact, and no two ranks look alike.
inline std::vector<float> values(int rank, std::size_t n) {
  std::vector<float> x(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(rank * 1024 + i % 1024 + 1);
  return x;
}

/// The sum of values() over this rank and its sources: what plans of graphs.h give.
inline std::vector<float> expected_sum(const Plan& plan, std::size_t n) {
  std::vector<float> sum = values(plan.rank(), n);
  for (const Edge& source : plan.sources()) {
    const auto more = values(source.rank, n);
    for (std::size_t i = 0; i < n; ++i) sum[i] += more[i];
  }
  return sum;
}

/// One executor per rank over the transports of a group; may run while the test does.
class Executors {
 public:
  explicit Executors(Group& group) {
    for (int rank = 0; rank < group.size(); ++rank) {
      executors_.push_back(std::make_unique<Executor>(&group[rank]));
    }
  }
  Executor& operator[](int rank) { return *executors_[rank]; }

 private:
  std::vector<std::unique_ptr<Executor>> executors_;
};

}  // namespace bluefog::test
