#include "nccl/group.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

namespace emulator::nccl {
namespace {

struct OneSided {
  bool waits;
  std::function<void()> work;
};

/// What one stream gets of one communicator.
struct Share {
  std::shared_ptr<Communicator> communicator;
  cudaStream_t stream;
  std::vector<Call> calls;
  std::vector<OneSided> one_sided;
};

using Job = std::function<void()>;

struct Jobs {
  std::shared_ptr<Communicator> communicator;
  std::vector<Job> in_order;
};

struct Group {
  int depth = 0;
  ncclResult_t result = ncclSuccess;
  std::vector<Share> shares;
  std::vector<Jobs> jobs;
};

thread_local Group group;

std::mutex last_error_mutex;
std::string& last_error_text() {
  static auto* const text = new std::string();
  return *text;
}

Share& share_of(std::shared_ptr<Communicator> communicator, cudaStream_t stream) {
  for (Share& share : group.shares) {
    if (share.communicator == communicator && share.stream == stream) return share;
  }
  return group.shares.emplace_back(std::move(communicator), stream);
}

// What a rank sends to itself meets its receive in the same group, or never would.
void check_own_messages(const Share& share) {
  int unmatched = 0;
  for (const Call& call : share.calls) {
    if (call.kind != Kind::kSendRecv || call.peer != share.communicator->rank) continue;
    unmatched += call.is_send ? 1 : -1;
  }
  require(unmatched == 0, "a rank's sends to itself and receives from itself differ in number",
          ncclInvalidUsage);
}

void enqueue_share(Share share) {
  Communicator& communicator = *share.communicator;
  if (!share.calls.empty()) {
    communicator.enqueue(share.stream, true, [&communicator, calls = std::move(share.calls)] {
      perform(communicator, calls);
    });
  }
  std::ranges::stable_partition(share.one_sided, [](const OneSided& call) { return !call.waits; });
  for (OneSided& call : share.one_sided) {
    communicator.enqueue(share.stream, false, std::move(call.work));
  }
}

ncclResult_t start_jobs(std::vector<Jobs> jobs) {
  std::vector<std::thread> awaited;
  std::vector<ncclResult_t> results(jobs.size(), ncclSuccess);
  for (std::size_t i = 0; i < jobs.size(); ++i) {
    const auto communicator = jobs[i].communicator;
    for (std::size_t job = 0; job < jobs[i].in_order.size(); ++job) communicator->begin_job();
    auto run = [communicator, in_order = std::move(jobs[i].in_order)] {
      ncclResult_t result = ncclSuccess;
      for (const Job& job : in_order) result = communicator->run_job(job);
      return result;
    };
    if (communicator->blocking) {
      awaited.emplace_back([&results, i, run = std::move(run)] { results[i] = run(); });
    } else {
      results[i] = ncclInProgress;
      std::thread(std::move(run)).detach();
    }
  }
  for (std::thread& thread : awaited) thread.join();
  ncclResult_t all = ncclSuccess;
  for (const ncclResult_t result : results) {
    if (all == ncclSuccess || (all == ncclInProgress && result != ncclSuccess)) all = result;
  }
  return all;
}

// Jobs first: they may make what the rest needs.
ncclResult_t start(Group started) {
  if (started.result != ncclSuccess) return started.result;
  ncclResult_t result = guarded([&] { std::ranges::for_each(started.shares, check_own_messages); });
  if (result != ncclSuccess) return result;
  if (!started.jobs.empty()) result = start_jobs(std::move(started.jobs));
  for (Share& share : started.shares) enqueue_share(std::move(share));
  return result;
}

}  // namespace

void start_group() { ++group.depth; }

ncclResult_t end_group() {
  if (group.depth == 0) return record(Error(ncclInvalidUsage, "there is no group to end"));
  if (--group.depth > 0) return ncclSuccess;
  return start(std::exchange(group, {}));
}

ncclResult_t drop_group() {
  if (group.depth == 0) return record(Error(ncclInvalidUsage, "there is no group to end"));
  if (--group.depth > 0) return ncclSuccess;
  return std::exchange(group, {}).result;
}

void post(std::shared_ptr<Communicator> communicator, cudaStream_t stream, Call call) {
  share_of(std::move(communicator), stream).calls.push_back(std::move(call));
}

void post_one_sided(std::shared_ptr<Communicator> communicator, cudaStream_t stream, bool waits,
                    std::function<void()> work) {
  share_of(std::move(communicator), stream).one_sided.push_back({waits, std::move(work)});
}

void post_job(std::shared_ptr<Communicator> communicator, Job job) {
  for (Jobs& jobs : group.jobs) {
    if (jobs.communicator == communicator) {
      jobs.in_order.push_back(std::move(job));
      return;
    }
  }
  group.jobs.push_back({std::move(communicator), {std::move(job)}});
}

ncclResult_t record(const Error& error) {
  if (group.depth > 0 && group.result == ncclSuccess) group.result = error.result();
  const std::lock_guard lock(last_error_mutex);
  last_error_text() = error.what();
  return error.result();
}

const char* last_error() {
  thread_local std::string copy;
  const std::lock_guard lock(last_error_mutex);
  copy = last_error_text();
  return copy.c_str();
}

}  // namespace emulator::nccl
