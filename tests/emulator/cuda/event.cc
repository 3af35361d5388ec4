#include "cuda/stream_state.h"

using emulator::CapturePtr;
using emulator::CompletionPtr;
using emulator::returned;

namespace {

CompletionPtr completion_of(cudaEvent_t event) {
  const std::lock_guard lock(event->mutex);
  return event->completion;
}

CapturePtr capture_of(cudaEvent_t event) {
  const std::lock_guard lock(event->mutex);
  return event->capture;
}

}  // namespace

extern "C" {

EMULATOR_API cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  *event = new CUevent_st;
  (*event)->device = emulator::current_device();
  (*event)->has_timing = (flags & cudaEventDisableTiming) == 0;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return cudaEventCreateWithFlags(event, 0);
}
EMULATOR_API cudaError_t cudaEventDestroy(cudaEvent_t event) {
  delete event;
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaEventRecordWithFlags(cudaEvent_t event, cudaStream_t handle,
                                                  unsigned) {
  emulator::Stream& stream = emulator::stream_of(handle);
  if (stream.device() != event->device) return returned(cudaErrorInvalidResourceHandle);
  const CapturePtr capture = stream.capture();
  const CompletionPtr completion = capture ? nullptr : emulator::record(stream);
  const std::lock_guard lock(event->mutex);
  event->capture = capture;
  event->completion = completion;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return cudaEventRecordWithFlags(event, stream, 0);
}

// In a capture, a stream that waits for an event of it is captured as well.
EMULATOR_API cudaError_t cudaStreamWaitEvent(cudaStream_t handle, cudaEvent_t event, unsigned) {
  emulator::Stream& stream = emulator::stream_of(handle);
  const CapturePtr mine = stream.capture();
  if (const CapturePtr theirs = capture_of(event)) {
    if (theirs->ended) return returned(cudaErrorCapturedEvent);
    if (mine && mine != theirs) return returned(cudaErrorStreamCaptureMerge);
    stream.set_capture(theirs);
    return cudaSuccess;
  }
  const CompletionPtr completion = completion_of(event);
  if (mine) {
    if (!completion) return cudaSuccess;
    mine->invalid = true;
    return returned(cudaErrorStreamCaptureIsolation);
  }
  if (completion) stream.enqueue([completion] { completion->done.wait(false); });
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaEventQuery(cudaEvent_t event) {
  if (capture_of(event)) return returned(cudaErrorCapturedEvent);
  const cudaError_t error = emulator::check_unsafe_call();
  if (error != cudaSuccess) return returned(error);
  const CompletionPtr completion = completion_of(event);
  return !completion || completion->done ? cudaSuccess : cudaErrorNotReady;
}
EMULATOR_API cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  if (capture_of(event)) return returned(cudaErrorCapturedEvent);
  const cudaError_t error = emulator::check_unsafe_call();
  if (error != cudaSuccess) return returned(error);
  if (const CompletionPtr completion = completion_of(event)) completion->done.wait(false);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t start, cudaEvent_t end) {
  const CompletionPtr first = completion_of(start), last = completion_of(end);
  if (!first || !last || !start->has_timing || !end->has_timing) {
    return returned(cudaErrorInvalidResourceHandle);
  }
  if (!first->done || !last->done) return returned(cudaErrorNotReady);
  *ms = std::chrono::duration<float, std::milli>(last->when - first->when).count();
  return cudaSuccess;
}
}
