#include "backend/shares.h"

#include <algorithm>

namespace bluefog {
namespace {

using Place = PlaceSink::Place;

// The tensor is cut into stripes, and each stripe among the ranks; so every rank has something to
// sum in each chunk that goes through the ring, and finds it in the cache.
constexpr std::size_t kStripe = 256 << 10;

// What rank `rank` of `n` sums of `nbytes` bytes: its part of every stripe, added to `payload` in
// ascending order. Parts are multiples of Payload::kAlignment but for the last one.
void add_share(Payload& payload, const std::byte* data, std::size_t nbytes, int rank, int n) {
  constexpr std::size_t kUnit = Payload::kAlignment;
  for (std::size_t stripe = 0; stripe < nbytes; stripe += kStripe) {
    const std::size_t size = std::min(kStripe, nbytes - stripe);
    const std::size_t part = (size + n * kUnit - 1) / (n * kUnit) * kUnit;
    const std::size_t begin = std::min(size, rank * part);
    const std::size_t end = std::min(size, begin + part);
    if (begin < end) payload.add(data + stripe + begin, end - begin);
  }
}

// Where the sums of rank `rank` belong.
std::vector<Place> share_places(std::byte* data, std::size_t nbytes, int rank, int n) {
  Payload payload;
  add_share(payload, data, nbytes, rank, n);
  std::vector<Place> places;
  for (const auto& segment : payload.segments()) {
    places.push_back({segment.offset, segment.nbytes, data + (segment.data - data)});
  }
  return places;
}

}  // namespace

void sum_in_shares(Task& task, DType dtype, std::byte* data, std::size_t nbytes) {
  const int rank = task.plan->rank(), n = task.plan->size();
  task.payload.add(data, nbytes);
  task.payload.steady = true;  // but for this rank's own share, which no other rank reads
  Stage& sums = task.then.emplace();
  add_share(sums.payload, data, nbytes, rank, n);
  sums.payload.steady = true;
  std::vector<CombineSink::Part> parts;
  for (const auto& segment : sums.payload.segments()) {
    const std::size_t at = segment.data - data;
    parts.push_back({at, segment.nbytes, dtype, data + at, data + at});
  }
  task.sink = std::make_unique<CombineSink>(std::move(parts), rank);
  std::vector<std::vector<Place>> places;
  for (const Edge& source : task.plan->sources()) {
    places.push_back(share_places(data, nbytes, source.rank, n));
  }
  sums.sink = std::make_unique<PlaceSink>(std::move(places));
}

}  // namespace bluefog
