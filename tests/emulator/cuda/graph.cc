#include <algorithm>
#include <atomic>
#include <utility>

#include "cuda/stream_state.h"

using emulator::Capture;
using emulator::CapturePtr;
using emulator::returned;
using emulator::Work;

/// cudaUserObject_t: ends with its last reference.
struct CUuserObject_st {
  void* content;
  cudaHostFn_t destroy;
  std::atomic<unsigned> references;

  void release(unsigned count) {
    if (references.fetch_sub(count) != count) return;
    destroy(content);
    delete this;
  }
};

/// cudaGraphExec_t. What a graph keeps is kept by what it was instantiated as, too.
struct CUgraphExec_st {
  std::vector<Work> work;
  std::vector<std::shared_ptr<void>> kept;
};
/// cudaGraph_t, which exists from the begin of its capture.
struct CUgraph_st : CUgraphExec_st {};

namespace {

thread_local cudaStreamCaptureMode mode_of_thread = cudaStreamCaptureModeGlobal;

std::mutex captures_mutex;
std::vector<CapturePtr>& captures() {  // under way
  static auto* const all = new std::vector<CapturePtr>;
  return *all;
}

}  // namespace

namespace emulator {

cudaError_t check_unsafe_call() {
  if (mode_of_thread == cudaStreamCaptureModeRelaxed) return cudaSuccess;
  const std::lock_guard lock(captures_mutex);
  for (const CapturePtr& capture : captures()) {
    const bool own = capture->thread == std::this_thread::get_id();
    const bool forbidden = own ? capture->mode != cudaStreamCaptureModeRelaxed
                               : capture->mode == cudaStreamCaptureModeGlobal &&
                                     mode_of_thread == cudaStreamCaptureModeGlobal;
    if (forbidden) {
      capture->invalid = true;
      return cudaErrorStreamCaptureUnsupported;
    }
  }
  return cudaSuccess;
}

cudaError_t check_not_capturing(cudaStream_t stream) {
  if (const CapturePtr capture = stream_of(stream).capture()) {
    capture->invalid = true;
    return cudaErrorStreamCaptureUnsupported;
  }
  return check_unsafe_call();
}

}  // namespace emulator

extern "C" {

EMULATOR_API cudaError_t cudaThreadExchangeStreamCaptureMode(cudaStreamCaptureMode* mode) {
  std::swap(*mode, mode_of_thread);
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode mode) {
  static std::atomic<unsigned long long> ids{1};
  if (emulator::is_capturing(stream)) return returned(cudaErrorIllegalState);
  auto capture = std::make_shared<Capture>();
  capture->graph = new CUgraph_st;
  capture->id = ids++;
  capture->mode = mode;
  capture->thread = std::this_thread::get_id();
  emulator::stream_of(stream).set_capture(capture);
  const std::lock_guard lock(captures_mutex);
  captures().push_back(std::move(capture));
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const CapturePtr capture = emulator::stream_of(stream).capture();
  if (!capture) return returned(cudaErrorIllegalState);
  {
    const std::lock_guard lock(captures_mutex);
    std::erase(captures(), capture);
  }
  const std::lock_guard lock(capture->mutex);
  capture->ended = true;
  emulator::stream_of(stream).set_capture(nullptr);
  capture->graph->work = std::move(capture->work);
  *graph = capture->graph;
  if (!capture->invalid) return cudaSuccess;
  delete std::exchange(*graph, nullptr);
  return returned(cudaErrorStreamCaptureInvalidated);
}

EMULATOR_API cudaError_t cudaStreamIsCapturing(cudaStream_t stream,
                                               cudaStreamCaptureStatus* status) {
  const CapturePtr capture = emulator::stream_of(stream).capture();
  *status = !capture           ? cudaStreamCaptureStatusNone
            : capture->invalid ? cudaStreamCaptureStatusInvalidated
                               : cudaStreamCaptureStatusActive;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaStreamGetCaptureInfo(cudaStream_t stream,
                                                  cudaStreamCaptureStatus* status,
                                                  unsigned long long* id, cudaGraph_t* graph,
                                                  const cudaGraphNode_t** dependencies,
                                                  const cudaGraphEdgeData** edges, size_t* count) {
  cudaStreamIsCapturing(stream, status);
  const CapturePtr capture = emulator::stream_of(stream).capture();
  if (capture && id) *id = capture->id;
  if (graph) *graph = capture ? capture->graph : nullptr;
  if (dependencies) *dependencies = nullptr;
  if (edges) *edges = nullptr;
  if (count) *count = 0;
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaGraphInstantiateWithFlags(cudaGraphExec_t* exec, cudaGraph_t graph,
                                                       unsigned long long) {
  *exec = new CUgraphExec_st(*graph);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaGraphInstantiate(cudaGraphExec_t* exec, cudaGraph_t graph,
                                              unsigned long long flags) {
  return cudaGraphInstantiateWithFlags(exec, graph, flags);
}
EMULATOR_API cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
  emulator::enqueue(stream, [work = exec->work] {
    for (const Work& one : work) one();
  });
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaGraphGetNodes(cudaGraph_t graph, cudaGraphNode_t*, size_t* count) {
  *count = graph->work.size();
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  delete graph;
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) {
  delete exec;
  return cudaSuccess;
}

EMULATOR_API cudaError_t cudaUserObjectCreate(cudaUserObject_t* object, void* content,
                                              cudaHostFn_t destroy, unsigned references, unsigned) {
  *object = new CUuserObject_st{content, destroy, references};
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaUserObjectRelease(cudaUserObject_t object, unsigned count) {
  object->release(count);
  return cudaSuccess;
}
EMULATOR_API cudaError_t cudaGraphRetainUserObject(cudaGraph_t graph, cudaUserObject_t object,
                                                   unsigned count, unsigned flags) {
  if ((flags & cudaGraphUserObjectMove) == 0) object->references += count;
  graph->kept.emplace_back(nullptr, [=](void*) { object->release(count); });
  return cudaSuccess;
}
}
