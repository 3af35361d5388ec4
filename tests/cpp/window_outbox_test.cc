#include <gtest/gtest.h>

#include <deque>
#include <random>

#include "mailboxes.h"
#include "ranks.h"
#include "window/outbox.h"

namespace bluefog::test {
namespace {

using window::MailboxReader;
using window::MailboxWriter;
using window::Outbox;
using window::Parcel;
using window::Sending;

constexpr std::size_t kCount = 3;

std::vector<double> filled(double x) { return std::vector<double>(kCount, x); }

/// An outbox, and a receiver that gets and answers parcels when it is told to.
class Way {
 public:
  Way()
      : mailbox_(kCount),
        writer_(mailbox_.box),
        reader_(mailbox_.box),
        outbox(DType::kFloat64, kCount * 8, [this](std::uint64_t number, const Parcel& parcel) {
          parcels_.emplace_back(number, parcel);
        }) {}

  void send(Sending kind, double x) { outbox.send(kind, bytes_of(filled(1)), x, x); }

  std::size_t under_way() const { return parcels_.size(); }

  bool deliver() {
    if (parcels_.empty()) return false;
    const auto [number, parcel] = parcels_.front();
    parcels_.pop_front();
    parcel.supersedes ? writer_.replace(parcel.value.get(), 1, parcel.p, parcel.puts)
                      : writer_.add(parcel.value.get(), 1, parcel.p);
    writer_.settle();
    writer_.publish();
    words_.push_back({true, number, mailbox_.box.control->consumed});
    return true;
  }

  /// Takes out all that has come; returns it.
  double consume() {
    reader_.take();
    const double sum = reader_.value().p;
    EXPECT_EQ(values_of<double>(reader_.value(), kCount), filled(sum));
    reader_.claim();
    words_.push_back({false, reader_.consumed(), 0});
    return sum;
  }

  bool hear() {
    if (words_.empty()) return false;
    const Word word = words_.front();
    words_.pop_front();
    word.applied ? outbox.applied(word.number, word.consumed) : outbox.consumed(word.number);
    return true;
  }

  double outstanding() {
    std::vector<double> y(kCount);
    const double p = outbox.outstanding(bytes_of(y));
    EXPECT_EQ(y, filled(p));
    return p;
  }

  std::uint64_t puts() {
    reader_.take();
    return reader_.puts();
  }

 private:
  struct Word {
    bool applied;
    std::uint64_t number, consumed;
  };
  SharedMailbox mailbox_;
  MailboxWriter writer_;
  MailboxReader reader_;
  std::deque<std::pair<std::uint64_t, Parcel>> parcels_;
  std::deque<Word> words_;

 public:
  Outbox outbox;
};

TEST(WindowOutboxTest, OneParcelIsUnderWayAndOneWaits) {
  Way way;
  for (double x : {1, 2, 4}) way.send(Sending::kAccumulate, x);
  EXPECT_EQ(way.under_way(), 1u);
  EXPECT_TRUE(way.outbox.waits());
  EXPECT_EQ(way.outstanding(), 7);
  way.deliver();
  way.hear();
  EXPECT_EQ(way.under_way(), 1u);
  EXPECT_FALSE(way.outbox.waits());
  EXPECT_EQ(way.consume(), 1);
  way.deliver();
  EXPECT_EQ(way.consume(), 6);
  EXPECT_EQ(way.outstanding(), 7) << "nothing has been heard";
  while (way.hear()) {
  }
  EXPECT_EQ(way.outstanding(), 0);
  EXPECT_TRUE(way.outbox.delivered());
}

TEST(WindowOutboxTest, APutTakesThePlaceOfWhatCameBefore) {
  Way way;
  way.send(Sending::kAccumulate, 1);
  way.send(Sending::kPut, 2);
  way.send(Sending::kPut, 4);
  way.send(Sending::kAccumulate, 8);
  EXPECT_EQ(way.outstanding(), 12);
  while (way.deliver() | way.hear()) {
  }
  EXPECT_EQ(way.outstanding(), 12);
  EXPECT_EQ(way.puts(), 2u) << "also of a put that was overtaken";
  EXPECT_EQ(way.consume(), 12);
}

TEST(WindowOutboxTest, TheLastParcelGoesAlsoIfOneIsUnderWay) {
  Way way;
  way.send(Sending::kAccumulate, 1);
  way.send(Sending::kAccumulate, 2);
  way.outbox.send_last();
  EXPECT_EQ(way.under_way(), 2u);
  way.deliver();
  way.deliver();
  EXPECT_EQ(way.consume(), 3);
}

TEST(WindowOutboxTest, AnswersToWhatWasNotSentAreRefused) {
  Way way;
  EXPECT_EQ(catch_error([&] { way.outbox.applied(1, 0); }).code, ErrorCode::kSystem);
  way.send(Sending::kAccumulate, 1);
  EXPECT_EQ(catch_error([&] { way.outbox.applied(2, 0); }).code, ErrorCode::kSystem);
  EXPECT_EQ(catch_error([&] { way.outbox.applied(1, 2); }).code, ErrorCode::kSystem);
}

// Steps in random order. Whole numbers: sums are exact.
TEST(WindowOutboxTest, NothingIsLostAndWhatIsOutstandingIsKnown) {
  for (unsigned seed = 0; seed < 300; ++seed) {
    std::mt19937 chance(seed);
    Way way;
    double sent = 0, consumed = 0;
    for (int step = 0; step < 60; ++step) {
      switch (chance() % 5) {
        case 0:
        case 1:
          way.send(Sending::kAccumulate, step + 1);
          sent += step + 1;
          break;
        case 2:
          way.deliver();
          break;
        case 3:
          consumed += way.consume();
          break;
        case 4:
          way.hear();
      }
      EXPECT_GE(way.outstanding(), sent - consumed) << "seed " << seed << ", step " << step;
      if (chance() % 8 == 0) {
        while (way.hear()) {
        }
        ASSERT_EQ(way.outstanding(), sent - consumed) << "seed " << seed << ", step " << step;
      }
    }
    while (way.deliver() | way.hear()) {
    }
    EXPECT_EQ(way.outstanding(), sent - consumed);
    consumed += way.consume();
    EXPECT_EQ(consumed, sent);
  }
}

}  // namespace
}  // namespace bluefog::test
