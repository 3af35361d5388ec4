// The emulated NCCL's two-sided calls and reduction operators.
#include <cstring>
#include <map>
#include <memory>
#include <mutex>
#include <utility>

#include "nccl/group.h"
#include "nccl/handles.h"
#include "nccl/reduce.h"

namespace emulator::nccl {
namespace {

struct Operators {
  std::mutex mutex;
  int next = ncclNumOps;
  std::map<int, std::shared_ptr<const Scalar>> scalars;
};
Operators& operators() {
  static Operators* const all = new Operators();
  return *all;
}

std::shared_ptr<const Scalar> scalar_of(ncclRedOp_t op) {
  if (op < ncclNumOps) return nullptr;
  const std::lock_guard lock(operators().mutex);
  const auto found = operators().scalars.find(op);
  require(found != operators().scalars.end(), "there is no such reduction operator");
  return found->second;
}

ncclResult_t submit(Call call, ncclComm_t comm, cudaStream_t stream) {
  return grouped([&] {
    auto communicator = find(comm);
    communicator->check_ready();
    require(stream == nullptr || device_of(stream) == communicator->device,
            "the stream is of another device than the communicator", ncclUnhandledCudaError);
    require(size_of(call.type) > 0, "there is no such data type");
    require(call.peer >= 0 && call.peer < communicator->size,
            "there is no rank " + std::to_string(call.peer));
    require(call.op >= 0, "there is no such reduction operator");
    call.scalar = scalar_of(call.op);
    const bool is_message = call.kind == Kind::kSendRecv;
    if (call.count == 0 && !is_message) return;  // not even to wait for the others, as with NCCL
    post(std::move(communicator), stream, std::move(call));
  });
}

}  // namespace
}  // namespace emulator::nccl

using namespace emulator::nccl;

ncclResult_t ncclSend(const void* data, size_t count, ncclDataType_t type, int peer,
                      ncclComm_t comm, cudaStream_t stream) {
  Call call{Kind::kSendRecv, data, nullptr, count, type, peer};
  call.is_send = true;
  return submit(std::move(call), comm, stream);
}

ncclResult_t ncclRecv(void* data, size_t count, ncclDataType_t type, int peer, ncclComm_t comm,
                      cudaStream_t stream) {
  return submit({Kind::kSendRecv, nullptr, data, count, type, peer}, comm, stream);
}

ncclResult_t ncclAllReduce(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return submit({Kind::kAllReduce, send, receive, count, type, 0, op}, comm, stream);
}

ncclResult_t ncclReduce(const void* send, void* receive, size_t count, ncclDataType_t type,
                        ncclRedOp_t op, int root, ncclComm_t comm, cudaStream_t stream) {
  return submit({Kind::kReduce, send, receive, count, type, root, op}, comm, stream);
}

ncclResult_t ncclReduceScatter(const void* send, void* receive, size_t count, ncclDataType_t type,
                               ncclRedOp_t op, ncclComm_t comm, cudaStream_t stream) {
  return submit({Kind::kReduceScatter, send, receive, count, type, 0, op}, comm, stream);
}

ncclResult_t ncclBroadcast(const void* send, void* receive, size_t count, ncclDataType_t type,
                           int root, ncclComm_t comm, cudaStream_t stream) {
  return submit({Kind::kBroadcast, send, receive, count, type, root}, comm, stream);
}

ncclResult_t ncclBcast(void* data, size_t count, ncclDataType_t type, int root, ncclComm_t comm,
                       cudaStream_t stream) {
  return ncclBroadcast(data, data, count, type, root, comm, stream);
}

ncclResult_t ncclAllGather(const void* send, void* receive, size_t count, ncclDataType_t type,
                           ncclComm_t comm, cudaStream_t stream) {
  return submit({Kind::kAllGather, send, receive, count, type}, comm, stream);
}

ncclResult_t ncclAlltoAll(const void* send, void* receive, size_t count, ncclDataType_t type,
                          ncclComm_t comm, cudaStream_t stream) {
  return submit({Kind::kAllToAll, send, receive, count, type}, comm, stream);
}

ncclResult_t ncclGather(const void* send, void* receive, size_t count, ncclDataType_t type,
                        int root, ncclComm_t comm, cudaStream_t stream) {
  return submit({Kind::kGather, send, receive, count, type, root}, comm, stream);
}

ncclResult_t ncclScatter(const void* send, void* receive, size_t count, ncclDataType_t type,
                         int root, ncclComm_t comm, cudaStream_t stream) {
  return submit({Kind::kScatter, send, receive, count, type, root}, comm, stream);
}

ncclResult_t ncclRedOpCreatePreMulSum(ncclRedOp_t* op, void* scalar, ncclDataType_t type,
                                      ncclScalarResidence_t residence, ncclComm_t comm) {
  return guarded([&] {
    find(comm)->check_ready();
    require(size_of(type) > 0, "there is no such data type");
    Scalar made{residence == ncclScalarDevice ? scalar : nullptr, {}};
    if (made.on_device == nullptr) std::memcpy(made.value.data(), scalar, size_of(type));
    const std::lock_guard lock(operators().mutex);
    const int id = operators().next++;
    operators().scalars[id] = std::make_shared<const Scalar>(made);
    *op = static_cast<ncclRedOp_t>(id);
  });
}

ncclResult_t ncclRedOpDestroy(ncclRedOp_t op, ncclComm_t comm) {
  return guarded([&] {
    find(comm);
    const std::lock_guard lock(operators().mutex);
    require(operators().scalars.erase(op) == 1, "there is no such reduction operator");
  });
}
