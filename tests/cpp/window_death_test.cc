// A side of a window that is killed: in every step, and in the middle of a copy.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>

#include "mailboxes.h"
#include "window/pair_mutex.h"

namespace bluefog::test {
namespace {

using window::MailboxReader;
using window::MailboxWriter;

constexpr std::size_t kCount = 4096;  // doubles: eight pages

/// A process that runs `body` and is killed by what that does.
class Victim {
 public:
  explicit Victim(const std::function<void()>& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    body();
    ::_exit(0);
  }
  void kill() const { ::kill(pid_, SIGKILL); }

  /// The signal that has killed it, 0 for none.
  int wait() const {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }

 private:
  const pid_t pid_;
};

[[noreturn]] void die() {
  ::raise(SIGKILL);
  ::_exit(1);
}

std::vector<double> filled(double x) { return std::vector<double>(kCount, x); }

/// A value whose second half cannot be read: a copy of it dies half-way.
class HalfReadable {
 public:
  HalfReadable() : pages_(kCount * 8) {
    auto* values = reinterpret_cast<double*>(pages_.data());
    std::fill_n(values, kCount, 1000.0);
    ::mprotect(pages_.data() + kCount * 4, kCount * 4, PROT_NONE);
    ::signal(SIGSEGV, SIG_DFL);  // and no report of a sanitizer's
  }
  const std::byte* data() const { return pages_.data(); }

 private:
  SharedPages pages_;
};

/// What a reader finds after its writer has died: one value in all elements, and in p.
double whole(MailboxReader& reader) {
  reader.take();
  const auto value = reader.value();
  const auto values = values_of<double>(value, kCount);
  EXPECT_EQ(values, filled(value.p));
  return value.p;
}

void accumulate(MailboxWriter& writer, double x) { writer.accumulate(bytes_of(filled(x)), 1, x); }

TEST(WindowDeathTest, AWriterKilledInAnyStepLeavesTheLastWholeRecord) {
  for (int steps = 0; steps <= 3; ++steps) {
    SharedMailbox mailbox(kCount);
    MailboxReader reader(mailbox.box);
    const Victim victim([&] {
      MailboxWriter writer(mailbox.box);
      accumulate(writer, 1);
      accumulate(writer, 2);
      const auto x = filled(4);
      if (steps > 0) writer.add(bytes_of(x), 1, 4);
      if (steps > 1) writer.settle();
      if (steps > 2) writer.publish();
      die();
    });
    ASSERT_EQ(victim.wait(), SIGKILL);
    EXPECT_EQ(whole(reader), steps == 3 ? 7 : 3) << steps;
    reader.claim();
    EXPECT_EQ(whole(reader), 0);
  }
}

TEST(WindowDeathTest, AWriterThatDiesInTheMiddleOfACopyIsNotSeen) {
  for (const bool put : {true, false}) {
    SharedMailbox mailbox(kCount);
    MailboxReader reader(mailbox.box);
    const Victim victim([&] {
      MailboxWriter writer(mailbox.box);
      accumulate(writer, 3);
      const HalfReadable x;
      put ? writer.put(x.data(), 1, 1000) : writer.accumulate(x.data(), 1, 1000);
    });
    ASSERT_EQ(victim.wait(), SIGSEGV);
    EXPECT_EQ(whole(reader), 3);
  }
}

TEST(WindowDeathTest, AWriterKilledWhileItWritesLeavesOnlyWholeRecords) {
  for (int round = 1; round <= 20; ++round) {
    SharedMailbox mailbox(kCount);
    MailboxReader reader(mailbox.box);
    const Victim victim([&] {
      MailboxWriter writer(mailbox.box);
      for (double k = 1;; ++k) {
        const auto x = filled(1);
        static_cast<int>(k) % 3 ? writer.accumulate(bytes_of(x), 1, 1)
                                : writer.put(bytes_of(x), 1, 1);
      }
    });
    for (int seen = 0; seen < 3 * round;) {
      seen += reader.take();
      const auto value = reader.value();
      ASSERT_EQ(values_of<double>(value, kCount), filled(value.p));
      if (seen % 2) reader.claim();
    }
    victim.kill();
    ASSERT_EQ(victim.wait(), SIGKILL);
    whole(reader);
  }
}

// The reader's end in each of its steps, as the writer sees it, who goes on and takes back what was
// not collected: the sum of both is what was sent.
TEST(WindowDeathTest, WhatADeadReaderHasNotCollectedCanBeTakenBack) {
  for (int steps = 0; steps <= 2; ++steps) {
    SharedMailbox mailbox(kCount);
    MailboxWriter writer(mailbox.box);
    accumulate(writer, 1);
    accumulate(writer, 2);
    const Victim victim([&] {
      MailboxReader reader(mailbox.box);
      if (steps > 0) reader.take();
      if (steps > 1) reader.claim();
      die();
    });
    ASSERT_EQ(victim.wait(), SIGKILL);
    std::vector<double> left(kCount);
    EXPECT_EQ(writer.outstanding(bytes_of(left)), steps == 2 ? 0 : 3);
    EXPECT_EQ(left, filled(steps == 2 ? 0 : 3));
    accumulate(writer, 4);
    EXPECT_EQ(writer.outstanding(bytes_of(left)), steps == 2 ? 4 : 7);
    EXPECT_EQ(left, filled(steps == 2 ? 4 : 7));
  }
}

// The reader consumes record 1 between the writer's last look and its swap, and dies.
TEST(WindowDeathTest, WhatWasConsumedInARaceIsNotTakenBack) {
  SharedMailbox mailbox(kCount);
  MailboxWriter writer(mailbox.box);
  accumulate(writer, 1);
  const auto x = filled(2);
  writer.add(bytes_of(x), 1, 2);
  writer.settle();
  const Victim victim([&] {
    MailboxReader reader(mailbox.box);
    reader.take();
    reader.claim();
    die();
  });
  ASSERT_EQ(victim.wait(), SIGKILL);
  writer.publish();
  std::vector<double> left(kCount);
  EXPECT_EQ(writer.outstanding(bytes_of(left)), 2);
  EXPECT_EQ(left, filled(2));
}

TEST(WindowDeathTest, AnOwnerThatDiesInTheMiddleOfACopyShowsItsLastValue) {
  SharedValue shared(kCount);
  const Victim victim([&] {
    shared.value.publish(bytes_of(filled(1)), 1);
    shared.value.publish(bytes_of(filled(2)), 2);
    const HalfReadable x;
    shared.value.publish(x.data(), 1000);
  });
  ASSERT_EQ(victim.wait(), SIGSEGV);
  std::vector<double> x(kCount);
  EXPECT_EQ(shared.value.read(bytes_of(x)), 2);
  EXPECT_EQ(x, filled(2));
}

TEST(WindowDeathTest, AMutexOfADeadHolderCanBeTaken) {
  using window::PairMutex;
  using window::Side;
  SharedPages pages(sizeof(PairMutex));
  auto& mutex = *reinterpret_cast<PairMutex*>(pages.data());
  const auto no = [] { return false; };
  const auto yes = [] { return true; };
  const Deadline deadline = Deadline::in(std::chrono::seconds(30));
  const Victim victim([&] {
    mutex.lock(Side::kWriter, deadline, no, no);
    die();
  });
  ASSERT_EQ(victim.wait(), SIGKILL);
  const auto soon = Deadline::in(std::chrono::milliseconds(30));
  EXPECT_EQ(mutex.lock(Side::kOwner, soon, no, no), PairMutex::Outcome::kLate);
  EXPECT_EQ(mutex.lock(Side::kOwner, deadline, yes, no), PairMutex::Outcome::kTaken);
  mutex.unlock(Side::kOwner);
  EXPECT_EQ(mutex.lock(Side::kOwner, deadline, yes, no), PairMutex::Outcome::kTaken);
}

}  // namespace
}  // namespace bluefog::test
