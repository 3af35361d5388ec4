#include <fcntl.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <atomic>
#include <cstring>
#include <latch>
#include <thread>

#include "ranks.h"
#include "transport/shm/handshake.h"

namespace bluefog::test {
namespace {

using shm::Segment;

// reach[i][j]: whether rank i has mapped rank j's segment. `adapt` may replace a rank's rendezvous.
using Reach = std::vector<std::vector<bool>>;
using Adapt = std::function<Rendezvous(int rank, Rendezvous)>;

Reach handshake(
    int n, const std::set<int>& without_memory,
    const Adapt& adapt = [](int, Rendezvous rendezvous) { return rendezvous; }) {
  Store store;
  Reach reach(n);
  run_ranks(n, [&](int rank) {
    std::optional<Segment> own;
    if (!without_memory.count(rank)) own.emplace(Segment::create(rank, n, 4096, 2));
    const auto peers = shm::exchange_segments(adapt(rank, store.rendezvous(rank)), rank, n,
                                              own ? &*own : nullptr, Deadline::in(kPlenty));
    for (const auto& peer : peers) reach[rank].push_back(peer.has_value());
  });
  return reach;
}

// Everybody reaches everybody else, but for `lonely`.
Reach all_but(int n, const std::set<int>& lonely) {
  Reach reach(n, std::vector<bool>(n));
  for (int i = 0; i < n; ++i) {
    for (int j = 0; j < n; ++j) reach[i][j] = i != j && !lonely.count(i) && !lonely.count(j);
  }
  return reach;
}

TEST(ShmHandshakeTest, AllRanksOfAHostReachEachOther) {
  for (int n : {1, 2, 3, 8, 20}) EXPECT_EQ(handshake(n, {}), all_but(n, {})) << n;
}

TEST(ShmHandshakeTest, ARankWithoutMemoryTakesPartAndReachesNobody) {
  EXPECT_EQ(handshake(4, {2}), all_but(4, {2}));
  EXPECT_EQ(handshake(3, {0, 1, 2}), all_but(3, {0, 1, 2}));
}

TEST(ShmHandshakeTest, OtherHostsAreOutOfReach) {
  const auto reach = handshake(4, {}, [](int rank, Rendezvous rendezvous) {
    return Rendezvous{[=](const std::string& key, const std::string& value) {
                        const bool elsewhere = rank == 1 && key == "shm/host";
                        rendezvous.set(key, elsewhere ? value + "another boot id" : value);
                      },
                      rendezvous.get};
  });
  EXPECT_EQ(reach, all_but(4, {1}));
}

// Rank 0 cannot find rank 1's socket, as in another network namespace; rank 1 finds rank 0's.
TEST(ShmHandshakeTest, BothSidesComeToTheSameAnswer) {
  auto expected = all_but(3, {});
  expected[0][1] = expected[1][0] = false;
  const auto reach = handshake(3, {}, [](int rank, Rendezvous rendezvous) {
    return Rendezvous{rendezvous.set, [=](int of, const std::string& key) {
                        std::string value = rendezvous.get(of, key);
                        if (rank == 0 && of == 1 && key == "shm/host") value[0] ^= 1;
                        return value;
                      }};
  });
  EXPECT_EQ(reach, expected);
}

// Connects to the socket that rank 0 has just announced, and says `hail`.
UniqueFd call_as_stranger(const std::string& host, const std::string& hail) {
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path + 1, host.data(), 16);
  const auto length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + 16);
  UniqueFd fd(::socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
  EXPECT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), length), 0);
  if (!hail.empty()) {
    EXPECT_GT(::send(fd.get(), hail.data(), hail.size(), MSG_NOSIGNAL), 0);
  }
  return fd;
}

TEST(ShmHandshakeTest, StrangersAreSentAway) {
  // Nothing, too little, too much, and a hail of the right length with a wrong secret.
  std::vector<std::string> hails{"", "hi", std::string(500, 'x'), std::string(20, 'x')};
  hails.resize(30);  // and more callers than there are ranks
  std::vector<UniqueFd> strangers;
  const auto reach = handshake(3, {}, [&](int rank, Rendezvous rendezvous) {
    if (rank != 0) return rendezvous;
    return Rendezvous{[&, rendezvous](const std::string& key, const std::string& value) {
                        if (key == "shm/host") {  // before any rank can have called
                          for (auto& hail : hails) {
                            strangers.push_back(call_as_stranger(value, hail));
                          }
                        }
                        rendezvous.set(key, value);
                      },
                      rendezvous.get};
  });
  EXPECT_EQ(reach, all_but(3, {}));
  ASSERT_EQ(strangers.size(), hails.size());
  for (const UniqueFd& stranger : strangers) {
    char byte;
    const ssize_t got = ::recv(stranger.get(), &byte, 1, MSG_DONTWAIT);
    EXPECT_TRUE(got == 0 || (got < 0 && errno == ECONNRESET)) << "got an answer, or waits still";
  }
}

TEST(ShmHandshakeTest, AForeignSegmentIsNotMapped) {
  Store store;
  run_ranks(2, [&](int rank) {
    const Segment own = Segment::create(rank == 0 ? 5 : 1, 2, 4096, 2);
    const auto peers =
        shm::exchange_segments(store.rendezvous(rank), rank, 2, &own, Deadline::in(kPlenty));
    EXPECT_FALSE(peers[1 - rank].has_value());
  });
}

TEST(ShmHandshakeTest, ARankThatNeverComesIsNamed) {
  Store store;
  const Segment own = Segment::create(0, 2, 4096, 2);
  Rendezvous impatient{store.rendezvous(0).set, [&](int of, const std::string& key) {
                         return store.get(of, key, milliseconds(1));
                       }};
  const Caught caught =
      catch_error([&] { shm::exchange_segments(impatient, 0, 2, &own, Deadline::in(kPlenty)); });
  EXPECT_EQ(caught.code, ErrorCode::kTimeout);
  EXPECT_NE(caught.what.find("rank 1"), std::string::npos) << caught.what;
}

std::atomic<int> signals{0};

// Rank 0 waits in poll() for rank 1's answer, which does not come before the signals have.
TEST(ShmHandshakeTest, SignalsDoNotShortenAWait) {
  struct sigaction action{};
  action.sa_handler = [](int) { ++signals; };
  struct sigaction before{};
  ASSERT_EQ(::sigaction(SIGUSR1, &action, &before), 0);
  std::latch called(1);
  pthread_t rank0;
  const auto reach = handshake(2, {}, [&](int rank, Rendezvous rendezvous) {
    if (rank == 0) {
      rank0 = ::pthread_self();
      return Rendezvous{[&, rendezvous](const std::string& key, const std::string& value) {
                          rendezvous.set(key, value);
                          if (key == "shm/called") called.count_down();
                        },
                        rendezvous.get};
    }
    return Rendezvous{[&, rendezvous](const std::string& key, const std::string& value) {
                        rendezvous.set(key, value);
                        if (key != "shm/called") return;
                        called.wait();
                        for (int sent = 1; sent <= 200; ++sent) {
                          ::pthread_kill(rank0, SIGUSR1);
                          while (signals < sent) std::this_thread::yield();
                        }
                      },
                      rendezvous.get};
  });
  ::sigaction(SIGUSR1, &before, nullptr);
  EXPECT_EQ(signals, 200);
  EXPECT_EQ(reach, all_but(2, {}));
}

TEST(ShmHandshakeTest, DifferentChunkSizesAreRefusedOnAllRanks) {
  Store store;
  run_ranks(3, [&](int rank) {
    const Caught caught = catch_error([&] {
      shm::ShmTransport::connect(store.rendezvous(rank), rank, 3,
                                 shm_env(rank == 1 ? 8192 : 4096, 2), Deadline::in(kPlenty));
    });
    EXPECT_EQ(caught.code, ErrorCode::kUsage);
    for (const char* part : {"rank 1", "4096", "8192", "BLUEFOG_SHM_CHUNK_BYTES"}) {
      EXPECT_NE(caught.what.find(part), std::string::npos) << caught.what;
    }
  });
}

}  // namespace
}  // namespace bluefog::test
