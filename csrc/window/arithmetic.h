// What windows do with values, wherever those lie.
#pragma once

#include <memory>
#include <span>

#include "kernels/combine.h"

namespace bluefog::window {

using Bytes = std::shared_ptr<std::byte>;

/// Works on the caller's values, on mailboxes and on what allocate() gives. A call is over when it
/// returns: what it read may change then, and others may be shown what it wrote. Thread-safe.
class Arithmetic {
 public:
  virtual ~Arithmetic() = default;

  /// As kernels/combine.h; `y` may be the data of the first term.
  virtual void combine(DType dtype, std::byte* y, std::span<const Term> terms,
                       std::size_t nbytes) const = 0;

  /// Copies a value of exactly nbytes to where others may be reading it, or, in whole words, from
  /// where its owner may be writing it: then what is read may be torn, and no more. `shown` is
  /// aligned to 8 bytes and has room for whole words, and so has `to`.
  virtual void show(std::byte* shown, const std::byte* x, std::size_t nbytes) const = 0;
  virtual void look(std::byte* to, std::byte* shown, std::size_t nbytes) const = 0;

  virtual Bytes allocate(std::size_t nbytes) const = 0;

  /// Makes memory of the host one that it works on, for as long as the result lives.
  virtual std::shared_ptr<void> reach(std::byte*, std::size_t) const { return nullptr; }

  /// y = weight * x; y may be x.
  void scale(DType dtype, std::byte* y, const std::byte* x, double weight,
             std::size_t nbytes) const {
    const Term term{x, weight};
    combine(dtype, y, {&term, 1}, nbytes);
  }
};

/// That of the CPU, in its memory.
const Arithmetic& host_arithmetic();

}  // namespace bluefog::window
