// What one in-neighbour has for this rank: its mailbox, and what the mailbox holds without the
// neighbour's doing, a copy of this rank's first value or the result of a get.
#pragma once

#include <memory>
#include <vector>

#include "kernels/combine.h"
#include "window/mailbox.h"

namespace bluefog::window {

/// Counts of one edge, as the receiver sees it.
struct InboxStatistics {
  std::uint64_t records = 0;  // new records found in the mailbox
  std::uint64_t gets = 0;
  std::uint64_t staleness = 0;  // updates in a row that found nothing new
};

/// One thread at a time.
class Inbox {
 public:
  using Value = std::shared_ptr<const std::byte>;

  /// Until something comes the mailbox holds `initial`, or zeros where that is null.
  Inbox(const Mailbox& mailbox, Value initial) : reader_(mailbox), held_(std::move(initial)) {}

  /// Appends the terms of weight * (what the mailbox holds), which stay valid until the next call
  /// of another method, and returns weight * its p. With `reset` the mailbox is empty after that.
  double collect(double weight, bool reset, std::vector<Term>& terms);

  /// Puts the result of a get in place of what the mailbox holds; p stays as it is.
  void hold(Value value);

  /// Puts and gets since the last mark_read().
  std::uint64_t version();
  void mark_read();

  double p();

  /// The mailbox's last record that a reset or a get has taken out of it.
  std::uint64_t consumed() const { return reader_.consumed(); }

  const InboxStatistics& statistics() const { return statistics_; }

 private:
  MailboxReader::Value look();

  MailboxReader reader_;
  Value held_;
  Value dropped_;  // by a reset; its terms are in use until the next call
  double held_p_ = 0;
  std::uint64_t puts_read_ = 0;
  std::uint64_t gets_read_ = 0;
  bool fresh_ = false;  // something has come since the last collect()
  InboxStatistics statistics_;
};

}  // namespace bluefog::window
