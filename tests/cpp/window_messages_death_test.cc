// A neighbour in another process that is stopped, or killed, and reached by messages.
#include <gtest/gtest.h>
#include <signal.h>

#include <thread>

#include "forked.h"
#include "mailboxes.h"
#include "window/window.h"

namespace bluefog::test {
namespace {

using window::Sending;
using window::Window;

constexpr std::size_t kCount = 1 << 19;  // 4 MiB

/// A window of ranks 0 and 1, both ways; x is filled with the rank + 1.
struct Pair {
  Pair(int rank, const Rendezvous& rendezvous) : x(kCount, rank + 1.0) {
    window::Spec spec{
        "x", rank, {2, DType::kFloat64, kCount * 8, true}, {1 - rank}, {1 - rank}, true, [](int) {
          return nullptr;
        }};
    spec.route = window::Route::kMessages;
    spec.service = std::make_shared<messages::Service>(rank, 2);
    window = Window::create(std::move(spec), bytes_of(x), rendezvous, Deadline::in(kPlenty));
    window->carry_p(true);
  }
  window::Call call(milliseconds timeout = kPlenty) {
    return {bytes_of(x), false, Deadline::in(timeout)};
  }
  void accumulate(int to) {
    window->send(Sending::kAccumulate, bytes_of(x), {{to, 1.0}}, 1, call());
  }
  double outstanding(int rank) {
    std::vector<double> y(kCount);
    const double p = window->outstanding(rank, bytes_of(y));
    EXPECT_EQ(y, std::vector<double>(kCount, p)) << "x is p, in rank 0";
    return p;
  }

  std::vector<double> x;
  std::unique_ptr<Window> window;
};

/// Collects until all of `p` has come, and checks that the values are the sum of ones.
void collect(Pair& pair, double p) {
  std::vector<double> sum(kCount), y(kCount);
  while (pair.window->p() < p) {
    pair.window->update(bytes_of(pair.x), 1, {{0, 1.0}}, /*reset=*/true, pair.call());
  }
  EXPECT_EQ(pair.window->p(), p);
  EXPECT_EQ(pair.x, std::vector<double>(kCount, 1 + p));
}

TEST(WindowMessagesDeathTest, AStoppedNeighbourStopsNobodyAndLosesNothing) {
  constexpr int kParcels = 30;
  Store store;
  ForkedRank neighbor(store, 1, [](const Rendezvous& rendezvous) {
    Pair pair(1, rendezvous);
    collect(pair, 1 + kParcels);
    pair.window->free(Deadline::in(kPlenty));
  });
  Pair pair(0, store.rendezvous(0));
  neighbor.signal(SIGSTOP);
  for (int i = 0; i < kParcels; ++i) pair.accumulate(1);
  EXPECT_GT(pair.outstanding(1), 0) << "nothing is answered";
  const Caught flush = catch_error([&] { pair.window->flush(Deadline::in(kShort)); });
  EXPECT_EQ(flush.code, ErrorCode::kTimeout);
  EXPECT_NE(flush.what.find("has not arrived at rank 1"), std::string::npos) << flush.what;
  const Caught get = catch_error([&] { pair.window->get({{1, 1.0}}, pair.call(kShort)); });
  EXPECT_EQ(get.code, ErrorCode::kTimeout);
  EXPECT_NE(get.what.find("for the value of rank 1"), std::string::npos) << get.what;
  neighbor.signal(SIGCONT);
  pair.window->flush(Deadline::in(kPlenty));
  pair.window->free(Deadline::in(kPlenty));
  EXPECT_EQ(neighbor.wait(), 0);
}

TEST(WindowMessagesDeathTest, AKilledNeighbourIsNamedAndWhatItHadNotCollectedIsKnown) {
  Store store;
  ForkedRank neighbor(store, 1, [](const Rendezvous& rendezvous) {
    Pair pair(1, rendezvous);
    collect(pair, 3);
    while (true) ::pause();
  });
  Pair pair(0, store.rendezvous(0));
  for (int i = 0; i < 2; ++i) pair.accumulate(1);
  while (pair.outstanding(1) > 0) std::this_thread::yield();
  for (int i = 0; i < 3; ++i) pair.accumulate(1);
  pair.window->flush(Deadline::in(kPlenty));
  EXPECT_EQ(pair.outstanding(1), 3);
  neighbor.signal(SIGKILL);
  while (!pair.window->lost(1)) std::this_thread::yield();
  for (const auto& call : std::vector<std::function<void()>>{
           [&] { pair.accumulate(1); }, [&] { pair.window->get({{1, 1.0}}, pair.call()); },
           [&] {
             std::vector<double> y(kCount);
             pair.window->value_of(1, bytes_of(y), Deadline::in(kPlenty));
           }}) {
    const Caught caught = catch_error(call);
    EXPECT_EQ(caught.code, ErrorCode::kPeerLost);
    EXPECT_NE(caught.what.find("rank 1 was lost: its connection"), std::string::npos)
        << caught.what;
  }
  EXPECT_EQ(pair.outstanding(1), 3);
  pair.window->update(bytes_of(pair.x), 1, {{1, 1.0}}, true, pair.call());
  pair.window->free(Deadline::in(kPlenty));
}

TEST(WindowMessagesDeathTest, TheMutexOfADeadNeighbourIsFree) {
  for (const bool as_owner : {true, false}) {
    Store store;
    ForkedRank neighbor(store, 1, [&](const Rendezvous& rendezvous) {
      Pair pair(1, rendezvous);
      pair.window->lock(pair.window->keys(!as_owner, {0}), Deadline::in(kPlenty));
      pair.accumulate(0);
      while (true) ::pause();
    });
    Pair pair(0, store.rendezvous(0));
    while (pair.window->p_of(1) == 0) std::this_thread::yield();
    const auto keys = pair.window->keys(as_owner, {1});
    EXPECT_EQ(catch_error([&] { pair.window->lock(keys, Deadline::in(kShort)); }).code,
              ErrorCode::kTimeout);
    neighbor.signal(SIGKILL);
    pair.window->lock(keys, Deadline::in(kPlenty));
    pair.window->unlock(keys);
  }
}

}  // namespace
}  // namespace bluefog::test
