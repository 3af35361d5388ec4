// The mailbox's protocol, step by step and by threads.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <thread>

#include "mailboxes.h"

namespace bluefog::test {
namespace {

using window::MailboxReader;
using window::MailboxWriter;

class OneDouble : public ::testing::Test {
 protected:
  void put(double x) { writer.put(reinterpret_cast<std::byte*>(&x), 1, x); }
  void accumulate(double x) { writer.accumulate(reinterpret_cast<std::byte*>(&x), 1, x); }
  double look() {
    reader.take();
    return values_of<double>(reader.value(), 1)[0];
  }

  SharedMailbox mailbox{1};
  MailboxWriter writer{mailbox.box};
  MailboxReader reader{mailbox.box};
};

TEST_F(OneDouble, APutReplacesAndAnAccumulateAdds) {
  EXPECT_EQ(look(), 0);
  accumulate(1);
  accumulate(2);
  EXPECT_EQ(look(), 3);
  put(8);
  EXPECT_EQ(look(), 8);
  accumulate(16);
  EXPECT_EQ(look(), 24);
  EXPECT_EQ(look(), 24) << "reading takes nothing away";
  EXPECT_EQ(reader.value().p, 24);
}

TEST_F(OneDouble, AClaimEmptiesAndOnlyPutsCount) {
  put(1);
  put(2);
  accumulate(4);
  EXPECT_EQ(look(), 6);
  EXPECT_EQ(reader.puts(), 2u);
  reader.claim();
  EXPECT_EQ(look(), 0);
  EXPECT_EQ(reader.value().plus, nullptr);
  accumulate(8);
  EXPECT_EQ(look(), 8);
  EXPECT_FALSE(reader.value().supersedes);
  put(16);
  look();
  EXPECT_TRUE(reader.value().supersedes);
}

TEST_F(OneDouble, AWeightScalesTheValueOnly) {
  double x = 3;
  writer.put(reinterpret_cast<std::byte*>(&x), 0.5, 7);
  EXPECT_EQ(look(), 1.5);
  EXPECT_EQ(reader.value().p, 7);
}

TEST_F(OneDouble, ANaNThatWasConsumedIsGone) {
  put(std::nan(""));
  EXPECT_TRUE(std::isnan(look()));
  reader.claim();
  accumulate(1);
  EXPECT_EQ(look(), 1);
}

// Reader and writer do their steps in every order there is. What the reader gets is what a mailbox
// would give it in which publishing, and taking with a claim later on, were single actions.
enum class Write { kPut, kAccumulate };
enum class Read { kLook, kReset };

class Interleaving {
 public:
  Interleaving(const std::vector<Write>& writes, const std::vector<Read>& reads)
      : writes_(writes), reads_(reads) {}

  // Bit k of `order`: whether step k is the reader's. False where an order asks for more steps than
  // a side has.
  bool run(unsigned order, int steps) {
    for (int k = 0; k < steps; ++k) {
      if (order >> k & 1 ? !read_step() : !write_step()) return false;
    }
    if (!step_of_read_) {
      double left = -1;
      const double p = writer_.outstanding(reinterpret_cast<std::byte*>(&left));
      EXPECT_EQ(left, sum(pending_));
      EXPECT_EQ(p, sum(pending_));
    }
    return true;
  }

 private:
  using Bits = unsigned;  // a set of contributions; contribution k is 2 to the k

  static double sum(Bits bits) { return static_cast<double>(bits); }

  bool write_step() {
    if (written_ == writes_.size()) return false;
    x_ = std::ldexp(1, static_cast<int>(written_));
    const auto* x = reinterpret_cast<std::byte*>(&x_);
    if (writes_[written_] == Write::kPut) {
      writer_.put(x, 1, x_);
      pending_ = 1u << written_++;
      return true;
    }
    switch (step_of_write_++) {
      case 0:
        writer_.add(x, 1, x_);
        break;
      case 1:
        writer_.settle();
        break;
      default:
        writer_.publish();
        pending_ |= 1u << written_++;
        step_of_write_ = 0;
    }
    return true;
  }

  bool read_step() {
    if (read_ == reads_.size()) return false;
    if (!step_of_read_) {
      reader_.take();
      taken_ = pending_;
      const auto value = reader_.value();
      EXPECT_EQ(values_of<double>(value, 1)[0], sum(taken_));
      EXPECT_EQ(value.p, sum(taken_));
      step_of_read_ = reads_[read_] == Read::kReset;
    } else {
      reader_.claim();
      pending_ &= ~taken_;
      step_of_read_ = false;
    }
    if (!step_of_read_) ++read_;
    return true;
  }

  const std::vector<Write>& writes_;
  const std::vector<Read>& reads_;
  SharedMailbox mailbox_{1};
  MailboxWriter writer_{mailbox_.box};
  MailboxReader reader_{mailbox_.box};
  double x_ = 0;
  std::size_t written_ = 0, read_ = 0;
  int step_of_write_ = 0;
  bool step_of_read_ = false;
  Bits pending_ = 0, taken_ = 0;
};

// Returns how many orders there were.
int run_all_orders(const std::vector<Write>& writes, const std::vector<Read>& reads) {
  int steps = 0, of_reader = 0, count = 0;
  for (Write write : writes) steps += write == Write::kPut ? 1 : 3;
  for (Read read : reads) of_reader += read == Read::kLook ? 1 : 2;
  steps += of_reader;
  for (unsigned order = 0; order < 1u << steps; ++order) {
    if (__builtin_popcount(order) != of_reader) continue;
    count += Interleaving(writes, reads).run(order, steps);
    if (::testing::Test::HasFailure()) {
      ADD_FAILURE() << "in order " << order;
      break;
    }
  }
  return count;
}

TEST(WindowMailboxTest, EveryOrderOfStepsEqualsTheModel) {
  int count = 0;
  for (int writes = 0; writes < 8; ++writes) {
    for (int reads = 0; reads < 8; ++reads) {
      std::vector<Write> w;
      std::vector<Read> r;
      for (int k = 0; k < 3; ++k) {
        w.push_back(writes >> k & 1 ? Write::kAccumulate : Write::kPut);
        r.push_back(reads >> k & 1 ? Read::kReset : Read::kLook);
      }
      count += run_all_orders(w, r);
    }
  }
  EXPECT_EQ(count, 34315);
}

TEST(WindowMailboxTest, EveryOrderOfFourSumsAndThreeResetsEqualsTheModel) {
  const std::vector<Write> writes(4, Write::kAccumulate);
  const std::vector<Read> reads{Read::kReset, Read::kReset, Read::kLook, Read::kReset};
  EXPECT_EQ(run_all_orders(writes, reads), 50388);  // 19 over 7
}

// A checksum: all elements of a record are equal, and p too.
constexpr std::size_t kCount = 8;

#if defined(__SANITIZE_THREAD__)
constexpr std::int64_t kRounds = 100'000;
#else
constexpr std::int64_t kRounds = 1'000'000;
#endif

bool is_whole(const std::vector<std::int64_t>& values, double p) {
  for (std::int64_t value : values) {
    if (value != values[0] || static_cast<double>(value) != p) return false;
  }
  return true;
}

TEST(WindowMailboxTest, AMillionPutsAndReadsTearNothing) {
  SharedMailbox mailbox(kCount, DType::kInt64);
  std::thread thread([&] {
    MailboxWriter writer(mailbox.box);
    for (std::int64_t k = 1; k <= kRounds; ++k) {
      const std::vector<std::int64_t> x(kCount, k);
      writer.put(bytes_of(x), 1, static_cast<double>(k));
    }
  });
  MailboxReader reader(mailbox.box);
  std::int64_t torn = 0, went_back = 0, last = 0, reads = 0;
  for (; reads < kRounds || last < kRounds; ++reads) {
    reader.take();
    const auto value = reader.value();
    const auto values = values_of<std::int64_t>(value, kCount);
    torn += !is_whole(values, value.p);
    went_back += values[0] < last;
    last = values[0];
  }
  thread.join();
  EXPECT_EQ(torn, 0);
  EXPECT_EQ(went_back, 0);
}

TEST(WindowMailboxTest, SumsAndResetsLoseNothing) {
  SharedMailbox mailbox(kCount, DType::kInt64);
  std::atomic<bool> done{false};
  std::thread thread([&] {
    MailboxWriter writer(mailbox.box);
    for (std::int64_t k = 1; k <= kRounds; ++k) {
      const std::vector<std::int64_t> x(kCount, k);
      writer.accumulate(bytes_of(x), 1, static_cast<double>(k));
    }
    done = true;
  });
  MailboxReader reader(mailbox.box);
  std::vector<std::int64_t> total(kCount);
  double p = 0;
  for (bool last = false; !last;) {
    last = done;
    reader.take();
    const auto value = reader.value();
    reader.claim();
    const auto values = values_of<std::int64_t>(value, kCount);
    for (std::size_t i = 0; i < kCount; ++i) total[i] += values[i];
    p += value.p;
  }
  thread.join();
  const double expected = static_cast<double>(kRounds) * (kRounds + 1) / 2;
  EXPECT_EQ(total, std::vector<std::int64_t>(kCount, static_cast<std::int64_t>(expected)));
  EXPECT_EQ(p, expected);
}

TEST(WindowMailboxTest, AValueIsReadWholeByAllWhileItsOwnerGoesOn) {
  SharedValue shared(kCount);
  const std::vector<double> zeros(kCount);
  shared.value.publish(bytes_of(zeros), 0);
  std::atomic<std::int64_t> torn{0};
  auto read = [&] {
    for (double last = 0; last < kRounds / 4;) {
      std::vector<double> x(kCount);
      const double p = shared.value.read(bytes_of(x));
      for (double value : x) torn += value != p;
      torn += p < last;
      last = p;
    }
  };
  std::thread one(read), two(read);
  for (std::int64_t k = 1; k <= kRounds / 4; ++k) {
    const std::vector<double> x(kCount, static_cast<double>(k));
    shared.value.publish(bytes_of(x), static_cast<double>(k));
  }
  one.join();
  two.join();
  EXPECT_EQ(torn, 0);
}

}  // namespace
}  // namespace bluefog::test
