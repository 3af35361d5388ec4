#include "backend/neighbor_checks.h"

#include <ATen/MemoryOverlap.h>

#include <algorithm>

#include "backend/call.h"
#include "backend/schema.h"
#include "base/error.h"

namespace bluefog {

void check_neighbor_tensor(const char* operation, const at::Tensor& tensor) {
  TORCH_CHECK_VALUE(tensor.defined(), operation, " got an undefined tensor");
  TORCH_CHECK_VALUE(tensor.layout() == at::kStrided, operation, " takes dense tensors, got layout ",
                    tensor.layout(), "; convert it with .to_dense()");
  TORCH_CHECK_VALUE(!tensor.is_quantized(), operation,
                    " takes plain tensors, got a quantized one; .dequantize() it");
  TORCH_CHECK_VALUE(!tensor.is_meta(), operation,
                    " got a tensor on the meta device, which has no data");
  TORCH_CHECK_VALUE(tensor.is_cpu() || tensor.is_cuda(), operation,
                    " serves tensors on cpu and cuda, got one on ", tensor.device());
}

void check_output(const at::Tensor& input, const at::Tensor& output, std::size_t index) {
  TORCH_CHECK_VALUE(output.sizes() == input.sizes() &&
                        output.scalar_type() == input.scalar_type() &&
                        output.layout() == at::kStrided && output.device() == input.device(),
                    "neighbor_allreduce: output ", index, " is ", dtype_name(output.scalar_type()),
                    output.sizes(), " on ", output.device(), ", but input ", index, " is ",
                    dtype_name(input.scalar_type()), input.sizes(), " on ", input.device());
  TORCH_CHECK_VALUE(at::has_internal_overlap(output) != at::MemOverlap::Yes,
                    "neighbor_allreduce: output ", index,
                    " has several elements in one place (an expanded tensor?); give it memory of "
                    "its own with .contiguous()");
}

void check_gathered(const at::Tensor& input, const at::Tensor& out) {
  TORCH_CHECK_VALUE(
      out.scalar_type() == input.scalar_type() && out.device() == input.device() && is_packed(out),
      "neighbor_allgather: out must be a contiguous ", dtype_name(input.scalar_type()),
      " tensor on ", input.device(), " as the input is, got ", dtype_name(out.scalar_type()),
      out.sizes(), " on ", out.device(), is_packed(out) ? "" : ", not contiguous");
  const auto overlap = at::get_overlap_status(input, out);
  TORCH_CHECK_VALUE(overlap == at::MemOverlapStatus::No || input.numel() == 0 || out.numel() == 0,
                    "neighbor_allgather: out shares memory with the input");
}

// An output may take the place of its own input, and of nothing else: other memory would be
// overwritten before it is sent, or twice.
void check_aliases(const std::vector<CombineSink::Part>& parts) {
  struct Range {
    const std::byte* begin;
    const std::byte* end;
    bool written;
    std::size_t tensor;
  };
  std::vector<Range> ranges;
  for (std::size_t t = 0; t < parts.size(); ++t) {
    const auto& [offset, nbytes, dtype, x, y] = parts[t];
    if (nbytes == 0) continue;
    ranges.push_back({y, y + nbytes, true, t});
    if (x != y) ranges.push_back({x, x + nbytes, false, t});
  }
  std::sort(ranges.begin(), ranges.end(),
            [](const Range& a, const Range& b) { return a.begin < b.begin; });
  auto name = [](const Range& range) {
    return concat(range.written ? "output " : "input ", range.tensor);
  };
  const Range* furthest[2] = {nullptr, nullptr};  // which ends last, of those read and written
  for (const Range& range : ranges) {
    for (const Range* other : furthest) {
      TORCH_CHECK_VALUE(!other || other->end <= range.begin || !(other->written || range.written),
                        "neighbor_allreduce: ", name(range), " shares memory with ", name(*other),
                        "; an output may be its own input, and share nothing with other tensors");
    }
    const Range*& last = furthest[range.written];
    if (!last || last->end < range.end) last = &range;
  }
}

}  // namespace bluefog
