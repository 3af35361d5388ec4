// A stream's inside, and events.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/capture.h"
#include "cuda/stream.h"

namespace emulator {

/// That something has been done, and when.
struct Completion {
  std::atomic<bool> done{false};
  std::chrono::steady_clock::time_point when;

  void complete() {
    when = std::chrono::steady_clock::now();
    done.store(true, std::memory_order_release);
    done.notify_all();
  }
};
using CompletionPtr = std::shared_ptr<Completion>;

/// A queue and its thread, which begins with the first work and is never joined: at the end of the
/// process it may be in an exchange with a rank that has ended.
class Stream {
 public:
  Stream(int device, int priority) : device_(device), priority_(priority) {}

  int device() const { return device_; }
  int priority() const { return priority_; }

  void enqueue(Work work);
  bool is_idle();

  CapturePtr capture();
  void set_capture(CapturePtr capture);

 private:
  void run();

  const int device_;
  const int priority_;
  std::mutex mutex_;
  std::condition_variable has_work_;
  std::deque<Work> queue_;
  bool started_ = false;
  bool busy_ = false;
  CapturePtr capture_;
};

/// The stream of a handle; null handles mean the current device's default stream.
Stream& stream_of(cudaStream_t handle);
cudaStream_t handle_of(Stream& stream);

/// What is done once everything that `stream` has been given is.
CompletionPtr record(Stream& stream);

Stream& new_stream(int device, int priority);
/// Those of a device that have work.
std::vector<Stream*> streams_of(int device);

int current_device();
int device_count();

/// Remembers an error for cudaGetLastError.
cudaError_t returned(cudaError_t error);

}  // namespace emulator

/// cudaEvent_t.
struct CUevent_st {
  std::mutex mutex;
  emulator::CompletionPtr completion;  // of the last record; null before the first
  emulator::CapturePtr capture;        // where the last record was captured
  int device = 0;                      // it is recorded on streams of this one
  bool has_timing = true;
};
