// A thread's group: what its calls ask for is started at the group's end. A call outside any group
// is one of its own.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "nccl/collectives.h"
#include "nccl/communicator.h"
#include "nccl/error.h"

namespace emulator::nccl {

void start_group();
/// Of the outermost, the result of all: the first failed call's, and then nothing is started.
ncclResult_t end_group();
/// As the outermost end_group(), but nothing is started.
ncclResult_t drop_group();

/// Below, to be called in a group.
void post(std::shared_ptr<Communicator> communicator, cudaStream_t stream, Call call);
/// Those that wait come after all others on their stream.
void post_one_sided(std::shared_ptr<Communicator> communicator, cudaStream_t stream, bool waits,
                    std::function<void()> work);
/// Runs on a thread, which the group's end waits for where the communicator is a blocking one.
void post_job(std::shared_ptr<Communicator> communicator, std::function<void()> job);

/// Remembers it for ncclGetLastError, and for the end of the group that the thread is in.
ncclResult_t record(const Error& error);
const char* last_error();

/// A C function's body.
template <typename Body>
ncclResult_t guarded(Body&& body) {
  try {
    body();
    return ncclSuccess;
  } catch (const Error& error) {
    return record(error);
  }
}

template <typename Body>
ncclResult_t grouped(Body&& body) {
  start_group();
  const ncclResult_t called = guarded(std::forward<Body>(body));
  const ncclResult_t ended = end_group();
  return called != ncclSuccess ? called : ended;
}

inline void require(bool condition, const std::string& complaint,
                    ncclResult_t result = ncclInvalidArgument) {
  if (!condition) throw Error(result, complaint);
}

}  // namespace emulator::nccl
