// One-sided memory: ranks that never wait for each other.
//
// Each rank has a value (a tensor of the caller's) and, from each of its in-neighbours, a mailbox.
// put and accumulate write into the mailboxes of out-neighbours, get copies a neighbour's value
// into the own mailbox of it, and update adds the mailboxes, weighted, to the value. All of this is
// done by the rank that calls: on one host with loads and stores, and the other one need not do, or
// be, anything; between hosts with messages that a thread of the other one answers. Only a mutex,
// a get between hosts, and making and freeing a window, wait for others.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <shared_mutex>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "plan/plan.h"
#include "transport/messages/service.h"
#include "transport/rendezvous.h"
#include "window/carrier.h"
#include "window/inbox.h"
#include "window/mutexes.h"
#include "window/peer.h"
#include "window/queue.h"

namespace bluefog::window {

/// How ranks reach each other: through shared memory where they can and else by messages, or only
/// in one of these ways.
enum class Route { kAny, kShared, kMessages };

/// What a window on a device has of it; nothing for one on the host.
struct Device {
  const char* memory = "host memory";  // where the values are, for people
  /// For the threads that call; its rooms are memory that the host can use, too, unless all
  /// neighbours share memory.
  std::shared_ptr<const Arithmetic> calls;
  /// For other threads, which never see the callers' values. Null: the host does what they do.
  std::shared_ptr<const Arithmetic> service;
  /// Of a Shape with `apart`: where the values of a rank are, for this process.
  std::function<Bytes(int rank)> values_of;
  /// Of parcels to and from neighbours that share no memory; null: messages have them. Then what
  /// they are made with, in memory of the device.
  std::shared_ptr<Carrier> carrier;
  std::shared_ptr<const Arithmetic> parcels;
};

/// How a rank sees a window. Neighbours in ascending order.
struct Spec {
  std::string name;
  int rank;
  Shape shape;
  std::vector<int> in_neighbors;
  std::vector<int> out_neighbors;
  bool zero_init;  // mailboxes are empty at first; else they hold this rank's own value
  std::function<const char*(int rank)> lost;             // how a rank was lost, null while it lives
  Route route = Route::kAny;                             // the same on all ranks
  std::shared_ptr<messages::Service> service = nullptr;  // of the group
  std::uint64_t channel = 0;  // of that, for this window alone; the same on all ranks
  Device device = {};
};

/// What a call works on. `own` is the rank's value, which belongs to the caller.
struct Call {
  std::byte* own;
  bool require_mutex;
  Deadline deadline;
};

struct InStatistics : InboxStatistics {
  int rank;
};
struct Statistics {
  std::vector<InStatistics> in;
  std::vector<OutStatistics> out;
  double waited;  // seconds, for mutexes
};

/// Thread-safe; calls of several threads are served one after the other. A child that was forked
/// from the process that made it can only destroy it.
class Window {
 public:
  /// Collective over the group, with equal shapes. Throws Error(kSystem) where memory is refused or
  /// a neighbour cannot be reached, Error(kTimeout) naming a rank that does not come.
  static std::unique_ptr<Window> create(Spec spec, const std::byte* own,
                                        const Rendezvous& rendezvous, Deadline deadline);
  ~Window();

  /// Into the mailboxes at the ranks of `to`: weight * x. After that x becomes self_weight * x, and
  /// p, if it goes along, self_weight * p. Throws, before anything is sent, Error(kUsage) for ranks
  /// that are no out-neighbours, Error(kPeerLost) for one that was lost.
  void send(Sending kind, std::byte* x, const std::vector<Edge>& to, double self_weight, Call call);

  /// Waits until what was sent is in the mailboxes. Throws Error(kTimeout) naming ranks where it is
  /// not, Error(kPeerLost) naming one where it will never be, once it is there at all others.
  void flush(const Deadline& deadline);

  /// Puts weight * (the value that the rank shows) into the own mailboxes of the ranks of `from`.
  /// Of other hosts it asks for it; then it may throw Error(kTimeout) or Error(kPeerLost).
  void get(const std::vector<Edge>& from, Call call);

  /// y = self_weight * own + sum of weight * mailbox over `from`; y may be own. With `reset` the
  /// mailboxes of `from` are empty after that.
  void update(std::byte* y, double self_weight, const std::vector<Edge>& from, bool reset,
              Call call);

  /// Puts and gets per in-neighbour that no update has used yet.
  std::vector<std::pair<int, std::uint64_t>> versions();

  /// The value and p that `rank`, an in- or out-neighbour or this rank itself, shows; of this host
  /// also one that was lost, of another host as get().
  double value_of(int rank, std::byte* y, const Deadline& deadline);

  /// What this rank has sent to an out-neighbour and that one has not collected, and its p, as far
  /// as is known. On one host it can be relied on once that rank was lost.
  double outstanding(int rank, std::byte* y);

  /// Push-sum weights: this rank's own, or that in a mailbox.
  double p();
  double p_of(int in_neighbor);
  void set_p(double p);
  void carry_p(bool on) { carries_p_ = on; }

  /// The mutexes of this rank's mailboxes at `ranks`, or, `as_owner`, of theirs here. Throws
  /// Error(kUsage) for ranks that are no neighbours.
  std::vector<Mutexes::Key> keys(bool as_owner, const std::vector<int>& ranks) const;

  /// Takes them, or gives them back; as in Mutexes.
  void lock(const std::vector<Mutexes::Key>& keys, const Deadline& deadline);
  void unlock(const std::vector<Mutexes::Key>& keys);

  Statistics statistics();

  /// Waits until all neighbours that live have come to free the window as well, then closes it.
  /// Throws Error(kTimeout), after closing it, naming those that did not come.
  void free(const Deadline& deadline);

  /// Gives the memory back and makes all later calls throw Error(kAborted). Waits for nobody.
  void close();
  bool closed() const { return closed_; }
  bool forked() const;  // whether this process is such a child

  /// Whether a neighbour has ended or freed the window.
  bool lost(int rank);

  /// Bytes of this rank's part of the window.
  std::size_t nbytes();

  /// How far a neighbour has got with freeing it.
  Life neighbor_life(int rank);

  const Spec& spec() const { return spec_; }

  /// What works on the values of calls.
  const Arithmetic& arithmetic() const;

 private:
  using Peers = std::vector<std::unique_ptr<Peer>>;  // by rank; null for all but neighbours
  class Maker;                                       // for the time of create()

  Window(Spec spec, Segment own, Peers peers, std::shared_ptr<Queue> landings);

  class Entered;  // for the time of a call: the window is open, and this thread alone in it
  class Holding;  // for the time of a call: mutexes
  std::string title(const char* what) const;
  void check_process() const;
  void check_live(const char* what, const std::vector<Edge>& edges) const;
  void check_edges(const char* what, bool in, const std::vector<Edge>& edges) const;
  void check_weight(const char* what, double weight) const;
  Peer& peer(int rank) const;
  const char* lost_how(int rank) const;
  PairMutex::Outcome enter(Mutexes::Key key, const Deadline& deadline,
                           const std::function<bool()>& give_up);
  void leave(Mutexes::Key key);
  void show(const std::byte* own);
  void flush_carrier(const Deadline& deadline);
  std::vector<int> not_leaving() const;

  const Spec spec_;
  const int pid_;  // of the process that made the window
  std::atomic<bool> closed_{false};
  std::atomic<bool> carries_p_{false};
  std::shared_mutex open_;  // shared by calls, alone by close()
  std::mutex mutex_;        // of what follows
  std::optional<Segment> own_;
  Peers peers_;
  const std::shared_ptr<Queue> landings_;        // null without a carrier
  std::vector<std::unique_ptr<Inbox>> inboxes_;  // by rank; null for all but in-neighbours
  double p_ = 1;
  Mutexes mutexes_;
};

}  // namespace bluefog::window
