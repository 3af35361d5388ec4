// What a rank does with a window.
#include <cmath>
#include <utility>

#include "window/window_impl.h"

namespace bluefog::window {
namespace {

const char* name_of(Sending kind) { return kind == Sending::kPut ? "put" : "accumulate"; }

std::string list(const std::vector<int>& ranks) {
  std::string text;
  for (int rank : ranks) text += (text.empty() ? "" : ", ") + std::to_string(rank);
  return "[" + text + "]";
}

}  // namespace

// "put on rank 2 in window 'x'"
std::string Window::title(const char* what) const {
  return concat(what, " on rank ", spec_.rank, " in window '", spec_.name, "'");
}

void Window::check_edges(const char* what, bool in, const std::vector<Edge>& edges) const {
  const std::vector<int>& known = in ? spec_.in_neighbors : spec_.out_neighbors;
  std::vector<int> seen;
  for (const Edge& edge : edges) {
    if (!has(known, edge.rank)) {
      fail(ErrorCode::kUsage, title(what), ": rank ", edge.rank, " is none of its ",
           in ? "in-neighbours " : "out-neighbours ", list(known));
    }
    if (std::find(seen.begin(), seen.end(), edge.rank) != seen.end()) {
      fail(ErrorCode::kUsage, title(what), ": rank ", edge.rank, " is given twice");
    }
    seen.push_back(edge.rank);
    check_weight(what, edge.weight);
  }
}

void Window::check_weight(const char* what, double weight) const {
  if (!std::isfinite(weight)) {
    fail(ErrorCode::kUsage, title(what), ": a weight is ", weight);
  }
  if (is_integer(spec_.shape.dtype) &&
      (std::trunc(weight) != weight || std::fabs(weight) > 0x1p62)) {
    fail(ErrorCode::kUsage, title(what), ": the weight ", weight,
         " is no whole number, but the window has integers; make it of a float tensor");
  }
}

void Window::check_live(const char* what, const std::vector<Edge>& edges) const {
  for (const Edge& edge : edges) {
    if (const char* how = lost_how(edge.rank)) {
      fail(ErrorCode::kPeerLost, title(what), " failed: rank ", edge.rank, " was lost: ", how);
    }
    if (peers_[edge.rank]->life() == Life::kClosed) {
      fail(ErrorCode::kPeerLost, title(what), " failed: rank ", edge.rank, " has freed the window");
    }
  }
}

void Window::show(const std::byte* own) {
  if (spec_.shape.readable) own_->own().publish(own, p_);
}

// The value is shown after x has been scaled, which may be it: what others read is then what this
// rank has left.
void Window::send(Sending kind, std::byte* x, const std::vector<Edge>& to, double self_weight,
                  Call call) {
  const char* what = name_of(kind);
  check_edges(what, /*in=*/false, to);
  check_weight(what, self_weight);
  const Holding holding(this, call, /*as_owner=*/false, to);
  const Entered entered(this);
  check_live(what, to);
  for (const Edge& edge : to) {
    Peer& peer = *peers_[edge.rank];
    const double p = carries_p_ ? edge.weight * p_ : 0;
    peer.send(kind, x, edge.weight, p);
    ++(kind == Sending::kPut ? peer.statistics.puts : peer.statistics.accumulates);
  }
  const Shape& shape = spec_.shape;
  if (self_weight != 1) arithmetic().scale(shape.dtype, x, x, self_weight, shape.nbytes);
  if (carries_p_) p_ *= self_weight;
  show(call.own);
}

// Alone with close() in the window: others may go on meanwhile.
void Window::flush(const Deadline& deadline) {
  check_process();
  const std::shared_lock open(open_);
  if (closed_) fail(ErrorCode::kAborted, title("flush"), ": it has been freed");
  std::vector<int> missing;
  std::optional<Error> lost;  // no reason not to wait for the others
  for (int rank : spec_.out_neighbors) {
    try {
      if (!peers_[rank]->flush(deadline)) missing.push_back(rank);
    } catch (const Error& error) {
      lost = error;
    }
  }
  if (!missing.empty()) {
    fail(ErrorCode::kTimeout, title("flush"), ": after ", deadline.timeout_seconds(),
         " s what was sent has not arrived at ", name_ranks(missing));
  }
  if (lost) throw *lost;
}

void Window::get(const std::vector<Edge>& from, Call call) {
  check_edges("get", /*in=*/true, from);
  if (!spec_.shape.readable) {
    fail(ErrorCode::kUsage, title("get"), ": it was made with readable=False");
  }
  const Holding holding(this, call, /*as_owner=*/false, from);
  const Entered entered(this);
  check_live("get", from);
  show(call.own);
  const std::size_t nbytes = spec_.shape.nbytes;
  for (const Edge& edge : from) {
    Peer& peer = *peers_[edge.rank];
    const Bytes room = peer.room(own_->own().stride, arithmetic());
    peer.read(room.get(), call.deadline);
    if (edge.weight != 1) {
      arithmetic().scale(spec_.shape.dtype, room.get(), room.get(), edge.weight, nbytes);
    }
    const auto still = peer.pause();
    inboxes_[edge.rank]->hold(room);
    peer.collected(inboxes_[edge.rank]->consumed());
  }
}

void Window::update(std::byte* y, double self_weight, const std::vector<Edge>& from, bool reset,
                    Call call) {
  check_edges("update", /*in=*/true, from);
  check_weight("update", self_weight);
  const Holding holding(this, call, /*as_owner=*/true, from);
  const Entered entered(this);
  std::vector<Term> terms{{call.own, self_weight}};
  double p = self_weight * p_;
  for (const Edge& edge : from) {
    const auto still = peers_[edge.rank]->pause();
    p += inboxes_[edge.rank]->collect(edge.weight, reset, terms);
    peers_[edge.rank]->collected(inboxes_[edge.rank]->consumed());
  }
  arithmetic().combine(spec_.shape.dtype, y, terms, spec_.shape.nbytes);
  if (carries_p_) p_ = p;
  for (int rank : spec_.in_neighbors) inboxes_[rank]->mark_read();
  show(call.own);
}

std::vector<std::pair<int, std::uint64_t>> Window::versions() {
  const Entered entered(this);
  std::vector<std::pair<int, std::uint64_t>> versions;
  for (int rank : spec_.in_neighbors) versions.emplace_back(rank, inboxes_[rank]->version());
  return versions;
}

Peer& Window::peer(int rank) const {
  if (rank < 0 || rank >= spec_.shape.size || !peers_[rank]) {
    fail(ErrorCode::kUsage, "rank ", rank, " is no neighbour of rank ", spec_.rank, " in window '",
         spec_.name, "'");
  }
  return *peers_[rank];
}

double Window::value_of(int rank, std::byte* y, const Deadline& deadline) {
  const Entered entered(this);
  if (!spec_.shape.readable) {
    fail(ErrorCode::kUsage, title("value_of"), ": it was made with readable=False");
  }
  const OwnValue own = own_->own();
  const Bytes room = arithmetic().allocate(own.stride);
  const double p =
      rank == spec_.rank ? own.read(room.get()) : peer(rank).read(room.get(), deadline);
  arithmetic().scale(spec_.shape.dtype, y, room.get(), 1, spec_.shape.nbytes);
  return p;
}

double Window::outstanding(int rank, std::byte* y) {
  const Entered entered(this);
  if (!has(spec_.out_neighbors, rank)) {
    fail(ErrorCode::kUsage, title("outstanding"), ": rank ", rank, " is none of its ",
         "out-neighbours ", list(spec_.out_neighbors));
  }
  return peers_[rank]->outstanding(y);
}

double Window::p() {
  const Entered entered(this);
  return p_;
}

void Window::set_p(double p) {
  const Entered entered(this);
  p_ = p;
}

double Window::p_of(int in_neighbor) {
  const Entered entered(this);
  check_edges("associated_p", /*in=*/true, {{in_neighbor, 0.0}});
  return inboxes_[in_neighbor]->p();
}

Statistics Window::statistics() {
  const Entered entered(this);
  Statistics all{{}, {}, std::chrono::duration<double>(mutexes_.waited()).count()};
  for (int rank : spec_.in_neighbors) {
    all.in.push_back({inboxes_[rank]->statistics(), rank});
  }
  for (int rank : spec_.out_neighbors) all.out.push_back(peers_[rank]->statistics);
  return all;
}

}  // namespace bluefog::window
