// Where what arrives in an exchange goes: into a weighted sum, or side by side.
#pragma once

#include <functional>
#include <span>
#include <vector>

#include "base/dtype.h"
#include "kernels/combine.h"
#include "plan/plan.h"
#include "transport/transport.h"

namespace bluefog {

class Sink {
 public:
  virtual ~Sink() = default;

  /// All neighbours have agreed. `sources` are the greetings of the plan's sources, in its order.
  /// What it throws ends the operation, once neighbours have got this rank's data.
  virtual void prepare(const Plan& plan, std::span<const Greeting> sources) = 0;

  virtual void consume(const Piece& piece) = 0;

  /// Everything has arrived.
  virtual void finish() {}
};

/// y = self_weight * x + sum over sources of (source's weight * sender's weight) * r, tensor by
/// tensor. A term of weight 0 does not count, whatever its values: NaN and infinity too.
class CombineSink : public Sink {
 public:
  /// A tensor's place in the stream, with the memory of this rank's value x and of the result y
  /// (which may be x).
  struct Part {
    std::size_t offset;
    std::size_t nbytes;
    DType dtype;
    const std::byte* x;
    std::byte* y;
  };

  /// `parts` ascend by offset; what lies between them is left out. This rank's own term is added
  /// after those of the first `self_at` sources.
  explicit CombineSink(std::vector<Part> parts, std::size_t self_at = 0);

  void prepare(const Plan& plan, std::span<const Greeting> sources) override;
  void consume(const Piece& piece) override;
  void finish() override;

 private:
  void combine_range(const Part& part, std::size_t from, std::size_t until, const Piece* piece);

  std::vector<Part> parts_;
  const std::size_t self_at_;
  Store store_;                  // of the results
  std::vector<double> weights_;  // in the order of addition
};

/// Copies the sources' bytes one after the other into memory that is asked for once their sizes are
/// known.
class GatherSink : public Sink {
 public:
  /// Given the first dimension that each source brings, returns memory for all of them.
  using Allocate = std::function<std::byte*(std::span<const std::int64_t> rows)>;

  explicit GatherSink(Allocate allocate) : allocate_(std::move(allocate)) {}

  void prepare(const Plan& plan, std::span<const Greeting> sources) override;
  void consume(const Piece& piece) override;

 private:
  Allocate allocate_;
  std::vector<std::byte*> places_;  // one per source
  Store store_ = Store::kCached;
};

/// Copies each source's stream to places that are known from the start; what has no place is left
/// out.
class PlaceSink : public Sink {
 public:
  struct Place {
    std::size_t offset;  // in the stream
    std::size_t nbytes;
    std::byte* to;
  };

  /// For each source of the plan, its places, ascending by offset.
  explicit PlaceSink(std::vector<std::vector<Place>> places);

  void prepare(const Plan&, std::span<const Greeting>) override {}
  void consume(const Piece& piece) override;

 private:
  std::vector<std::vector<Place>> places_;
  Store store_;
};

}  // namespace bluefog
