#include "window/mailbox.h"

#include <utility>

namespace bluefog::window {

// ---- Writer

void MailboxWriter::combine(std::byte* y, std::span<const Term> terms) const {
  box_.arithmetic->combine(box_.dtype, y, terms, box_.nbytes);
}

// The next record continues the last one.
Record& MailboxWriter::begin() {
  Record& next = box_.record(back_);
  next = box_.record(last_);
  ++next.sequence;
  return next;
}

void MailboxWriter::put(const std::byte* x, double weight, double p) {
  replace(x, weight, p);
  publish();
}

void MailboxWriter::replace(const std::byte* x, double weight, double p, std::uint64_t puts) {
  Record& next = begin();
  next.base = next.sequence - 1;
  next.put_at = next.sequence;
  next.puts += puts;
  next.p = p;
  const Term term{x, weight};
  combine(box_.buffer(back_), {&term, 1});
}

void MailboxWriter::accumulate(const std::byte* x, double weight, double p) {
  add(x, weight, p);
  settle();
  publish();
}

void MailboxWriter::add(const std::byte* x, double weight, double p) {
  x_ = x, weight_ = weight, p_ = p;
  Record& next = begin();
  const Record& last = box_.record(last_);
  if (box_.control->consumed.load(std::memory_order_acquire) >= last.sequence) {
    return begin_anew();
  }
  next.p = last.p + p;
  const Term terms[] = {{box_.buffer(last_), 1.0}, {x, weight}};
  combine(box_.buffer(back_), terms);
}

void MailboxWriter::begin_anew() {
  Record& next = box_.record(back_);
  next.base = next.sequence - 1;
  next.p = p_;
  const Term term{x_, weight_};
  combine(box_.buffer(back_), {&term, 1});
}

void MailboxWriter::settle() {
  const Record& last = box_.record(last_);
  if (box_.record(back_).base < last.sequence &&
      box_.control->consumed.load(std::memory_order_acquire) >= last.sequence) {
    begin_anew();
  }
}

void MailboxWriter::publish() {
  const std::uint32_t old =
      box_.control->middle.exchange(back_ | MailboxControl::kFresh, std::memory_order_acq_rel);
  last_ = std::exchange(back_, old & ~MailboxControl::kFresh);
}

double MailboxWriter::outstanding(std::byte* y) const {
  const std::uint64_t consumed = box_.control->consumed.load(std::memory_order_acquire);
  const Record& last = box_.record(last_);
  const Term sum{box_.buffer(last_), 1.0};
  if (consumed >= last.sequence) {
    combine(y, {});
    return 0;
  }
  if (last.base >= consumed) {
    combine(y, {&sum, 1});
    return last.p;
  }
  // The reader has kept the record that it consumed, so no buffer was given back with it.
  std::uint32_t kept = 0;
  while (box_.record(kept).sequence != consumed) ++kept;
  const Term terms[] = {sum, {box_.buffer(kept), -1.0}};
  combine(y, terms);
  return last.p - box_.record(kept).p;
}

// ---- Reader

bool MailboxReader::take() {
  if (!(box_.control->middle.load(std::memory_order_relaxed) & MailboxControl::kFresh)) {
    return false;
  }
  const bool keep_spare = sequence(front_) != consumed_ && sequence(spare_) == consumed_;
  if (!keep_spare) std::swap(front_, spare_);
  // front_ goes: it is neither the record consumed last nor the newest.
  front_ =
      box_.control->middle.exchange(front_, std::memory_order_acq_rel) & ~MailboxControl::kFresh;
  return true;
}

MailboxReader::Value MailboxReader::value() const {
  const Record& front = box_.record(front_);
  if (front.sequence <= consumed_) return {};
  Value value{box_.buffer(front_), nullptr, front.p, front.put_at > consumed_};
  if (front.base < consumed_) {
    value.minus = box_.buffer(spare_);
    value.p -= box_.record(spare_).p;
  }
  return value;
}

void MailboxReader::claim() {
  consumed_ = sequence(front_);
  box_.control->consumed.store(consumed_, std::memory_order_release);
}

}  // namespace bluefog::window
