// What is on its way to a mailbox in another rank's process.
//
// At most one parcel is under way; what is sent in the meantime is gathered in one that waits: a
// put takes the place of what waits, an accumulate is added to it. So a rank that does not take its
// parcels costs memory for two, and time for none.
//
// Parcels are numbered, and the mailbox has one record for each: the receiver, in the order of what
// happened there, says which one it has applied and up to which one it has consumed. Between two
// answers it can have consumed no other state than that before or after the parcel under way, so
// what it holds can be told from these words.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "window/arithmetic.h"

namespace bluefog::window {

enum class Sending { kPut, kAccumulate };

struct Parcel {
  Bytes value;
  double p = 0;
  std::uint64_t puts = 0;   // calls of put that went into it
  bool supersedes = false;  // what the mailbox held before is void
};

/// What works on values that are sent, and on parcels, in whichever thread.
struct OutboxArithmetic {
  const Arithmetic* values = &host_arithmetic();
  const Arithmetic* parcels = &host_arithmetic();
};

/// One thread at a time.
class Outbox {
 public:
  /// Sends a parcel, whose value does not change before applied().
  using Post = std::function<void(std::uint64_t number, const Parcel& parcel)>;

  Outbox(DType dtype, std::size_t nbytes, Post post, OutboxArithmetic arithmetic = {})
      : dtype_(dtype), nbytes_(nbytes), post_(std::move(post)), arithmetic_(arithmetic) {}

  /// weight * x and p, into the parcel that waits or, if none is under way, on its way.
  void send(Sending kind, const std::byte* x, double weight, double p);

  /// Sends the parcel that waits even if one is under way: nothing follows it.
  void send_last();

  /// The receiver has put parcel `number`, the one under way, into the mailbox, of which it had
  /// consumed all up to parcel `consumed`. Throws Error(kSystem) for numbers that cannot be.
  void applied(std::uint64_t number, std::uint64_t consumed);

  /// The receiver has consumed all up to parcel `number`.
  void consumed(std::uint64_t number);

  /// Writes to `y` what has been sent and, as far as the receiver has said, not been consumed, and
  /// returns its p.
  double outstanding(std::byte* y) const;

  bool waits() const { return waiting_.has_value(); }
  bool delivered() const { return !waiting_ && !under_way_; }
  static constexpr std::size_t kBuffers = 3;

 private:
  using Slot = std::optional<Parcel>;

  void dispatch();
  void drop(Slot& slot);
  void hold();
  Bytes room();

  const DType dtype_;
  const std::size_t nbytes_;
  const Post post_;
  const OutboxArithmetic arithmetic_;
  Slot waiting_;
  Slot under_way_;
  Slot held_;                   // in the receiver's mailbox
  std::uint64_t number_ = 0;    // of the parcel sent last
  std::uint64_t consumed_ = 0;  // the receiver's mailbox up to this parcel
  std::vector<Bytes> spare_;
};

}  // namespace bluefog::window
