#include "transport/messages/link.h"

#include <sys/epoll.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace bluefog::messages {
namespace {

constexpr std::size_t kByCaller = 256 << 10;  // bytes that a caller writes itself, at most
constexpr std::size_t kHeader = sizeof(Header);

bool try_again() { return errno == EAGAIN || errno == EINTR; }

}  // namespace

void Service::Link::send(const Header& header, Payload payload) {
  const std::lock_guard lock(mutex);
  if (!fd) return;
  letters_.push_back({header, std::move(payload)});
  if (!wants_to_write_) flush_locked(kByCaller);
}

bool Service::Link::flush(std::size_t budget) {
  const std::lock_guard lock(mutex);
  return fd && flush_locked(budget);
}

bool Service::Link::flush_locked(std::size_t budget) {
  while (!letters_.empty() && budget > 0) {
    const ssize_t n = write_some(budget);
    if (n < 0 && try_again()) break;
    if (n < 0) {  // the reading side hears of it as well, and ends the connection
      letters_.clear();
      sent_ = 0;
      ::shutdown(fd.get(), SHUT_RDWR);
      break;
    }
    budget -= std::min(budget, static_cast<std::size_t>(n));
    sent_ += n;
    if (sent_ == kHeader + letters_.front().header.nbytes) {
      letters_.pop_front();
      sent_ = 0;
    }
  }
  want_to_write(!letters_.empty());
  return !letters_.empty();
}

ssize_t Service::Link::write_some(std::size_t budget) {
  Letter& letter = letters_.front();
  iovec parts[2];
  int count = 0;
  if (sent_ < kHeader) {
    parts[count++] = {reinterpret_cast<char*>(&letter.header) + sent_, kHeader - sent_};
  }
  const std::size_t from = sent_ - std::min(sent_, kHeader);
  if (from < letter.header.nbytes) {
    parts[count++] = {letter.payload.get() + from, std::min(letter.header.nbytes - from, budget)};
  }
  msghdr message{};
  message.msg_iov = parts;
  message.msg_iovlen = count;
  return ::sendmsg(fd.get(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
}

void Service::Link::want_to_write(bool on) {
  if (std::exchange(wants_to_write_, on) == on) return;
  epoll_event event{};
  event.events = on ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.u64 = static_cast<std::uint64_t>(rank);
  ::epoll_ctl(epoll, EPOLL_CTL_MOD, fd.get(), &event);
}

bool Service::Link::receive(std::size_t budget, const MakeRoom& make_room, const Deliver& deliver) {
  while (budget > 0) {
    if (!read_some(budget)) return end.empty();
    if (got_ == kHeader && !begin(make_room)) return false;
    if (got_ < kHeader || got_ < kHeader + arriving_.header.nbytes) continue;
    const Letter letter = std::exchange(arriving_, {});
    got_ = 0;
    deliver(letter.header, letter.payload);
  }
  return true;
}

// The header is there; as receive().
bool Service::Link::begin(const MakeRoom& make_room) {
  if (arriving_.header.magic != Header::kMagic) {
    end = "it sent what is no message; do all ranks run the same version of bluefog_pg?";
    return false;
  }
  if (arriving_.header.kind == kGoodbye) {
    end = "it has left the group";
    return false;
  }
  if (arriving_.header.nbytes > 0) arriving_.payload = make_room(arriving_.header);
  return true;
}

// One read; false where there is nothing to read now, or at the end, of which `end` says why.
bool Service::Link::read_some(std::size_t& budget) {
  std::byte waste[16 << 10];
  std::byte* to = waste;
  std::size_t most = kHeader - got_;
  if (got_ < kHeader) {
    to = reinterpret_cast<std::byte*>(&arriving_.header) + got_;
  } else {
    most = std::min(kHeader + arriving_.header.nbytes - got_, budget);
    if (arriving_.payload) {
      to = arriving_.payload.get() + (got_ - kHeader);
    } else {
      most = std::min(most, sizeof(waste));
    }
  }
  const ssize_t n = ::recv(fd.get(), to, most, MSG_DONTWAIT);
  if (n < 0 && try_again()) return false;
  if (n <= 0) {
    end = n == 0 ? "its connection was closed"
                 : concat("its connection broke: ", std::strerror(errno));
    return false;
  }
  got_ += n;
  budget -= std::min(budget, static_cast<std::size_t>(n));
  return true;
}

void Service::Link::close(const std::string& why) {
  const std::lock_guard lock(mutex);
  fd = UniqueFd();
  letters_.clear();
  sent_ = 0;
  if (lost) return;
  how = why;
  lost.store(true, std::memory_order_release);
}

// What has come and was not read would make the kernel reset the connection, and the other side
// lose what it has not read yet.
void Service::Link::hang_up() {
  {
    const std::lock_guard lock(mutex);
    if (!fd) return;
    ::shutdown(fd.get(), SHUT_WR);
    std::byte waste[16 << 10];
    while (::recv(fd.get(), waste, sizeof(waste), MSG_DONTWAIT) > 0) {
    }
  }
  close("its process group was destroyed");
}

}  // namespace bluefog::messages
