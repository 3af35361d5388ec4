// One-sided puts between the GPUs of a group, on whichever hosts: memory of this rank into which
// others write, and memory from which it writes into theirs. Needs NCCL 2.29.
//
// On an edge one put at a time is under way: the target says, by a channel of the caller's, when it
// has taken what has landed. And the sender says by that channel when it has made a put: only then
// may the target await it. Everything is then behind what was enqueued before it in time, on
// whichever rank: a wait behind its put, and, as NCCL puts all that a communicator is given into
// one order, a put behind the rank's earlier waits. What only looks back in time cannot be a
// circle, so no order of calls can deadlock, provided that what a put is put behind looks back,
// too.
//
// The communicator is this object's own, made through the Store. It is not split off another one: a
// split needs the parent idle for as long as it takes, and its failure would be the end of the
// parent, which neighbor operations go on using. Copy engines and the network move the bytes, so
// that its operations take no multiprocessor from those of other communicators.
//
// Thread-safe. A failure of any call but Error(kUsage) ends everything here, as abort() does: what
// waits on the device then cannot be told from what comes later.
#pragma once

#include <c10/core/Event.h>
#include <c10/core/Stream.h>

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "transport/nccl/communicator.h"
#include "transport/nccl/nccl_memory.h"
#include "transport/nccl/own_wire.h"
#include "transport/nccl/put_slots.h"

namespace bluefog::nccl {

class Puts {
 public:
  struct Options {
    PutEdges edges;
    at::Device device;
    std::chrono::milliseconds timeout;  // to set up, and for a call to be enqueued
    std::string name = "bluefog puts";  // in NCCL's messages
    DeviceHooks hooks = {};
    /// How long the destructor waits for puts of this rank that are under way.
    std::chrono::milliseconds patience = std::chrono::seconds(5);
  };

  /// Collective over the group; `store` is this object's own, a prefix of the group's. Throws what
  /// PutSlots::agree and Communicator::connect do, the same on all ranks where it can; and
  /// Error(kSystem) where NCCL has no windows between these devices. Nothing ends its waits for
  /// other ranks before the timeout.
  Puts(std::shared_ptr<NcclApi> api, c10d::Store& store, Options options);

  /// For when nothing is under way any more, to this rank or from it. Waits for nobody else. Keeps
  /// the memory for good where puts of this rank are still reading it after `patience`.
  ~Puts();
  Puts(const Puts&) = delete;
  Puts& operator=(const Puts&) = delete;

  /// Device memory of nbytes: where what `from` puts arrives, and what a put to `to` is made from.
  std::byte* landing(int from) const;
  std::byte* outgoing(int to) const;

  /// Enqueues a put of all of outgoing(to), behind what `behind` has been given, on a stream of
  /// this object's own. The host waits for nothing on the device.
  void put(int to, c10::Stream behind);

  /// Waits, in the calling thread, for the next put of `from`, which it has said that it has made.
  /// On return it is in landing(from), for whichever stream. Throws Error(kTimeout), the
  /// communicator's error, or Error(kAborted) after abort(). A thread that calls this may not
  /// capture a graph with it.
  void await(int from, const Deadline& deadline);

  /// Ends what is under way, and all calls, with Error(kAborted).
  void abort() noexcept;

 private:
  void set_up(c10d::Store& store);
  void raise_first_signal(const Deadline& deadline);
  c10::Event enqueue_wait(int from, const Deadline& deadline);
  void poll(const c10::Event& landed, int from, const Deadline& deadline);
  bool own_puts_ended() noexcept;

  template <typename Call>
  void attempt(Call&& call);
  void end(const Error& error) noexcept;
  void rethrow_failure() const;

  const std::shared_ptr<NcclApi> api_;
  const Options options_;
  PutSlots slots_;
  std::optional<c10::Stream> putting_, waiting_;

  mutable std::mutex mutex_;
  std::condition_variable failed_;
  std::optional<Error> failure_;  // under mutex_; the first

  // Held until a call is enqueued; never by abort(), which ends the call. Taken before mutex_.
  std::mutex calls_mutex_;
  std::optional<c10::Event> last_put_;  // under calls_mutex_

  // NCCL may write the window, and use the memory, for as long as there is the communicator.
  Window window_ = nullptr;
  std::optional<NcclMemory> memory_;
  Communicator communicator_;
};

}  // namespace bluefog::nccl
