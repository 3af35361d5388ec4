// One connection with another rank, for one exchange after the other.
//
// What goes over it, either way: in each exchange a greeting, then the payload in parts; where a
// rank ends its part in an exchange before that is complete, it says that it leaves. Everything
// carries the number of its exchange. So a rank that gave up on one, or was given up in it, goes on
// with the next over the same connection: what still comes of earlier ones is thrown away.
#pragma once

#include <poll.h>

#include <atomic>
#include <chrono>
#include <deque>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/fd.h"
#include "transport/frame.h"

namespace bluefog::tcp {

/// What goes before everything. Numbers are as this machine has them: the greeting's magic tells of
/// ranks that have others.
struct Head {
  enum class Kind : std::uint32_t { kGreeting, kPayload, kGiveUp, kDrop, kGoodbye };

  std::uint32_t magic = kMagic;
  Kind kind = Kind::kGreeting;
  std::uint64_t sequence = 0;
  std::uint64_t nbytes = 0;  // of what follows

  static constexpr std::uint32_t kMagic = 0x62656701;  // last byte: version
};

/// Not thread-safe. Never waits.
class Pair {
 public:
  explicit Pair(UniqueFd fd) : fd_(std::move(fd)) {}

  /// The exchange whose messages are taken from now on; ascending.
  void enter(std::uint64_t sequence);

  // ---- What this rank says. It goes out in this order, as the connection takes it.

  void greet(const Greeting& greeting);
  /// The next bytes of the payload. They belong to the caller, and must stay as they are until
  /// all_sent() or leave().
  void send(std::span<const std::byte> bytes);
  bool all_sent() const {
    return letters_.empty();
  }  // never, where the connection ended before that
  /// Says that this rank takes no further part, why (kGiveUp, kDrop), and takes none: the caller's
  /// bytes and room are free.
  void leave(Head::Kind why);

  // ---- What the peer says

  bool greeted() const { return greeted_; }
  const Greeting& greeting() const { return greeting_; }
  /// Where the next bytes of the payload go; no more are taken once it is full.
  void make_room(std::span<std::byte> room);
  bool filled() const { return room_.empty(); }
  std::size_t received() const { return received_; }  // bytes of the payload

  /// Why nothing more comes of this exchange: it has failed there, or found that this rank means
  /// another operation, or is in a later exchange.
  bool gave_up() const { return left_ == Head::Kind::kGiveUp; }
  bool dropped() const { return left_ == Head::Kind::kDrop; }
  bool ahead() const { return ahead_; }
  /// How the connection ended, null while it lives. This alone may be asked by any thread.
  const char* lost() const {
    return lost_.load(std::memory_order_acquire) ? how_.c_str() : nullptr;
  }

  /// Writes what the connection takes, and reads what is wanted and has come.
  void progress();

  /// What to wait for before the next progress(); nothing (a negative descriptor) where that would
  /// do nothing.
  pollfd awaited();

  /// The last word: the other side will read it after all that was said before. Waits for
  /// `patience` at most, each time that the connection takes nothing.
  void hang_up(std::chrono::milliseconds patience);

 private:
  // Something to be sent: `own`, then `rest`.
  struct Letter {
    std::vector<std::byte> own;
    std::span<const std::byte> rest;
    std::size_t sent = 0;

    std::size_t size() const { return own.size() + rest.size(); }
  };

  void post(const Head& head, std::span<const std::byte> copied = {},
            std::span<const std::byte> rest = {});
  void flush();
  bool in_payload() const;  // of this exchange
  bool wants_to_read() const;
  bool read_some();
  std::span<std::byte> place();  // of the bytes that are next to come; null: nowhere
  void took(std::size_t nbytes);
  void begin();      // the head is there
  void end();        // all that the head announced, too
  void break_off();  // as errno says
  void lose(const std::string& how);
  void set_low_water(std::size_t nbytes);

  UniqueFd fd_;
  std::string how_;
  std::atomic<bool> lost_{false};  // set after how_
  std::uint64_t sequence_ = 0;

  std::deque<Letter> letters_;

  Head head_;
  std::size_t got_ = 0;  // of the head and of what follows it
  bool greeted_ = false, ahead_ = false;
  std::optional<Head::Kind> left_;  // why, once it has
  Greeting greeting_;
  std::span<std::byte> room_;
  std::size_t received_ = 0;
  std::size_t low_water_ = 1;
};

}  // namespace bluefog::tcp
