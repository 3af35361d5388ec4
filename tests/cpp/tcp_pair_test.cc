// One connection between two ranks: what is said, thrown away and left unread.
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <cerrno>
#include <cstring>

#include "traffic.h"
#include "transport/tcp/pair.h"

namespace bluefog::test {
namespace {

using tcp::Head;
using tcp::Pair;

/// A connection over the loopback. Linux has what is sent there at once, before send() returns.
std::pair<UniqueFd, UniqueFd> connected() {
  const UniqueFd listener(::socket(AF_INET, SOCK_STREAM, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t length = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  UniqueFd one(::socket(AF_INET, SOCK_STREAM, 0));
  if (::bind(listener.get(), generic, length) != 0 || ::listen(listener.get(), 1) != 0 ||
      ::getsockname(listener.get(), generic, &length) != 0 ||
      ::connect(one.get(), generic, length) != 0) {
    ADD_FAILURE() << std::strerror(errno);
  }
  return {std::move(one), UniqueFd(::accept(listener.get(), nullptr, nullptr))};
}

class TcpPairTest : public ::testing::Test {
 protected:
  TcpPairTest() : TcpPairTest(connected()) {}

  void enter(std::uint64_t sequence) {
    here.enter(sequence);
    there.enter(sequence);
  }
  void greet() {
    Greeting greeting;
    greeting.weight = 0.25;
    there.greet(greeting);
    there.progress();
  }
  void send(const Bytes& bytes) {
    there.send(bytes);
    there.progress();
  }
  /// What `here` reads into room for so much.
  Bytes read(std::size_t nbytes) {
    Bytes room(nbytes);
    here.make_room(room);
    here.progress();
    EXPECT_TRUE(here.filled());
    here.make_room({});
    return room;
  }
  bool readable() {
    pollfd awaited = here.awaited();
    return ::poll(&awaited, 1, 0) == 1;
  }

 private:
  explicit TcpPairTest(std::pair<UniqueFd, UniqueFd> ends)
      : raw(ends.second.get()), here(std::move(ends.first)), there(std::move(ends.second)) {}

 protected:
  const int raw;  // the socket of `there`
  Pair here, there;
};

TEST_F(TcpPairTest, APayloadIsReadAsThereIsRoom) {
  enter(1);
  greet();
  send(pattern(1, 1, 1000));
  send(pattern(1, 2, 500));
  here.progress();
  EXPECT_TRUE(here.greeted());
  EXPECT_EQ(here.greeting().weight, 0.25);
  Bytes all = read(700);
  const Bytes rest = read(800);
  all.insert(all.end(), rest.begin(), rest.end());
  Bytes expected = pattern(1, 1, 1000);
  const Bytes second = pattern(1, 2, 500);
  expected.insert(expected.end(), second.begin(), second.end());
  EXPECT_EQ(all, expected);
  EXPECT_EQ(here.received(), 1500u);
}

TEST_F(TcpPairTest, WhatComesOfEarlierExchangesIsThrownAway) {
  enter(1);
  greet();
  const Bytes old = pattern(1, 1, 200'000);
  send(old);
  read(1000);
  there.leave(Head::Kind::kGiveUp);
  enter(2);
  EXPECT_FALSE(here.greeted());
  greet();
  send(pattern(1, 2, 3000));
  here.progress();
  EXPECT_TRUE(here.greeted());
  EXPECT_FALSE(here.gave_up()) << "that was in the exchange before";
  EXPECT_EQ(read(3000), pattern(1, 2, 3000));
}

TEST_F(TcpPairTest, WhatComesOfLaterExchangesWaits) {
  enter(1);
  there.enter(2);
  greet();
  send(pattern(1, 2, 3000));
  here.progress();
  EXPECT_TRUE(here.ahead());
  EXPECT_FALSE(here.greeted());
  EXPECT_LT(here.awaited().fd, 0) << "there is nothing to wait for, or one would spin";
  here.enter(2);
  here.progress();
  EXPECT_FALSE(here.ahead());
  EXPECT_TRUE(here.greeted());
  EXPECT_EQ(read(3000), pattern(1, 2, 3000));
}

TEST_F(TcpPairTest, WhoLeavesSaysWhyAndTakesNoMoreOfTheCallersBytes) {
  for (const Head::Kind why : {Head::Kind::kGiveUp, Head::Kind::kDrop}) {
    enter(why == Head::Kind::kGiveUp ? 1 : 2);
    greet();
    const std::size_t size = 16 << 20;  // more than the connection takes
    Bytes mine = pattern(1, 1, size);
    send(mine);
    EXPECT_FALSE(there.all_sent());
    there.leave(why);
    std::ranges::fill(mine, std::byte{0});
    Bytes room(size);
    here.make_room(room);
    while (!here.gave_up() && !here.dropped()) {
      here.progress();
      there.progress();
    }
    EXPECT_EQ(here.gave_up(), why == Head::Kind::kGiveUp);
    EXPECT_TRUE(room == pattern(1, 1, size));
  }
}

// Or each frame that arrives would wake a thread.
TEST_F(TcpPairTest, NobodyIsWokenForAPartOfWhatIsAwaited) {
  enter(1);
  greet();
  here.progress();
  const Head head{Head::kMagic, Head::Kind::kPayload, 1, 100'000};
  const Bytes bytes = pattern(1, 1, 100'000);
  Bytes room(bytes.size());
  here.make_room(room);
  ASSERT_EQ(::send(raw, &head, sizeof(head), 0), static_cast<ssize_t>(sizeof(head)));
  EXPECT_TRUE(readable()) << "the head may be the last that comes";
  here.progress();
  for (std::size_t sent = 0; sent < bytes.size(); sent += 20'000) {
    EXPECT_FALSE(readable()) << sent;
    ASSERT_EQ(::send(raw, bytes.data() + sent, 20'000, 0), 20'000);
  }
  EXPECT_TRUE(readable());
  here.progress();
  EXPECT_TRUE(here.filled());
  EXPECT_TRUE(room == bytes);
}

TEST_F(TcpPairTest, AGoodbyeComesAfterAllThatWasSaid) {
  enter(1);
  greet();
  send(pattern(1, 1, 300'000));
  here.greet({});
  here.progress();  // the other side has not read this
  there.hang_up(milliseconds(0));
  EXPECT_EQ(read(300'000), pattern(1, 1, 300'000));
  here.progress();
  EXPECT_STREQ(here.lost(), "it has destroyed the process group");
  EXPECT_LT(here.awaited().fd, 0);
  here.greet({});
  here.progress();
  EXPECT_FALSE(here.all_sent()) << "nobody is there";
}

TEST_F(TcpPairTest, WhatIsNoMessageEndsTheConnection) {
  const Head good{Head::kMagic, Head::Kind::kGreeting, 1, sizeof(Greeting)};
  Head other_version = good, unknown = good, other_size = good;
  other_version.magic += 1;
  unknown.kind = static_cast<Head::Kind>(77);
  other_size.nbytes += 1;
  for (const Head& head : {other_version, unknown, other_size}) {
    auto [one, two] = connected();
    Pair pair(std::move(one));
    pair.enter(1);
    ASSERT_EQ(::send(two.get(), &head, sizeof(head), 0), static_cast<ssize_t>(sizeof(head)));
    pair.progress();
    ASSERT_NE(pair.lost(), nullptr);
    EXPECT_NE(std::string(pair.lost()).find("it sent what is no message"), std::string::npos);
  }
}

}  // namespace
}  // namespace bluefog::test
