#include "kernels/combine_launch.h"

#include <bit>
#include <cstring>

#include "base/error.h"

namespace bluefog {
namespace {

// The elements to peel until `pointer` is aligned for `width` of them.
std::uint32_t misalignment(const void* pointer, Element element, std::uint32_t width) {
  const auto index = reinterpret_cast<std::uintptr_t>(pointer) / size_of(element);
  return static_cast<std::uint32_t>((width - index % width) % width);
}

std::uint64_t weight_word(double weight, Element own) {
  if (own == Element::kFloat64) return std::bit_cast<std::uint64_t>(weight);
  return std::bit_cast<std::uint32_t>(static_cast<float>(weight));
}

}  // namespace

Division divide(Element own, Element payload, const void* y, std::span<const void* const> terms,
                std::size_t count) {
  const std::uint32_t width = vector_width(own);
  const std::uint32_t head = misalignment(y, own, width);
  bool together = misalignment(terms[0], own, width) == head;
  for (const void* term : terms.subspan(1)) {
    together = together && misalignment(term, payload, width) == head;
  }
  if (!together || count < head + width) return {count, 0, 1, 0};
  return {count, 0, static_cast<std::uint16_t>(width), static_cast<std::uint16_t>(head)};
}

std::uint32_t tiles_of(const Division& division, std::uint32_t tile_elements) {
  const Range body = body_of(division);
  return static_cast<std::uint32_t>((body.end - body.begin + tile_elements - 1) / tile_elements);
}

std::size_t fill(const CombineList& list, std::size_t first, CombineArguments& arguments) {
  const std::size_t terms = list.weights.size();
  if (terms < 1 || terms > kMaxTerms) {
    fail(ErrorCode::kUsage, "the CUDA combine adds 1 to ", kMaxTerms, " terms, got ", terms);
  }
  const std::size_t tensors = list.outputs.size();
  arguments.tensors = 0;
  arguments.terms = static_cast<std::uint32_t>(terms);
  arguments.tiles = 0;
  arguments.tile_elements = kTileVectors * vector_width(list.own);
  arguments.streaming = 0;
  arguments.unused = 0;
  for (std::size_t k = 0; k < terms; ++k) {
    arguments.words[k] = weight_word(list.weights[k], list.own);
  }
  std::size_t t = first;
  for (; t < tensors; ++t) {
    if (list.counts[t] == 0) continue;
    const std::uint32_t row = arguments.row(arguments.tensors);
    if (row + terms + 3 > CombineArguments::kWords) break;
    const void* pointers[kMaxTerms];
    pointers[0] = list.inputs[t];
    for (std::size_t j = 0; j + 1 < terms; ++j) {
      pointers[j + 1] = list.arrivals[j * tensors + t];
    }
    const Division division =
        divide(list.own, list.payload, list.outputs[t], {pointers, terms}, list.counts[t]);
    std::uint64_t* words = arguments.words + row;
    words[0] = division.count;
    words[1] = arguments.tiles | static_cast<std::uint64_t>(division.width) << 32 |
               static_cast<std::uint64_t>(division.head) << 48;
    words[2] = reinterpret_cast<std::uintptr_t>(list.outputs[t]);
    std::memcpy(words + 3, pointers, terms * sizeof(void*));
    arguments.tiles += tiles_of(division, arguments.tile_elements);
    ++arguments.tensors;
  }
  return t;
}

}  // namespace bluefog
