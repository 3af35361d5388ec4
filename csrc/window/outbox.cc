#include "window/outbox.h"

#include <algorithm>
#include <utility>

#include "base/error.h"

namespace bluefog::window {

Bytes Outbox::room() {
  if (spare_.empty()) return arithmetic_.values->allocate(nbytes_);
  Bytes buffer = std::move(spare_.back());
  spare_.pop_back();
  return buffer;
}

void Outbox::drop(Slot& slot) {
  if (!slot) return;
  spare_.push_back(std::move(slot->value));
  slot.reset();
}

void Outbox::send(Sending kind, const std::byte* x, double weight, double p) {
  const bool first = !waiting_;
  if (first) waiting_ = Parcel{room()};
  Parcel& parcel = *waiting_;
  if (first || kind == Sending::kPut) {
    arithmetic_.values->scale(dtype_, parcel.value.get(), x, weight, nbytes_);
    parcel.p = p;
  } else {
    const Term terms[] = {{parcel.value.get(), 1.0}, {x, weight}};
    arithmetic_.values->combine(dtype_, parcel.value.get(), terms, nbytes_);
    parcel.p += p;
  }
  if (kind == Sending::kPut) {
    parcel.supersedes = true;
    ++parcel.puts;
  }
  if (!under_way_) dispatch();
}

void Outbox::dispatch() {
  under_way_ = std::exchange(waiting_, std::nullopt);
  post_(++number_, *under_way_);
}

void Outbox::send_last() {
  if (!waiting_) return;
  const Parcel last = *std::exchange(waiting_, std::nullopt);  // its buffer is not used again
  post_(++number_, last);
}

void Outbox::applied(std::uint64_t number, std::uint64_t consumed) {
  if (!under_way_ || number != number_ || consumed > number) {
    fail(ErrorCode::kSystem, "a parcel was answered that was not sent: number ", number,
         ", consumed ", consumed, "; the last one was ", number_);
  }
  if (consumed > consumed_ || under_way_->supersedes) drop(held_);
  consumed_ = std::max(consumed_, consumed);
  if (consumed_ < number) hold();
  drop(under_way_);
  if (waiting_) dispatch();
}

// The parcel under way joins what the mailbox holds.
void Outbox::hold() {
  if (!held_) {
    held_ = std::exchange(under_way_, std::nullopt);
    return;
  }
  const Term terms[] = {{held_->value.get(), 1.0}, {under_way_->value.get(), 1.0}};
  arithmetic_.parcels->combine(dtype_, held_->value.get(), terms, nbytes_);
  held_->p += under_way_->p;
}

void Outbox::consumed(std::uint64_t number) {
  if (number <= consumed_) return;
  consumed_ = number;
  drop(held_);
}

double Outbox::outstanding(std::byte* y) const {
  std::vector<Term> terms;
  double p = 0;
  for (const Slot* slot : {&held_, &under_way_, &waiting_}) {
    if (!*slot) continue;
    if ((*slot)->supersedes) {
      terms.clear();
      p = 0;
    }
    terms.push_back({(*slot)->value.get(), 1.0});
    p += (*slot)->p;
  }
  arithmetic_.values->combine(dtype_, y, terms, nbytes_);
  return p;
}

}  // namespace bluefog::window
