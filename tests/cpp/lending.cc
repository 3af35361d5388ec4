#include "lending.h"

#include <utility>

namespace bluefog::test {
namespace {

Bytes stream_of(const Payload& payload) {
  Bytes bytes(payload.nbytes());
  payload.copy(0, bytes.size(), bytes.data());
  return bytes;
}

class LendingExchange : public Exchange {
 public:
  LendingExchange(Transport& inner, Request request)
      : loan_(inner, stream_of(*request.payload)),
        inner_(inner.begin({request.frame, request.plan, &loan_.payload, request.deadline})) {}

  ~LendingExchange() override {
    inner_.reset();
    loan_.spoil();
  }

  std::vector<Greeting> meet() override {
    auto greetings = inner_->meet();
    failures_ = inner_->failures();
    return greetings;
  }

  void drop(int peer) override { inner_->drop(peer); }

  bool next(Piece& piece) override {
    const bool more = inner_->next(piece);
    failures_ = inner_->failures();
    return more;
  }

 private:
  Loan loan_;
  std::unique_ptr<Exchange> inner_;
};

}  // namespace

std::unique_ptr<Exchange> LendingTransport::begin(const Request& request) {
  return std::make_unique<LendingExchange>(*inner_, request);
}

}  // namespace bluefog::test
