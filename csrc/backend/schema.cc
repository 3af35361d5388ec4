#include "backend/schema.h"

#include <algorithm>
#include <cctype>
#include <cstring>

#include "base/error.h"

namespace bluefog {
namespace {

// FNV-1a over 64-bit words. It guards against mistakes, not against forgery.
class Digest {
 public:
  void add(int64_t word) {
    for (int shift = 0; shift < 64; shift += 8) {
      value_ = (value_ ^ ((static_cast<uint64_t>(word) >> shift) & 0xff)) * 0x100000001b3;
    }
  }
  uint64_t value() const { return value_; }

 private:
  uint64_t value_ = 0xcbf29ce484222325;
};

// "float32[3, 4]", "float32[3, 4] as bfloat16", "float32[3, 4] on cuda"; part of every operation,
// so without a stream.
std::string describe(const at::Tensor& tensor, std::optional<at::ScalarType> payload) {
  std::string text = dtype_name(tensor.scalar_type()) + "[";
  for (int64_t d = 0; d < tensor.dim(); ++d) {
    text += (d > 0 ? ", " : "") + std::to_string(tensor.size(d));
  }
  text += "]";
  if (!tensor.is_cpu()) text += " on " + c10::DeviceTypeName(tensor.device().type(), true);
  return payload ? text + " as " + dtype_name(*payload) : text;
}

}  // namespace

std::string dtype_name(at::ScalarType type) {
  switch (type) {
    case at::kHalf:
      return "float16";
    case at::kFloat:
      return "float32";
    case at::kDouble:
      return "float64";
    case at::kByte:
      return "uint8";
    case at::kChar:
      return "int8";
    case at::kShort:
      return "int16";
    case at::kInt:
      return "int32";
    case at::kLong:
      return "int64";
    case at::kComplexFloat:
      return "complex64";
    case at::kComplexDouble:
      return "complex128";
    default:
      break;
  }
  std::string name = c10::toString(type);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return name;
}

Frame make_frame(Operation operation, const std::vector<at::Tensor>& tensors, int64_t round,
                 std::optional<at::ScalarType> payload) {
  const bool gather = operation == Operation::kNeighborAllgather;
  Frame frame;
  frame.operation = operation;
  frame.tensors = static_cast<uint32_t>(tensors.size());
  frame.round = round;
  Digest digest;
  if (payload) digest.add(static_cast<int64_t>(*payload));
  std::string text;
  for (const at::Tensor& tensor : tensors) {
    digest.add(static_cast<int64_t>(tensor.scalar_type()));
    if (!tensor.is_cpu()) digest.add(static_cast<int64_t>(tensor.device().type()));
    digest.add(std::max<int64_t>(tensor.dim(), gather ? 1 : 0));
    for (int64_t d = gather ? 1 : 0; d < tensor.dim(); ++d) {
      digest.add(tensor.size(d));
    }
    if (text.size() < Frame::kTextSize) {
      text += (text.empty() ? "" : ", ") + describe(tensor, payload);
    }
  }
  if (text.size() >= Frame::kTextSize) {
    text = text.substr(0, Frame::kTextSize - 4) + "...";
  }
  std::memcpy(frame.text, text.c_str(), text.size() + 1);
  if (gather) {
    frame.rows = tensors[0].dim() == 0 ? 1 : tensors[0].size(0);
    if (!tensors[0].is_cpu()) digest.add(frame.rows);
  }
  frame.schema = digest.value();
  return frame;
}

Frame make_flat_frame(Operation operation, at::ScalarType type, int64_t numel, const char* how) {
  Frame frame;
  frame.operation = operation;
  frame.tensors = 1;
  Digest digest;
  digest.add(static_cast<int64_t>(type));
  digest.add(numel);
  for (const char* c = how; *c != 0; ++c) digest.add(*c);
  frame.schema = digest.value();
  const std::string text = dtype_name(type) + "[" + std::to_string(numel) + "]" + how;
  std::memcpy(frame.text, text.c_str(), text.size() + 1);
  return frame;
}

}  // namespace bluefog
