// Payloads in memory that neighbours can read in place.
#pragma once

#include <algorithm>
#include <memory>

#include "traffic.h"

namespace bluefog::test {

/// A copy of `bytes` in memory of `transport`, as a payload that stays unchanged.
struct Loan {
  Loan(Transport& transport, const Bytes& bytes)
      : memory(transport.allocate(bytes.size())), nbytes(bytes.size()) {
    std::copy(bytes.begin(), bytes.end(), memory.get());
    payload.add(memory.get(), nbytes);
    payload.steady = true;
  }

  /// What an owner may do once the exchange is over.
  void spoil() { std::fill_n(memory.get(), nbytes, std::byte{0xdd}); }

  std::shared_ptr<std::byte> memory;
  std::size_t nbytes;
  Payload payload;
};

/// Passes every exchange on with a copy of its payload in the inner transport's memory, so that it
/// is lent; the copy is spoilt as soon as the exchange is over.
class LendingTransport : public Transport {
 public:
  explicit LendingTransport(std::unique_ptr<Transport> inner) : inner_(std::move(inner)) {}

  const char* name() const override { return inner_->name(); }
  std::unique_ptr<Exchange> begin(const Request& request) override;
  void abort() override { inner_->abort(); }
  std::shared_ptr<std::byte> allocate(std::size_t n) override { return inner_->allocate(n); }
  void attach() override { inner_->attach(); }
  void detach() override { inner_->detach(); }

 private:
  const std::unique_ptr<Transport> inner_;
};

}  // namespace bluefog::test
