#include "transport/nccl/watchdog.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace bluefog::nccl {

Watchdog::Watchdog(Options options) : options_(std::move(options)), thread_([this] { run(); }) {}

Watchdog::~Watchdog() {
  {
    std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  // Not fail(): there is nobody left to tell, and nothing to abort where nothing is pending.
  if (!pending_.empty()) {
    fail(Error(ErrorCode::kAborted,
               concat("rank ", options_.rank, "'s process group was destroyed while ",
                      pending_.front().operation.describe(), " was pending")));
  }
}

void Watchdog::watch(Entry entry) {
  let_go_of_spent();
  {
    std::lock_guard lock(mutex_);
    if (failure_) {
      entry.end(failure_);
      return;
    }
    pending_.push_back(std::move(entry));
    if (pending_.size() > 1) return;  // the thread is awake
  }
  wake_.notify_all();
}

void Watchdog::fail(const Error& error) {
  {
    std::lock_guard lock(mutex_);
    if (failure_) return;
    failure_ = std::make_exception_ptr(error);
    for (Entry& entry : pending_) entry.end(failure_);
    spent_.splice(spent_.end(), pending_);
  }
  if (options_.abort) options_.abort();
}

std::exception_ptr Watchdog::failure() const {
  std::lock_guard lock(mutex_);
  return failure_;
}

// The device is asked without mutex_: a query may hang while CUDA is busy, and watch() must not.
// The communicator is asked after the device and believed before it: a kernel that an error has cut
// short has ended too.
void Watchdog::poll_now() {
  std::lock_guard polling(poll_mutex_);
  std::vector<Entries::iterator> entries;
  {
    std::lock_guard lock(mutex_);
    for (auto entry = pending_.begin(); entry != pending_.end(); ++entry) entries.push_back(entry);
  }
  std::optional<Error> trouble = keep_done(entries);
  if (!trouble) trouble = communicator_error(entries);
  if (!trouble) trouble = settle(entries);
  if (trouble) fail(*trouble);
}

// Leaves the entries that the device has done.
std::optional<Error> Watchdog::keep_done(std::vector<Entries::iterator>& entries) const {
  std::optional<Error> trouble;
  std::erase_if(entries, [&](Entries::iterator entry) {
    try {
      return !entry->done();
    } catch (const std::exception& failed) {
      if (!trouble) {
        trouble.emplace(ErrorCode::kSystem,
                        concat("rank ", options_.rank, ": ", entry->operation.describe(),
                               " failed on its device: ", failed.what()));
      }
      return true;
    }
  });
  return trouble;
}

// Names the operation that is most likely to have met it: the first that has not ended.
std::optional<Error> Watchdog::communicator_error(const std::vector<Entries::iterator>& done) {
  const std::optional<Error> error = options_.error ? options_.error() : std::nullopt;
  std::lock_guard lock(mutex_);
  if (!error || pending_.empty()) return error;
  auto first = pending_.begin();
  while (first != pending_.end() && std::ranges::find(done, first) != done.end()) ++first;
  const Entry& met = first == pending_.end() ? pending_.front() : *first;
  return Error(error->code(), concat(error->what(), "; pending was ", met.operation.describe()));
}

// Ends what is done, and looks for what is late.
std::optional<Error> Watchdog::settle(const std::vector<Entries::iterator>& done) {
  std::lock_guard lock(mutex_);
  if (failure_) return std::nullopt;  // which has ended all of them
  for (const Entries::iterator entry : done) {
    entry->end(nullptr);
    spent_.splice(spent_.end(), pending_, entry);
  }
  const auto late = std::find_if(pending_.begin(), pending_.end(),
                                 [](const Entry& entry) { return entry.deadline.passed(); });
  if (late == pending_.end()) return std::nullopt;
  return Error(ErrorCode::kTimeout,
               concat("rank ", options_.rank, ": ", late->operation.describe(),
                      " has not ended after ", late->deadline.elapsed_seconds(), " s, timeout ",
                      late->deadline.timeout_seconds(), " s"));
}

// A look holds iterators into the lists; it keeps what is spent until the next call then.
void Watchdog::let_go_of_spent() {
  std::unique_lock polling(poll_mutex_, std::try_to_lock);
  if (!polling.owns_lock()) return;
  Entries spent;
  std::lock_guard lock(mutex_);
  spent.swap(spent_);
}

void Watchdog::run() {
  if (options_.thread_start) options_.thread_start();
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !pending_.empty(); });
    if (wake_.wait_for(lock, options_.interval, [this] { return stop_; })) return;
    lock.unlock();
    poll_now();
    lock.lock();
  }
}

}  // namespace bluefog::nccl
