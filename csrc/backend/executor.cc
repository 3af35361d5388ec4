#include "backend/executor.h"

#include <algorithm>
#include <iomanip>
#include <map>
#include <utility>
#include <vector>

#include "backend/agreement.h"
#include "base/error.h"
#include "transport/greeting.h"

namespace bluefog {
namespace {

// One sentence for everything that kept neighbours from taking part: "neighbor_allreduce #12 on
// rank 0 failed after 2.0 s: ranks {1, 3} did not start it". Ranks that were lost are named one by
// one: each has a story of its own.
[[noreturn]] void fail_neighbors(const Request& request, const std::vector<Failure>& failures) {
  std::map<std::pair<std::string, int>, std::vector<int>> clauses;
  for (const Failure& failure : failures) {
    const int apart = failure.code == ErrorCode::kPeerLost ? failure.peer : -1;
    clauses[{failure.what, apart}].push_back(failure.peer);
  }
  std::ostringstream out;
  out << describe(request.frame) << " on rank " << request.plan->rank() << " failed after "
      << std::fixed << std::setprecision(1) << request.deadline.elapsed_seconds() << " s: ";
  const char* separator = "";
  for (const auto& [clause, ranks] : clauses) {
    out << separator << name_ranks(ranks) << " " << clause.first;
    separator = "; ";
  }
  throw Error(failures.front().code, out.str());
}

// The progress thread may have ended: nothing would take the task from the queue.
void refuse(Task& task) {
  task.done(std::make_exception_ptr(
      Error(ErrorCode::kAborted, "the process group has been destroyed or aborted")));
}

}  // namespace

Executor::Executor(Transport* transport) : transport_(transport), thread_([this] { loop(); }) {}

Executor::~Executor() { shutdown(); }

void Executor::submit(Task task) {
  std::unique_lock lock(mutex_);
  if (stopping_) {
    lock.unlock();
    return refuse(task);
  }
  task.frame.sequence = ++sequence_;
  queue_.push_back(std::move(task));
  changed_.notify_all();
}

void Executor::run(Task task) {
  if (std::this_thread::get_id() == thread_.get_id()) {
    fail(ErrorCode::kUsage, "rank ", task.plan->rank(), " called ", name_of(task.frame.operation),
         " from a callback of another neighbor operation and would wait for itself; start it with "
         "async_op=True there");
  }
  std::unique_lock lock(mutex_);
  if (stopping_) {
    lock.unlock();
    return refuse(task);
  }
  task.frame.sequence = ++sequence_;
  if (busy_ || !queue_.empty()) {
    bool finished = false;
    task.done = [this, &finished, done = std::move(task.done)](std::exception_ptr error) {
      done(error);
      std::lock_guard lock(mutex_);
      finished = true;
      changed_.notify_all();
    };
    queue_.push_back(std::move(task));
    changed_.notify_all();
    changed_.wait(lock, [&] { return finished; });
    return;
  }
  busy_ = true;
  lock.unlock();
  perform(task);
  lock.lock();
  busy_ = false;
  if (stopping_ || !queue_.empty()) changed_.notify_all();  // nobody else waits for it
}

void Executor::shutdown() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  transport_->abort();
  changed_.notify_all();
  std::lock_guard join(join_mutex_);
  if (thread_.joinable()) {
    thread_.join();
  }
}

bool Executor::stopping() const {
  std::lock_guard lock(mutex_);
  return stopping_;
}

void Executor::loop() {
  transport_->attach();
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return !busy_ && (stopping_ || !queue_.empty()); });
    if (queue_.empty()) {
      break;
    }
    busy_ = true;
    {
      Task task = std::move(queue_.front());
      queue_.pop_front();
      lock.unlock();
      perform(task);
    }  // what the task kept alive goes before the next one starts, and without the lock
    lock.lock();
    busy_ = false;
    changed_.notify_all();
  }
  lock.unlock();
  transport_->detach();
}

void Executor::perform(Task& task) {
  std::exception_ptr error;
  try {
    exchange(task);
  } catch (...) {
    error = std::current_exception();
  }
  std::exchange(task.done, nullptr)(error);
}

void Executor::exchange(Task& task) {
  const Plan& plan = *task.plan;
  task.frame.nbytes = task.payload.nbytes();
  const Request request{task.frame, &plan, &task.payload, Deadline::in(task.timeout)};
  if (stopping()) {
    fail_aborted(request);
  }
  const auto exchange = transport_->begin(request);

  const std::vector<Greeting> greetings = exchange->meet();
  std::string mismatch;
  auto failed = [&](int peer) {
    const auto& failures = exchange->failures();
    return std::any_of(failures.begin(), failures.end(),
                       [&](auto& failure) { return failure.peer == peer; });
  };
  for (std::size_t i = 0; i < greetings.size(); ++i) {
    const int peer = plan.neighbors()[i];
    if (failed(peer)) continue;
    if (const auto why = disagreement(request, peer, greetings[i])) {
      mismatch += (mismatch.empty() ? "" : "; ") + *why;
      exchange->drop(peer);
    }
  }

  std::vector<Greeting> sources;
  for (const Edge& source : plan.sources()) {
    const auto at = std::lower_bound(plan.neighbors().begin(), plan.neighbors().end(), source.rank);
    sources.push_back(greetings[at - plan.neighbors().begin()]);
  }
  // Where something is wrong the outputs stay as they are, but neighbours with whom all is well
  // still get their data.
  bool sound = mismatch.empty() && exchange->failures().empty();
  if (sound) {
    task.sink->prepare(plan, sources);
  }
  for (Piece piece; exchange->next(piece);) {
    sound = sound && exchange->failures().empty();
    if (sound) {
      task.sink->consume(piece);
    }
  }
  if (!mismatch.empty()) {
    fail(ErrorCode::kMismatch, describe(task.frame), " on rank ", plan.rank(), ": ", mismatch);
  }
  if (!exchange->failures().empty()) {
    fail_neighbors(request, exchange->failures());
  }
  task.sink->finish();
  bytes_sent_.fetch_add(task.payload.nbytes() * plan.destinations().size(),
                        std::memory_order_relaxed);
}

}  // namespace bluefog
