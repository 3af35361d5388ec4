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
  ErrorCode code = failures.front().code;
  if (is_collective(request.frame.operation)) {
    // All ranks are neighbours here: that one was lost is why others gave up.
    const auto lost = [](auto& failure) { return failure.code == ErrorCode::kPeerLost; };
    if (std::any_of(failures.begin(), failures.end(), lost)) code = ErrorCode::kPeerLost;
  }
  if (code == ErrorCode::kTimeout) {
    out << " (the timeout is " << request.deadline.timeout_seconds() << " s)";
  }
  throw Error(code, out.str());
}

// The progress threads may have ended: nothing would take the task from the queue.
void refuse(Task& task) {
  task.done(std::make_exception_ptr(
      Error(ErrorCode::kAborted, "the process group has been destroyed or aborted")));
  if (task.after) task.after();
}

}  // namespace

Executor::Executor(Transport* transport) : transport_(transport) {
  std::lock_guard lock(mutex_);
  start_thread();
}

Executor::~Executor() { shutdown(); }

void Executor::submit(Task task) {
  std::unique_lock lock(mutex_);
  if (stopping_) {
    lock.unlock();
    return refuse(task);
  }
  enlist(task);
  queue_.push_back(std::move(task));
  hand_over();
}

void Executor::run(Task task) {
  std::unique_lock lock(mutex_);
  if (stopping_) {
    lock.unlock();
    return refuse(task);
  }
  enlist(task);
  if (busy_ || !queue_.empty()) {
    bool finished = false;
    task.done = [this, &finished, done = std::move(task.done)](std::exception_ptr error) {
      done(error);
      std::lock_guard lock(mutex_);
      finished = true;
      changed_.notify_all();
    };
    queue_.push_back(std::move(task));
    hand_over();
    changed_.wait(lock, [&] { return finished; });
    return;
  }
  busy_ = true;
  lock.unlock();
  perform(task);
  lock.lock();
  busy_ = false;
  if (stopping_ || !queue_.empty()) hand_over();  // nobody else waits for it
  lock.unlock();
  if (task.after) task.after();
}

// The last thread to go has seen that nothing is queued and nothing more will be, so none is
// started after that.
void Executor::shutdown() {
  {
    std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  transport_->abort();
  std::lock_guard join(join_mutex_);
  std::unique_lock lock(mutex_);
  hand_over();
  while (!threads_.empty()) {
    std::thread last = std::move(threads_.back());
    threads_.pop_back();
    lock.unlock();
    last.join();
    lock.lock();
  }
}

bool Executor::stopping() const {
  std::lock_guard lock(mutex_);
  return stopping_;
}

// Requires the lock.
void Executor::start_thread() {
  const bool first = threads_.empty();
  ++idle_;
  threads_.emplace_back([this, first] {
    if (first) transport_->attach();
    loop();
    if (first) transport_->detach();
  });
}

void Executor::loop() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [&] { return !busy_ && (stopping_ || !queue_.empty()); });
    --idle_;
    if (queue_.empty()) {
      return;
    }
    if (auto after = perform_next(lock)) {
      hand_over();
      lock.unlock();
      after();
      after = nullptr;
      lock.lock();
      ++idle_;
    } else {
      ++idle_;
      hand_over();
    }
  }
}

// Requires the lock, and lets go of it for a while. What the task kept alive goes before the next
// one starts.
std::function<void()> Executor::perform_next(std::unique_lock<std::mutex>& lock) {
  busy_ = true;
  std::function<void()> after;
  {
    Task task = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    perform(task);
    after = std::move(task.after);
  }
  lock.lock();
  busy_ = false;
  return after;
}

// Requires the lock. Whoever may take the next task learns that it can. Where all threads are in
// some task's `after`, which may wait for that very task, there is one more from now on.
void Executor::hand_over() {
  if (!busy_ && !queue_.empty() && idle_ == 0) start_thread();
  changed_.notify_all();
}

// Requires the lock. Every task has two numbers for exchanges, used or not: neighbours that do not
// mean the same operation still agree on where the next one begins. The number for people counts
// operations of its kind.
void Executor::enlist(Task& task) {
  task.frame.number = ++counts_[is_collective(task.frame.operation)];
  task.frame.sequence = next_exchange_;
  next_exchange_ += 2;
}

void Executor::perform(Task& task) {
  std::exception_ptr error;
  try {
    run_stages(task);
  } catch (...) {
    error = std::current_exception();
  }
  std::exchange(task.done, nullptr)(error);
}

void Executor::run_stages(Task& task) {
  auto request_of = [&](const Stage& stage, std::uint64_t sequence) {
    Request request{task.frame, task.plan.get(), &stage.payload, Deadline::in(task.timeout)};
    request.frame.sequence = sequence;
    request.frame.nbytes = stage.payload.nbytes();
    return request;
  };
  const std::uint64_t sequence = task.frame.sequence;
  try {
    exchange(request_of(task, sequence), *task.sink);
  } catch (...) {
    if (task.then) withdraw(request_of(Stage{}, sequence + 1));
    throw;
  }
  if (task.then) {
    exchange(request_of(*task.then, sequence + 1), *task.then->sink);
  }
}

// Neighbours for whom the exchange before went well wait for this rank in the next one.
void Executor::withdraw(Request request) noexcept {
  request.frame.operation = Operation::kNone;
  request.deadline = Deadline::in(std::chrono::milliseconds(0));
  try {
    transport_->begin(request);
  } catch (const Error&) {  // aborted: they learn of that
  }
}

void Executor::exchange(const Request& request, Sink& sink) {
  const Plan& plan = *request.plan;
  if (stopping()) {
    fail_aborted(request);
  }
  const auto exchange = transport_->begin(request);

  const std::vector<Greeting> greetings = exchange->meet();
  std::string mismatch;
  std::vector<Failure> withdrawn;
  auto failed = [&](int peer) {
    const auto& failures = exchange->failures();
    return std::any_of(failures.begin(), failures.end(),
                       [&](auto& failure) { return failure.peer == peer; });
  };
  for (std::size_t i = 0; i < greetings.size(); ++i) {
    const int peer = plan.neighbors()[i];
    if (failed(peer)) continue;
    if (greetings[i].frame.operation == Operation::kNone) {
      withdrawn.push_back(gave_up(peer, "in the middle"));
      exchange->drop(peer);
    } else if (const auto why = disagreement(request, peer, greetings[i])) {
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
  bool sound = mismatch.empty() && withdrawn.empty() && exchange->failures().empty();
  std::exception_ptr refused;  // by the sink
  if (sound) {
    try {
      sink.prepare(plan, sources);
    } catch (...) {
      refused = std::current_exception();
      sound = false;
    }
  }
  for (Piece piece; exchange->next(piece);) {
    sound = sound && exchange->failures().empty();
    if (sound) {
      sink.consume(piece);
    }
  }
  if (!mismatch.empty()) {
    fail(ErrorCode::kMismatch, describe(request.frame), " on rank ", plan.rank(), ": ", mismatch);
  }
  std::vector<Failure> failures = exchange->failures();
  failures.insert(failures.end(), withdrawn.begin(), withdrawn.end());
  if (!failures.empty()) {
    fail_neighbors(request, failures);
  }
  if (refused) std::rethrow_exception(refused);
  sink.finish();
  if (!is_collective(request.frame.operation)) {
    bytes_sent_.fetch_add(request.payload->nbytes() * plan.destinations().size(),
                          std::memory_order_relaxed);
  }
}

}  // namespace bluefog
