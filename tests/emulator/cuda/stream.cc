#include "cuda/stream.h"

#include <random>
#include <thread>
#include <utility>
#include <vector>

#include "cuda/stream_state.h"

namespace emulator {

void Stream::enqueue(Work work) {
  const std::lock_guard lock(mutex_);
  queue_.push_back(std::move(work));
  if (!started_) std::thread(&Stream::run, this).detach();
  started_ = true;
  has_work_.notify_one();
}

namespace {

// Now and then, so that what only happened to come in time does not always do so.
void dawdle() {
  static std::atomic<unsigned> threads{0};
  thread_local std::minstd_rand chance(++threads);
  if (chance() % 8 == 0) {
    std::this_thread::sleep_for(std::chrono::microseconds(chance() % 300));
  }
}

}  // namespace

void Stream::run() {
  cudaSetDevice(device_);
  std::unique_lock lock(mutex_);
  for (;;) {
    has_work_.wait(lock, [&] { return !queue_.empty(); });
    {
      const Work work = std::move(queue_.front());
      queue_.pop_front();
      busy_ = true;
      lock.unlock();
      dawdle();
      work();
    }
    lock.lock();
    busy_ = false;
  }
}

bool Stream::is_idle() {
  const std::lock_guard lock(mutex_);
  return queue_.empty() && !busy_;
}

CapturePtr Stream::capture() {
  const std::lock_guard lock(mutex_);
  if (capture_ && capture_->ended) capture_ = nullptr;
  return capture_;
}

void Stream::set_capture(CapturePtr capture) {
  const std::lock_guard lock(mutex_);
  capture_ = std::move(capture);
}

namespace {

std::mutex all_mutex;

// The default streams of the devices first.
std::vector<Stream*>& all_streams() {
  static auto* const streams = [] {
    auto* made = new std::vector<Stream*>;
    for (int device = 0; device < device_count(); ++device) made->push_back(new Stream(device, 0));
    return made;
  }();
  return *streams;
}

}  // namespace

Stream& stream_of(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy || handle == cudaStreamPerThread) {
    const std::lock_guard lock(all_mutex);
    return *all_streams()[static_cast<std::size_t>(current_device())];
  }
  return *reinterpret_cast<Stream*>(handle);
}

Stream& new_stream(int device, int priority) {
  const std::lock_guard lock(all_mutex);
  all_streams().push_back(new Stream(device, priority));
  return *all_streams().back();
}

std::vector<Stream*> streams_of(int device) {
  const std::lock_guard lock(all_mutex);
  std::vector<Stream*> theirs;
  for (Stream* stream : all_streams()) {
    if (stream->device() == device && !stream->is_idle()) theirs.push_back(stream);
  }
  return theirs;
}

cudaStream_t handle_of(Stream& stream) { return reinterpret_cast<cudaStream_t>(&stream); }

CompletionPtr record(Stream& stream) {
  auto completion = std::make_shared<Completion>();
  stream.enqueue([completion] { completion->complete(); });
  return completion;
}

void enqueue(cudaStream_t handle, Work work) {
  Stream& stream = stream_of(handle);
  if (const CapturePtr capture = stream.capture()) {
    const std::lock_guard lock(capture->mutex);
    capture->work.push_back(std::move(work));
  } else {
    stream.enqueue(std::move(work));
  }
}

int device_of(cudaStream_t stream) { return stream_of(stream).device(); }

bool is_capturing(cudaStream_t stream) { return stream_of(stream).capture() != nullptr; }

void synchronize(cudaStream_t stream) { record(stream_of(stream))->done.wait(false); }

}  // namespace emulator

using emulator::returned;
using emulator::Stream;
using emulator::stream_of;

extern "C" {

EMULATOR_API cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned,
                                                      int priority) {
  *stream = emulator::handle_of(emulator::new_stream(emulator::current_device(), priority));
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
  return cudaStreamCreateWithPriority(stream, flags, 0);
}
EMULATOR_API cudaError_t cudaStreamCreate(cudaStream_t* stream) {
  return cudaStreamCreateWithPriority(stream, 0, 0);
}
// Its thread goes on with what it has been given; a stream is small and stays.
EMULATOR_API cudaError_t cudaStreamDestroy(cudaStream_t) { return cudaSuccess; }

EMULATOR_API cudaError_t cudaStreamGetPriority(cudaStream_t stream, int* priority) {
  *priority = stream_of(stream).priority();
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  *least = 0;
  *greatest = -5;
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  const cudaError_t error = emulator::check_not_capturing(stream);
  if (error != cudaSuccess) return returned(error);
  emulator::synchronize(stream);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaStreamQuery(cudaStream_t stream) {
  const cudaError_t error = emulator::check_not_capturing(stream);
  if (error != cudaSuccess) return returned(error);
  return stream_of(stream).is_idle() ? cudaSuccess : cudaErrorNotReady;
}

EMULATOR_API cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t function,
                                            void* argument) {
  emulator::enqueue(stream, [=] { function(argument); });
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaStreamAddCallback(cudaStream_t stream, cudaStreamCallback_t function,
                                               void* argument, unsigned) {
  emulator::enqueue(stream, [=] { function(stream, cudaSuccess, argument); });
  return cudaSuccess;
}
}
