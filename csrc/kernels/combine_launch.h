// What the host decides of the CUDA combine (combine_cuda.cu): which tensors go into a launch, how
// wide its loads are, and which elements each tile covers. Without CUDA, so that it is tested
// wherever there is no GPU.
//
// A launch takes all that it needs by value, in 4096 bytes: kernel parameters of any CUDA. What a
// launch holds depends on the number of terms: 101 tensors of 2 terms, 72 of 4, 1 of 253. A sum is
// never divided among launches, because half types are rounded once; kMaxTerms is therefore a
// limit. Thread-compatible: pure functions and plain data.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>

// The kernel calls what the tests call.
#ifdef __CUDACC__
#define BLUEFOG_HOST_DEVICE __host__ __device__
#else
#define BLUEFOG_HOST_DEVICE
#endif

namespace bluefog {

/// What memory holds. Own values are of the first four; what arrives is of any that pays, see
/// is_served.
enum class Element : std::uint8_t {
  kFloat16,
  kBFloat16,
  kFloat32,
  kFloat64,
  kFloat8E4M3,  // float8_e4m3fn
  kFloat8E5M2,
};

BLUEFOG_HOST_DEVICE constexpr std::uint32_t size_of(Element element) {
  switch (element) {
    case Element::kFloat8E4M3:
    case Element::kFloat8E5M2:
      return 1;
    case Element::kFloat16:
    case Element::kBFloat16:
      return 2;
    case Element::kFloat32:
      return 4;
    case Element::kFloat64:
      return 8;
  }
  return 0;
}

/// Whether there is a kernel for own values and results of type `own` and arrivals of `payload`:
/// the same, or a narrower one.
constexpr bool is_served(Element own, Element payload) {
  const bool eighth = size_of(payload) == 1;
  if (size_of(own) == 1) return false;
  if (own == Element::kFloat64 || !eighth) {
    return own == payload || (own == Element::kFloat32 && payload == Element::kBFloat16);
  }
  return true;
}

/// Elements of type `own` in 16 bytes: what a thread loads at a time.
BLUEFOG_HOST_DEVICE constexpr std::uint32_t vector_width(Element own) { return 16 / size_of(own); }

/// y[t] = weights[0] * inputs[t] + sum over j of weights[j + 1] * arrivals[j * T + t], for T
/// tensors of counts[t] elements. All pointers are aligned to their elements. outputs[t] may be
/// inputs[t].
struct CombineList {
  Element own;      // of outputs and inputs
  Element payload;  // of arrivals; is_served(own, payload)
  std::span<void* const> outputs;
  std::span<const void* const> inputs;
  std::span<const void* const> arrivals;
  std::span<const std::size_t> counts;
  std::span<const double> weights;  // at least one, at most kMaxTerms
};

/// Vectors of 16 bytes of own values in a tile: 8 KiB, which is 2 for each of kBlockThreads.
constexpr std::uint32_t kTileVectors = 512;
constexpr std::uint32_t kBlockThreads = 256;

/// How one tensor is divided. It has a head, a body in vectors of `width` elements, and a tail; the
/// body is divided into tiles, and the first tile takes head and tail as well, one by one. Where
/// the pointers cannot be aligned together, width is 1 and all is body.
struct Division {
  std::uint64_t count;       // elements
  std::uint32_t first_tile;  // in the launch
  std::uint16_t width;       // 1, or vector_width(own)
  std::uint16_t head;        // elements before the first vector, fewer than width
};

/// Elements [begin, end), in tile order; `end - begin` is a multiple of the width.
struct Range {
  std::uint64_t begin;
  std::uint64_t end;
};

/// The body of a tensor.
BLUEFOG_HOST_DEVICE constexpr Range body_of(const Division& division) {
  // The width is a power of two, and a division by it a hundred instructions on a GPU.
  const std::uint64_t whole = (division.count - division.head) & -std::uint64_t{division.width};
  return {division.head, division.head + whole};
}

/// The part of the body that is in the tensor's tile number `tile`, of `tile_elements` each.
BLUEFOG_HOST_DEVICE constexpr Range tile_of(const Division& division, std::uint32_t tile,
                                            std::uint32_t tile_elements) {
  const Range body = body_of(division);
  const std::uint64_t begin = body.begin + static_cast<std::uint64_t>(tile) * tile_elements;
  const std::uint64_t end = begin + tile_elements;
  return {begin, end < body.end ? end : body.end};
}

/// Number `i` of the elements that are in no vector, of the head and then of the tail; there are
/// loose_of(division) of them, fewer than kBlockThreads.
BLUEFOG_HOST_DEVICE constexpr std::uint64_t loose_of(const Division& division) {
  const Range body = body_of(division);
  return division.count - (body.end - body.begin);
}
BLUEFOG_HOST_DEVICE constexpr std::uint64_t loose_element(const Division& division,
                                                          std::uint64_t i) {
  return i < division.head ? i : body_of(division).end + (i - division.head);
}

/// The division of a tensor at these addresses; `terms` begins with the own values, and
/// `first_tile` is left at 0. Peels a head where that aligns every pointer for vectors, payloads
/// for as many of their smaller elements.
Division divide(Element own, Element payload, const void* y, std::span<const void* const> terms,
                std::size_t count);

/// Tiles of a tensor: one at least, unless it is empty.
std::uint32_t tiles_of(const Division& division, std::uint32_t tile_elements);

/// The parameter of a launch. Pointers and weights share the words: weights first, then for each
/// tensor its Division (2 words), its result and its terms.
struct CombineArguments {
  static constexpr std::uint32_t kWords = 509;

  std::uint32_t tensors;
  std::uint32_t terms;
  std::uint32_t tiles;          // of all tensors
  std::uint32_t tile_elements;  // kTileVectors * vector_width(own)
  std::uint32_t streaming;      // write past the cache: set by who launches
  std::uint32_t unused;
  std::uint64_t words[kWords];

  BLUEFOG_HOST_DEVICE constexpr std::uint32_t row(std::uint32_t tensor) const {
    return terms + tensor * (terms + 3);
  }
  BLUEFOG_HOST_DEVICE std::uint32_t first_tile(std::uint32_t tensor) const {
    return static_cast<std::uint32_t>(words[row(tensor) + 1]);
  }
  BLUEFOG_HOST_DEVICE Division division(std::uint32_t tensor) const {
    const std::uint64_t packed = words[row(tensor) + 1];
    return {words[row(tensor)], static_cast<std::uint32_t>(packed),
            static_cast<std::uint16_t>(packed >> 32), static_cast<std::uint16_t>(packed >> 48)};
  }
  BLUEFOG_HOST_DEVICE void* result(std::uint32_t tensor) const {
    return reinterpret_cast<void*>(words[row(tensor) + 2]);
  }
  BLUEFOG_HOST_DEVICE const void* term(std::uint32_t tensor, std::uint32_t k) const {
    return reinterpret_cast<const void*>(words[row(tensor) + 3 + k]);
  }
  /// The bits of weight k, of the type of accumulation: a float in the low half, or a double.
  BLUEFOG_HOST_DEVICE constexpr std::uint64_t weight_bits(std::uint32_t k) const {
    return words[k];
  }
  /// The tensor that has the tile of this number.
  BLUEFOG_HOST_DEVICE std::uint32_t tensor_of(std::uint32_t tile) const {
    std::uint32_t low = 0;
    for (std::uint32_t high = tensors; high - low > 1;) {
      const std::uint32_t middle = (low + high) / 2;
      (first_tile(middle) <= tile ? low : high) = middle;
    }
    return low;
  }
};
static_assert(sizeof(CombineArguments) == 4096, "the kernel parameters of every CUDA");

/// Terms that a launch has room for, with one tensor.
constexpr std::size_t kMaxTerms = (CombineArguments::kWords - 3) / 2;

/// Fills `arguments` with the tensors of `list` from number `first` on, as many as fit and none
/// that is empty. Returns the number after the last one taken; `arguments.tiles` may be 0, if all
/// were empty. Throws Error(kUsage) for more than kMaxTerms terms.
std::size_t fill(const CombineList& list, std::size_t first, CombineArguments& arguments);

}  // namespace bluefog
