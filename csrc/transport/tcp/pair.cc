#include "transport/tcp/pair.h"

#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace bluefog::tcp {
namespace {

constexpr std::size_t kHead = sizeof(Head);
constexpr std::size_t kAtOnce = 16 << 10;  // bytes that are thrown away

bool try_again() { return errno == EAGAIN || errno == EINTR; }

template <typename T>
std::span<const std::byte> bytes_of(const T& value) {
  return std::as_bytes(std::span(&value, 1));
}

}  // namespace

void Pair::enter(std::uint64_t sequence) {
  if (lost()) letters_.clear();
  sequence_ = sequence;
  greeted_ = ahead_ = false;
  left_.reset();
  room_ = {};
  received_ = 0;
  if (got_ >= kHead) begin();  // of a head that was ahead, or whose body is still coming
}

// ---- Sending

void Pair::greet(const Greeting& greeting) {
  post({Head::kMagic, Head::Kind::kGreeting, sequence_, sizeof(Greeting)}, bytes_of(greeting));
}

void Pair::send(std::span<const std::byte> bytes) {
  post({Head::kMagic, Head::Kind::kPayload, sequence_, bytes.size()}, {}, bytes);
}

void Pair::post(const Head& head, std::span<const std::byte> copied,
                std::span<const std::byte> rest) {
  Letter& letter = letters_.emplace_back();
  letter.own.resize(kHead + copied.size());
  std::ranges::copy(bytes_of(head), letter.own.begin());
  std::ranges::copy(copied, letter.own.begin() + kHead);
  letter.rest = rest;
}

// What has been begun has to come to its end, or the peer could not read on.
void Pair::leave(Head::Kind why) {
  room_ = {};
  if (lost()) {
    letters_.clear();
    return;
  }
  for (Letter& letter : letters_) {
    letter.own.insert(letter.own.end(), letter.rest.begin(), letter.rest.end());
    letter.rest = {};
  }
  post({Head::kMagic, why, sequence_, 0});
  flush();
}

void Pair::flush() {
  while (!letters_.empty() && !lost()) {
    Letter& letter = letters_.front();
    iovec parts[2];
    std::size_t count = 0, skip = letter.sent;
    for (std::span<const std::byte> part : {std::span<const std::byte>(letter.own), letter.rest}) {
      const std::size_t done = std::min(skip, part.size());
      skip -= done;
      if (done < part.size()) {
        parts[count++] = {const_cast<std::byte*>(part.data()) + done, part.size() - done};
      }
    }
    msghdr message{};
    message.msg_iov = parts;
    message.msg_iovlen = count;
    const ssize_t n = ::sendmsg(fd_.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0) {
      // What the other side said last may still be there to be read; then that ends it.
      if (!try_again() && !wants_to_read()) break_off();
      return;
    }
    letter.sent += n;
    if (letter.sent == letter.size()) letters_.pop_front();
  }
}

// ---- Receiving

void Pair::make_room(std::span<std::byte> room) { room_ = room; }

bool Pair::in_payload() const {
  return got_ >= kHead && head_.sequence == sequence_ && head_.kind == Head::Kind::kPayload;
}

bool Pair::wants_to_read() const {
  return !lost() && !left_ && !ahead_ && !(in_payload() && room_.empty());
}

void Pair::progress() {
  flush();
  while (wants_to_read() && read_some()) {
  }
}

bool Pair::read_some() {
  std::byte waste[kAtOnce];
  std::span<std::byte> to = place();
  if (to.data() == nullptr) to = std::span(waste).first(to.size());
  const ssize_t n = ::recv(fd_.get(), to.data(), to.size(), MSG_DONTWAIT);
  if (n < 0 && try_again()) return false;
  if (n < 0) {
    break_off();
  } else if (n == 0) {
    lose("its process ended, or its host closed the connection");
  } else {
    took(n);
  }
  return n > 0;
}

std::span<std::byte> Pair::place() {
  if (got_ < kHead) {
    return std::as_writable_bytes(std::span(&head_, 1)).subspan(got_);
  }
  const std::size_t left = kHead + head_.nbytes - got_;
  if (in_payload()) {
    return room_.first(std::min(left, room_.size()));
  }
  if (head_.sequence == sequence_ && head_.kind == Head::Kind::kGreeting) {
    return std::as_writable_bytes(std::span(&greeting_, 1)).subspan(got_ - kHead);
  }
  return {static_cast<std::byte*>(nullptr), std::min(left, kAtOnce)};
}

void Pair::took(std::size_t nbytes) {
  if (in_payload()) {
    room_ = room_.subspan(nbytes);
    received_ += nbytes;
  }
  got_ += nbytes;
  if (got_ == kHead) {
    begin();
  } else if (got_ == kHead + head_.nbytes) {
    end();
  }
}

void Pair::begin() {
  const bool greeting = head_.kind == Head::Kind::kGreeting;
  if (head_.magic != Head::kMagic || head_.kind > Head::Kind::kGoodbye ||
      (greeting && head_.nbytes != sizeof(Greeting))) {
    lose("it sent what is no message; do all ranks run the same version of bluefog_pg?");
  } else if (head_.kind == Head::Kind::kGoodbye) {
    lose("it has destroyed the process group");
  } else if (head_.sequence > sequence_) {
    ahead_ = true;
  } else if (head_.nbytes == 0) {
    end();
  }
}

void Pair::end() {
  got_ = 0;
  if (head_.sequence != sequence_) return;
  greeted_ = greeted_ || head_.kind == Head::Kind::kGreeting;
  if (head_.kind > Head::Kind::kPayload) left_ = head_.kind;
}

void Pair::break_off() { lose(concat("its connection broke: ", std::strerror(errno))); }

void Pair::lose(const std::string& how) {
  fd_ = UniqueFd();
  how_ = how;
  lost_.store(true, std::memory_order_release);
}

// ---- Waiting

// A wakeup for every frame that arrives takes more of a core than all the rest.
pollfd Pair::awaited() {
  const bool reads = wants_to_read();
  if (lost() || (!reads && letters_.empty())) return {-1, 0, 0};
  if (reads) set_low_water(got_ < kHead ? 1 : place().size());
  return {fd_.get(), static_cast<short>((reads ? POLLIN : 0) | (letters_.empty() ? 0 : POLLOUT)),
          0};
}

void Pair::set_low_water(std::size_t nbytes) {
  if (std::exchange(low_water_, nbytes) == nbytes) return;
  const int value = static_cast<int>(nbytes);
  ::setsockopt(fd_.get(), SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value));
}

// What has come and was not read would make the kernel reset the connection, and the other side
// lose what it has not read yet.
void Pair::hang_up(std::chrono::milliseconds patience) {
  post({Head::kMagic, Head::Kind::kGoodbye, sequence_, 0});
  flush();
  for (pollfd entry{fd_.get(), POLLOUT, 0};
       !lost() && !letters_.empty() && ::poll(&entry, 1, static_cast<int>(patience.count())) > 0;) {
    flush();
  }
  if (lost()) return;
  ::shutdown(fd_.get(), SHUT_WR);
  std::byte waste[kAtOnce];
  while (::recv(fd_.get(), waste, kAtOnce, MSG_DONTWAIT) > 0) {
  }
  fd_ = UniqueFd();
}

}  // namespace bluefog::tcp
