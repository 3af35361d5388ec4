#include "window/inbox.h"

#include <utility>

namespace bluefog::window {

MailboxReader::Value Inbox::look() {
  dropped_.reset();
  if (reader_.take()) {
    fresh_ = true;
    ++statistics_.records;
  }
  const MailboxReader::Value value = reader_.value();
  if (value.supersedes) {
    held_.reset();
    held_p_ = 0;
  }
  return value;
}

double Inbox::collect(double weight, bool reset, std::vector<Term>& terms) {
  const MailboxReader::Value value = look();
  if (reset) reader_.claim();  // at once: see the race in mailbox.h
  statistics_.staleness = std::exchange(fresh_, false) ? 0 : statistics_.staleness + 1;
  if (value.plus != nullptr) terms.push_back({value.plus, weight});
  if (value.minus != nullptr) terms.push_back({value.minus, -weight});
  if (held_) terms.push_back({held_.get(), weight});
  const double p = weight * (value.p + held_p_);
  if (reset) {
    dropped_ = std::exchange(held_, nullptr);
    held_p_ = 0;
  }
  return p;
}

void Inbox::hold(Value value) {
  const double p = look().p + held_p_;
  reader_.claim();
  held_ = std::move(value);
  held_p_ = p;
  fresh_ = true;
  ++statistics_.gets;
}

std::uint64_t Inbox::version() {
  look();
  return reader_.puts() - puts_read_ + statistics_.gets - gets_read_;
}

void Inbox::mark_read() {
  puts_read_ = reader_.puts();
  gets_read_ = statistics_.gets;
}

double Inbox::p() { return look().p + held_p_; }

}  // namespace bluefog::window
