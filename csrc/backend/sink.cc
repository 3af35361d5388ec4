#include "backend/sink.h"

#include <algorithm>

#include "kernels/copy.h"

namespace bluefog {

CombineSink::CombineSink(std::vector<Part> parts, std::size_t self_at)
    : parts_(std::move(parts)), self_at_(self_at) {
  store_ = store_for(parts_.empty() ? 0 : parts_.back().offset + parts_.back().nbytes);
}

void CombineSink::prepare(const Plan& plan, std::span<const Greeting> sources) {
  for (std::size_t i = 0; i < sources.size(); ++i) {
    weights_.push_back(plan.sources()[i].weight * sources[i].weight);
  }
  weights_.insert(weights_.begin() + self_at_, plan.self_weight());
}

void CombineSink::consume(const Piece& piece) {
  const std::size_t end = piece.offset + piece.size();
  auto part = std::partition_point(parts_.begin(), parts_.end(), [&](const Part& p) {
    return p.offset + p.nbytes <= piece.offset;
  });
  for (; part != parts_.end() && part->offset < end; ++part) {
    combine_range(*part, std::max(part->offset, piece.offset),
                  std::min(part->offset + part->nbytes, end), &piece);
  }
}

void CombineSink::combine_range(const Part& part, std::size_t from, std::size_t until,
                                const Piece* piece) {
  std::vector<Term> terms;
  for (std::size_t i = 0; i < weights_.size(); ++i) {
    if (weights_[i] == 0) continue;  // 0 * NaN would be NaN
    const std::byte* data =
        i == self_at_ ? part.x + (from - part.offset)
                      : piece->sources[i - (i > self_at_)].data() + (from - piece->offset);
    terms.push_back({data, weights_[i]});
  }
  combine(part.dtype, part.y + (from - part.offset), terms, until - from, store_);
}

// A rank without sources sees no piece: its result is its own value, weighted.
void CombineSink::finish() {
  if (weights_.size() > 1) {
    return;
  }
  for (const Part& part : parts_) {
    combine_range(part, part.offset, part.offset + part.nbytes, nullptr);
  }
}

void GatherSink::prepare(const Plan& plan, std::span<const Greeting> sources) {
  std::vector<std::int64_t> rows;
  for (const Greeting& source : sources) {
    rows.push_back(source.frame.rows);
  }
  std::byte* const begin = allocate_(rows);
  std::byte* place = begin;
  for (std::size_t i = 0; i < plan.sources().size(); ++i) {
    places_.push_back(place);
    place += sources[i].frame.nbytes;
  }
  store_ = store_for(place - begin);
}

void GatherSink::consume(const Piece& piece) {
  for (std::size_t i = 0; i < piece.sources.size(); ++i) {
    const auto bytes = piece.sources[i];
    if (!bytes.empty()) copy(places_[i] + piece.offset, bytes.data(), bytes.size(), store_);
  }
}

PlaceSink::PlaceSink(std::vector<std::vector<Place>> places) : places_(std::move(places)) {
  std::size_t nbytes = 0;
  for (const auto& of_source : places_) {
    for (const Place& place : of_source) nbytes += place.nbytes;
  }
  store_ = store_for(nbytes);
}

void PlaceSink::consume(const Piece& piece) {
  for (std::size_t i = 0; i < piece.sources.size(); ++i) {
    const auto bytes = piece.sources[i];
    const std::size_t end = piece.offset + bytes.size();
    auto place = std::partition_point(places_[i].begin(), places_[i].end(), [&](const Place& p) {
      return p.offset + p.nbytes <= piece.offset;
    });
    for (; place != places_[i].end() && place->offset < end; ++place) {
      const std::size_t from = std::max(place->offset, piece.offset);
      const std::size_t until = std::min(place->offset + place->nbytes, end);
      if (until > from) {
        copy(place->to + (from - place->offset), bytes.data() + (from - piece.offset), until - from,
             store_);
      }
    }
  }
}

}  // namespace bluefog
