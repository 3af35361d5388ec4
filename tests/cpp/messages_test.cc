#include <gtest/gtest.h>
#include <unistd.h>

#include <cstring>
#include <set>
#include <thread>

#include "ranks.h"
#include "transport/messages/service.h"

namespace bluefog::test {
namespace {

using messages::Channel;
using messages::Header;
using messages::Payload;
using messages::Service;
using tcp::Endpoint;

constexpr std::uint64_t kChannel = 7;

Payload bytes(std::size_t nbytes, int fill) {
  Payload payload(new std::byte[nbytes], std::default_delete<std::byte[]>());
  std::memset(payload.get(), fill, nbytes);
  return payload;
}

/// Keeps what comes.
class Recorder : public Channel {
 public:
  Payload room(int, const Header& header) override {
    if (header.nbytes > 1 << 26) fail(ErrorCode::kSystem, "too much");
    return bytes(header.nbytes, 0);
  }
  void arrived(int from, const Header& header, const Payload& payload) override {
    bool whole = true;
    for (std::size_t i = 0; i < header.nbytes; ++i) {
      whole = whole && payload.get()[i] == std::byte(header.number);
    }
    const std::lock_guard lock(mutex_);
    numbers_[from].push_back(whole ? header.number : 0);
    changed_.notify_all();
  }
  void lost(int rank) override {
    const std::lock_guard lock(mutex_);
    lost_.push_back(rank);
    changed_.notify_all();
  }

  std::vector<std::uint64_t> wait_for(int from, std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPlenty, [&] { return numbers_[from].size() >= count; }));
    return numbers_[from];
  }
  std::vector<int> wait_for_loss() {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(changed_.wait_for(lock, kPlenty, [&] { return !lost_.empty(); }));
    return lost_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<int, std::vector<std::uint64_t>> numbers_;
  std::vector<int> lost_;
};

/// Services that know each other, each with a recorder.
class Post {
 public:
  explicit Post(int n) : n_(n) {
    for (int rank = 0; rank < n; ++rank) {
      services.push_back(std::make_unique<Service>(rank, n));
      recorders.push_back(std::make_shared<Recorder>());
      services[rank]->open(kChannel, recorders[rank]);
      endpoints.push_back(services[rank]->listen());
    }
  }
  void meet() {
    run_ranks(n_, [&](int rank) {
      std::vector<int> others;
      for (int peer = 0; peer < n_; ++peer) {
        if (peer != rank) others.push_back(peer);
      }
      services[rank]->meet(
          others, [&](int peer) { return endpoints[peer]; }, Deadline::in(kPlenty));
    });
  }
  void send(int from, int to, std::uint64_t number, std::size_t nbytes,
            std::uint64_t channel = kChannel) {
    Header header;
    header.channel = channel;
    header.number = number;
    header.nbytes = nbytes;
    services[from]->send(to, header, bytes(nbytes, static_cast<int>(number)));
  }

 private:
  const int n_;

 public:
  std::vector<std::unique_ptr<Service>> services;
  std::vector<std::shared_ptr<Recorder>> recorders;
  std::vector<std::string> endpoints;
};

TEST(MessagesTest, TheyArriveWholeAndInOrder) {
  constexpr int kRanks = 3, kMessages = 25;
  Post post(kRanks);
  post.meet();
  const std::size_t sizes[] = {0, 1, 1000, 5 << 20, 70'000};
  run_ranks(kRanks, [&](int rank) {
    for (int number = 1; number <= kMessages; ++number) {
      for (int peer = 0; peer < kRanks; ++peer) {
        if (peer != rank) post.send(rank, peer, number, sizes[(number + rank) % 5]);
      }
    }
  });
  for (int rank = 0; rank < kRanks; ++rank) {
    for (int peer = 0; peer < kRanks; ++peer) {
      if (peer == rank) continue;
      const auto numbers = post.recorders[rank]->wait_for(peer, kMessages);
      for (std::uint64_t i = 0; i < kMessages; ++i) EXPECT_EQ(numbers[i], i + 1);
    }
  }
}

TEST(MessagesTest, ThoseOfAChannelThatIsNotOpenAreThrownAway) {
  Post post(2);
  post.meet();
  post.send(0, 1, 1, 3'000'000, /*channel=*/8);
  post.send(0, 1, 2, 10);
  EXPECT_EQ(post.recorders[1]->wait_for(0, 1), std::vector<std::uint64_t>{2});
}

TEST(MessagesTest, StrangersAreSentAway) {
  Post post(2);
  const Endpoint there = Endpoint::unpack(post.endpoints[0], 0);
  for (const std::size_t length : {0, 5, 32}) {
    const UniqueFd stranger(::socket(there.address.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(
        ::connect(stranger.get(), reinterpret_cast<const sockaddr*>(&there.address), there.length),
        0);
    const std::string noise(length, 'x');
    ASSERT_EQ(::send(stranger.get(), noise.data(), length, MSG_NOSIGNAL),
              static_cast<ssize_t>(length));
    char byte = 0;
    if (length == 32) {
      EXPECT_LE(::recv(stranger.get(), &byte, 1, 0), 0);
    }
  }
  Endpoint wrong = there;
  wrong.ask[0] = static_cast<char>(wrong.ask[0] + 1);
  const Caught caught = catch_error([&] { tcp::call(wrong, 0, 1, 2, Deadline::in(kPlenty)); });
  EXPECT_EQ(caught.code, ErrorCode::kSystem);
  EXPECT_NE(caught.what.find("rank 1 cannot reach rank 0 at"), std::string::npos) << caught.what;
  wrong = there;
  wrong.answer[0] = static_cast<char>(wrong.answer[0] + 1);
  EXPECT_NE(catch_error([&] {
              tcp::call(wrong, 0, 1, 2, Deadline::in(kPlenty));
            }).what.find("somebody else took the call"),
            std::string::npos);
}

// All ranks of a large group call rank 0 at the same time.
TEST(ReceptionTest, ManyMayCallAtOnce) {
  constexpr int kRanks = 200;
  tcp::Reception reception(0, kRanks, "lo");
  const Endpoint& there = reception.endpoint();
  std::vector<UniqueFd> calls;
  for (int rank = 1; rank < kRanks; ++rank) {
    UniqueFd& fd = calls.emplace_back(::socket(there.address.ss_family, SOCK_STREAM, 0));
    const tcp::Hello hello{tcp::Hello::kMagic, there.ask, rank, kRanks};
    ASSERT_EQ(::connect(fd.get(), reinterpret_cast<const sockaddr*>(&there.address), there.length),
              0);
    ASSERT_EQ(::send(fd.get(), &hello, sizeof(hello), MSG_NOSIGNAL),
              static_cast<ssize_t>(sizeof(hello)));
  }
  std::set<int> ranks;
  const Deadline deadline = Deadline::in(kPlenty);
  while (ranks.size() + 1 < kRanks && !deadline.passed()) {
    for (auto& caller : reception.take([](int) { return true; })) ranks.insert(caller.rank);
  }
  EXPECT_EQ(ranks.size() + 1, kRanks);
  EXPECT_FALSE(reception.has_guests());
}

TEST(MessagesTest, WhatIsNoMessageEndsTheConnection) {
  Post post(3);
  const Endpoint there = Endpoint::unpack(post.endpoints[0], 0);
  const UniqueFd one = tcp::call(there, 0, 1, 3, Deadline::in(kPlenty));
  const std::string noise(200, 'x');
  ::send(one.get(), noise.data(), noise.size(), MSG_NOSIGNAL);
  EXPECT_EQ(post.recorders[0]->wait_for_loss(), std::vector<int>{1});
  EXPECT_NE(std::string(post.services[0]->lost(1)).find("it sent what is no message"),
            std::string::npos);
  const UniqueFd two = tcp::call(there, 0, 2, 3, Deadline::in(kPlenty));
  Header header;
  header.channel = kChannel;
  header.nbytes = 1ull << 60;
  ::send(two.get(), &header, sizeof(header), MSG_NOSIGNAL);
  while (post.services[0]->lost(2) == nullptr) std::this_thread::yield();
  EXPECT_NE(std::string(post.services[0]->lost(2)).find("too much"), std::string::npos);
}

TEST(MessagesTest, WhoLeavesIsMissedAndSaysSo) {
  Post post(3);
  post.meet();
  post.send(1, 0, 9, 8 << 20);
  post.services[1]->shutdown();
  EXPECT_EQ(post.recorders[0]->wait_for(1, 1), std::vector<std::uint64_t>{9}) << "what was sent";
  EXPECT_EQ(post.recorders[0]->wait_for_loss(), std::vector<int>{1});
  EXPECT_STREQ(post.services[0]->lost(1), "it has left the group");
  EXPECT_EQ(post.services[0]->lost(2), nullptr);
  post.send(0, 1, 1, 100);
  post.send(0, 2, 1, 100);
  EXPECT_EQ(post.recorders[2]->wait_for(0, 1).size(), 1u);
  EXPECT_FALSE(post.services[1]->running());
  EXPECT_EQ(catch_error([&] { post.services[1]->listen(); }).code, ErrorCode::kAborted);
}

TEST(MessagesTest, WhoDoesNotComeIsNamed) {
  Post post(3);
  const auto endpoint_of = [&](int peer) { return post.endpoints[peer]; };
  const Caught caught =
      catch_error([&] { post.services[0]->meet({1, 2}, endpoint_of, Deadline::in(kShort)); });
  EXPECT_EQ(caught.code, ErrorCode::kTimeout);
  EXPECT_NE(caught.what.find("for ranks {1, 2} to call it"), std::string::npos) << caught.what;
  post.services[0]->shutdown();
  EXPECT_EQ(
      catch_error([&] { post.services[1]->meet({0}, endpoint_of, Deadline::in(kPlenty)); }).code,
      ErrorCode::kSystem);
  EXPECT_EQ(catch_error([&] { Endpoint::unpack("", 2); }).code, ErrorCode::kSystem);
}

}  // namespace
}  // namespace bluefog::test
