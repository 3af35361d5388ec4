// The contract between the executor and whatever moves bytes.
//
// A Transport connects this rank with some or all ranks of its group. An Exchange is this rank's
// part in one neighbor operation. The executor drives every exchange in the same three steps:
//
//   auto exchange = transport.begin(request);  // says hello to every neighbour
//   auto greetings = exchange->meet();         // waits for every neighbour's hello
//   while (exchange->next(piece)) ...          // moves payloads, a piece at a time
//
// A transport knows nothing of weights beyond carrying them, of tensors, or of graphs. To add one:
// a folder beside these with a Transport and an Exchange, a line in backend/connect.cc, a name in
// Group::kinds() of tests/cpp/ranks.cc.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/error.h"
#include "plan/plan.h"
#include "transport/frame.h"
#include "transport/payload.h"

namespace bluefog {

/// What this rank brings to an exchange. The plan and the payload's memory belong to the caller and
/// outlive it.
struct Request {
  Frame frame;
  const Plan* plan;
  const Payload* payload;
  Deadline deadline;  // of meet(); the payloads have until deadline.renewed() from then on
};

/// Bytes that have arrived: the same range of every source's stream, in the order of the plan's
/// sources. A source whose stream ended earlier, or that was dropped, has a shorter or empty span.
struct Piece {
  std::size_t offset = 0;
  std::vector<std::span<const std::byte>> sources;

  std::size_t size() const;
};

/// Why one neighbour could not take part to the end.
struct Failure {
  int peer;
  ErrorCode code;  // kTimeout, kPeerLost, or kMismatch where the neighbour is at another operation
  std::string what;  // what the neighbour did: "did not start it"
};

/// Not thread-safe: one thread drives an exchange. Destroying it releases every neighbour that
/// waits for this rank.
///
/// A neighbour that fails is noted in failures() and left out; the others are still served, so that
/// a fault stays with the edge that has it. Only an abort (kAborted) and a fault of this rank
/// (kSystem) are thrown.
class Exchange {
 public:
  virtual ~Exchange() = default;

  /// Waits for the greetings of all neighbours of the plan, until the deadline; returns them in the
  /// order of plan.neighbors(). The greeting of a neighbour that failed has no meaning.
  virtual std::vector<Greeting> meet() = 0;

  /// Takes `peer` out of this exchange: nothing more is sent to or read from it. Called between
  /// meet() and next(). A peer that goes on all the same gets a failure, or all that it is due.
  virtual void drop(int peer) = 0;

  /// Fills `piece` with the next bytes of all sources; false at the end, when also everything that
  /// this rank sends has been handed over. Pieces come in ascending order; one is valid until the
  /// next call. Once a piece is handed out, the same range of this rank's own payload may change
  /// unless it is steady: it has been sent. A piece may have been overwritten by a source that
  /// failed: look at failures() after the last call, before trusting the result.
  virtual bool next(Piece& piece) = 0;

  /// Neighbours that failed so far, in the order in which it was noticed.
  const std::vector<Failure>& failures() const { return failures_; }

 protected:
  std::vector<Failure> failures_;
};

/// Thread-safe.
class Transport {
 public:
  virtual ~Transport() = default;

  /// For messages and statistics: "shm", "tcp".
  virtual const char* name() const = 0;

  /// Starts this rank's part: greets every neighbour, waits for none of them to arrive.
  virtual std::unique_ptr<Exchange> begin(const Request& request) = 0;

  /// Makes every pending and later exchange throw kAborted, within milliseconds.
  virtual void abort() = 0;

  /// Memory that neighbours can read in place, `nbytes` of zeros, or null where this transport has
  /// none (left).
  virtual std::shared_ptr<std::byte> allocate(std::size_t) { return nullptr; }

  /// How `peer` was lost, "its process ended", as far as this transport knows without asking it;
  /// null while it lives.
  virtual const char* lost(int) const { return nullptr; }

  /// Called once by the thread that will drive exchanges for as long as the group lives, and once
  /// when it ends: a transport may tie this rank's sign of life to that thread.
  virtual void attach() {}
  virtual void detach() {}
};

}  // namespace bluefog
