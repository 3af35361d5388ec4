// Drives an exchange as the executor does, but keeps the bytes that arrive.
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <map>
#include <set>
#include <vector>

#include "ranks.h"

namespace bluefog::test {

using Bytes = std::vector<std::byte>;

/// What rank `rank` sends in operation `sequence`: no two ranks, operations or chunks look alike.
inline Bytes pattern(int rank, std::uint64_t sequence, std::size_t size) {
  Bytes bytes(size);
  for (std::size_t i = 0; i < size; ++i) {
    bytes[i] =
        static_cast<std::byte>(i * 131 + (i >> 8) * 7 + (i >> 12) * 29 + rank * 37 + sequence * 53);
  }
  return bytes;
}

struct Arrival {
  std::vector<Greeting> greetings;
  std::map<int, Bytes> bytes;  // by source
  std::vector<Failure> failures;

  std::set<int> failed() const {
    std::set<int> peers;
    for (const Failure& failure : failures) peers.insert(failure.peer);
    return peers;
  }
};

struct Conduct {
  milliseconds timeout = kPlenty;
  std::function<void()> after_begin = [] {};
  std::function<void(const Piece&)> on_piece = [](const Piece&) {};
  std::vector<int> drop = {};
};

inline Request request_of(const Plan& plan, std::uint64_t sequence, const Payload& payload,
                          milliseconds timeout = kPlenty) {
  Frame frame;
  frame.number = sequence;
  frame.sequence = sequence;
  frame.nbytes = payload.nbytes();
  return {frame, &plan, &payload, Deadline::in(timeout)};
}

/// Takes every piece until the end, and checks that pieces come in order and without gaps.
inline void take_all(Exchange& exchange, const Plan& plan, Arrival& arrival,
                     const std::function<void(const Piece&)>& on_piece) {
  for (const Edge& source : plan.sources()) arrival.bytes[source.rank];
  std::size_t position = 0;
  for (Piece piece; exchange.next(piece);) {
    ASSERT_EQ(piece.offset, position);
    ASSERT_EQ(piece.sources.size(), plan.sources().size());
    for (std::size_t i = 0; i < piece.sources.size(); ++i) {
      Bytes& bytes = arrival.bytes[plan.sources()[i].rank];
      const auto more = piece.sources[i];
      ASSERT_TRUE(more.empty() || bytes.size() == position) << "a stream that ended goes on";
      bytes.insert(bytes.end(), more.begin(), more.end());
    }
    position += piece.size();
    on_piece(piece);
  }
  arrival.failures = exchange.failures();
}

inline Arrival exchange(Transport& transport, const Plan& plan, std::uint64_t sequence,
                        const Payload& payload, const Conduct& conduct = {}) {
  const auto exchange = transport.begin(request_of(plan, sequence, payload, conduct.timeout));
  conduct.after_begin();
  Arrival arrival;
  arrival.greetings = exchange->meet();
  for (int peer : conduct.drop) exchange->drop(peer);
  take_all(*exchange, plan, arrival, conduct.on_piece);
  return arrival;
}

inline Arrival exchange(Transport& transport, const Plan& plan, std::uint64_t sequence,
                        const Bytes& bytes, const Conduct& conduct = {}) {
  Payload payload;
  payload.add(bytes.data(), bytes.size());
  return exchange(transport, plan, sequence, payload, conduct);
}

/// Expects the patterns of all sources of `plan`, exactly, and no failure.
inline void expect_patterns(const Arrival& arrival, const Plan& plan, std::uint64_t sequence,
                            const std::function<std::size_t(int)>& size_of_rank) {
  EXPECT_TRUE(arrival.failures.empty()) << arrival.failures.front().what;
  for (const Edge& source : plan.sources()) {
    EXPECT_TRUE(arrival.bytes.at(source.rank) ==
                pattern(source.rank, sequence, size_of_rank(source.rank)))
        << plan.describe() << " operation " << sequence << " source " << source.rank;
  }
}

}  // namespace bluefog::test
