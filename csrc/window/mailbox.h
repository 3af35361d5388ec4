// A mailbox: what rank j has sent to rank i and i has not collected yet. It lies in i's memory; j
// writes it and i reads it, and neither ever waits for the other.
//
// Four buffers go round. The writer fills `back` and swaps it with `middle`; the reader, when it
// finds `middle` fresh, swaps it with one that it can spare. Each of them is thus held by exactly
// one side, only the writer ever changes what is in a buffer, and a record is complete before the
// swap that shows it: nothing is torn, wherever a side is stopped or killed.
//
// Record s holds the sum of the contributions (base, s]; a put makes base = s - 1. To reset, the
// reader takes the newest record and stores its sequence as `consumed`. An accumulate adds to the
// last record, or begins anew (base = last) where that one is consumed. Between the two lies a
// race: the writer may have added to record c just before c was consumed. The record that comes
// out then has base < c, and as every accumulate since c has kept its base, it is also c's own: the
// reader, which keeps record c until it has consumed a later one, subtracts it, sum(base, s] -
// sum(base, c] = sum(c, s]. No contribution is lost or counted twice. The writer looks at
// `consumed` once more right before its swap, so that a long race, and with it a sum that keeps on
// growing, takes an unlucky pause between two instructions each time.
#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>

#include "base/dtype.h"
#include "window/arithmetic.h"

namespace bluefog::window {

/// What a buffer holds; written before the buffer is shown.
struct alignas(64) Record {
  std::uint64_t sequence = 0;  // of this record in its mailbox, from 1; 0: nothing yet
  std::uint64_t base = 0;      // its value is the sum of the contributions (base, sequence]
  std::uint64_t put_at = 0;    // the last put; what the mailbox held before it is void
  std::uint64_t puts = 0;      // so far
  double p = 0;                // push-sum weight that goes with the value, summed up like it
};

/// The part of a mailbox that both sides see, all zeros at first but `middle`.
struct MailboxControl {
  static constexpr std::uint32_t kBuffers = 4;
  static constexpr std::uint32_t kFresh = 8;  // beside the index, in `middle`

  MailboxControl() = default;

  // The two swaps (acq_rel) pair with each other: contents go one way, room the other.
  alignas(64) std::atomic<std::uint32_t> middle{1};
  // Stored by the reader (release), read by the writer (acquire).
  alignas(64) std::atomic<std::uint64_t> consumed{0};
  std::array<Record, kBuffers> records;
};

/// A mailbox in mapped memory, as either side sees it.
struct Mailbox {
  MailboxControl* control;
  std::byte* data;     // kBuffers buffers
  std::size_t stride;  // from one to the next
  DType dtype;
  std::size_t nbytes;                                 // of a value
  const Arithmetic* arithmetic = &host_arithmetic();  // the writer's

  std::byte* buffer(std::uint32_t index) const { return data + index * stride; }
  Record& record(std::uint32_t index) const { return control->records[index]; }
};

/// One thread at a time.
class MailboxWriter {
 public:
  explicit MailboxWriter(const Mailbox& mailbox) : box_(mailbox) {}

  /// The mailbox then holds weight * x and p, whatever it held before.
  void put(const std::byte* x, double weight, double p);

  /// Adds weight * x and p to what the mailbox holds.
  void accumulate(const std::byte* x, double weight, double p);

  /// The same in steps, the last of which takes no time: replace() or add(), settle(), publish().
  /// `puts`: how many calls of put are in x.
  void replace(const std::byte* x, double weight, double p, std::uint64_t puts = 1);
  void add(const std::byte* x, double weight, double p);
  void settle();
  void publish();

  /// Writes to `y` what has been sent and not consumed, and returns its p. Exact once the reader
  /// has ended.
  double outstanding(std::byte* y) const;

 private:
  Record& begin();
  void begin_anew();
  void combine(std::byte* y, std::span<const Term> terms) const;

  const Mailbox box_;
  std::uint32_t back_ = 0;
  std::uint32_t last_ = 2;  // shown last; at first one that was never written
  const std::byte* x_ = nullptr;
  double weight_ = 0;
  double p_ = 0;
};

/// One thread at a time.
class MailboxReader {
 public:
  explicit MailboxReader(const Mailbox& mailbox) : box_(mailbox) {}

  /// What has come since the last claim(): plus - minus, both null where nothing has. Valid until
  /// the next take().
  struct Value {
    const std::byte* plus = nullptr;
    const std::byte* minus = nullptr;
    double p = 0;
    bool supersedes = false;  // what the mailbox held otherwise is void: there has been a put
  };

  /// Moves on to the newest record; false where there is none newer.
  bool take();
  Value value() const;
  void claim();  // empties the mailbox: what value() said counts no more

  std::uint64_t puts() const { return box_.record(front_).puts; }
  std::uint64_t consumed() const { return consumed_; }  // the sequence of the last claim()

 private:
  std::uint64_t sequence(std::uint32_t index) const { return box_.record(index).sequence; }

  const Mailbox box_;
  std::uint32_t front_ = 2;
  std::uint32_t spare_ = 3;  // holds the record consumed last, unless front_ does
  std::uint64_t consumed_ = 0;
};

}  // namespace bluefog::window
