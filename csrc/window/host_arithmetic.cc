#include <atomic>
#include <cstring>

#include "window/arithmetic.h"

namespace bluefog::window {
namespace {

using Word = std::uint64_t;

class HostArithmetic : public Arithmetic {
 public:
  void combine(DType dtype, std::byte* y, std::span<const Term> terms,
               std::size_t nbytes) const override {
    bluefog::combine(dtype, y, terms, nbytes, store_for(nbytes));
  }

  // Relaxed atomic accesses, word by word. A value may end in the middle of a word, and begin
  // anywhere: it is the user's.
  void show(std::byte* shown, const std::byte* x, std::size_t nbytes) const override {
    auto* words = reinterpret_cast<Word*>(shown);
    for (std::size_t at = 0; at < nbytes; at += sizeof(Word)) {
      Word word = 0;
      if (nbytes - at >= sizeof(Word)) {
        std::memcpy(&word, x + at, sizeof(Word));
      } else {
        std::memcpy(&word, x + at, nbytes - at);
      }
      std::atomic_ref(*words++).store(word, std::memory_order_relaxed);
    }
  }
  void look(std::byte* to, std::byte* shown, std::size_t nbytes) const override {
    auto* words = reinterpret_cast<Word*>(shown);
    for (std::size_t at = 0; at < nbytes; at += sizeof(Word)) {
      const Word word = std::atomic_ref(*words++).load(std::memory_order_relaxed);
      std::memcpy(to + at, &word, sizeof(Word));
    }
  }

  Bytes allocate(std::size_t nbytes) const override {
    return {new std::byte[nbytes], std::default_delete<std::byte[]>()};
  }
};

}  // namespace

const Arithmetic& host_arithmetic() {
  static const HostArithmetic arithmetic;
  return arithmetic;
}

}  // namespace bluefog::window
