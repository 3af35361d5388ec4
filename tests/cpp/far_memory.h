// Memory that only an Arithmetic can use, as that of a GPU is: who reads or writes it otherwise
// ends with SIGSEGV.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <vector>

#include "window/arithmetic.h"

namespace bluefog::test {

/// Hands out addresses that belong to nobody, and knows what they stand for. Thread-safe.
class FarMemory {
 public:
  window::Bytes allocate(std::size_t nbytes) {
    void* const address =
        ::mmap(nullptr, nbytes + 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    EXPECT_NE(address, MAP_FAILED);
    auto* const far = static_cast<std::byte*>(address);
    add(far, nbytes, std::make_shared<std::vector<std::byte>>(nbytes));
    return {far, [this, nbytes](std::byte* far) {
              remove(far);
              ::munmap(far, nbytes + 1);
            }};
  }

  /// Memory of the host, used as it is.
  void pin(std::byte* host, std::size_t nbytes) { add(host, nbytes, nullptr); }
  void remove(std::byte* begin) {
    const std::lock_guard lock(mutex_);
    ranges_.erase(begin);
  }

  /// Where `address` really is. Fails for memory that is neither far nor pinned.
  std::byte* near(const std::byte* address, std::size_t nbytes) const {
    const std::lock_guard lock(mutex_);
    auto entry = ranges_.upper_bound(address);
    if (entry == ranges_.begin()) return nowhere();
    --entry;
    const auto& [begin, range] = *entry;
    const std::size_t offset = address - begin;
    if (offset + nbytes > range.nbytes) return nowhere();
    return range.real ? range.real->data() + offset : const_cast<std::byte*>(address);
  }

  std::size_t ranges() const {
    const std::lock_guard lock(mutex_);
    return ranges_.size();
  }

 private:
  struct Range {
    std::size_t nbytes;
    std::shared_ptr<std::vector<std::byte>> real;  // null: it is where it is
  };

  void add(std::byte* begin, std::size_t nbytes, std::shared_ptr<std::vector<std::byte>> real) {
    const std::lock_guard lock(mutex_);
    ranges_[begin] = {nbytes, std::move(real)};
  }
  static std::byte* nowhere() {
    throw std::logic_error("an address that the device does not reach");
  }

  mutable std::mutex mutex_;
  std::map<const std::byte*, Range> ranges_;  // under mutex_
};

/// Works on far memory and on host memory that is pinned.
class FarArithmetic : public window::Arithmetic {
 public:
  explicit FarArithmetic(FarMemory& memory) : memory_(memory) {}

  void combine(DType dtype, std::byte* y, std::span<const Term> terms,
               std::size_t nbytes) const override {
    std::vector<Term> near;
    for (const Term& term : terms) near.push_back({memory_.near(term.data, nbytes), term.weight});
    window::host_arithmetic().combine(dtype, memory_.near(y, nbytes), near, nbytes);
  }
  void show(std::byte* shown, const std::byte* x, std::size_t nbytes) const override {
    window::host_arithmetic().show(memory_.near(shown, nbytes), memory_.near(x, nbytes), nbytes);
  }
  void look(std::byte* to, std::byte* shown, std::size_t nbytes) const override {
    window::host_arithmetic().look(memory_.near(to, nbytes), memory_.near(shown, nbytes), nbytes);
  }

 protected:
  FarMemory& memory_;
};

/// Its rooms are far.
class OnDevice : public FarArithmetic {
 public:
  using FarArithmetic::FarArithmetic;
  window::Bytes allocate(std::size_t nbytes) const override { return memory_.allocate(nbytes); }
};

/// Its rooms are memory of the host, and so is what it is told to reach.
class Pinned : public FarArithmetic {
 public:
  using FarArithmetic::FarArithmetic;
  window::Bytes allocate(std::size_t nbytes) const override {
    window::Bytes room = window::host_arithmetic().allocate(nbytes);
    memory_.pin(room.get(), nbytes);
    return {room.get(), [this, room](std::byte* begin) { memory_.remove(begin); }};
  }
  std::shared_ptr<void> reach(std::byte* data, std::size_t nbytes) const override {
    memory_.pin(data, nbytes);
    return {data, [this](void* begin) { memory_.remove(static_cast<std::byte*>(begin)); }};
  }
};

}  // namespace bluefog::test
