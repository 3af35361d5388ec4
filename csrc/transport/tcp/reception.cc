#include "transport/tcp/reception.h"

#include <sys/epoll.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"

namespace bluefog::tcp {
namespace {

constexpr std::size_t kMostStrangers = 64;
constexpr std::chrono::seconds kPatience{10};  // with a guest who does not say who it is

bool watch(int epoll, int fd) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.fd = fd;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

struct Reception::Guest {
  UniqueFd fd;
  Deadline deadline = Deadline::in(kPatience);
  Hello hello{};
  std::size_t got = 0;
};

Reception::Reception(int rank, int size, const std::string& interface)
    : rank_(rank),
      size_(size),
      listener_(listen_at(interface, endpoint_)),
      epoll_(::epoll_create1(EPOLL_CLOEXEC)) {
  if (!epoll_ || !watch(epoll_.get(), listener_.get())) {
    fail(ErrorCode::kSystem, "cannot wait for calls: ", std::strerror(errno));
  }
}

Reception::~Reception() = default;

std::vector<Reception::Caller> Reception::take(const std::function<bool(int)>& expected) {
  std::vector<Caller> callers;
  std::array<epoll_event, 32> events;
  const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()), 0);
  for (int i = 0; i < n; ++i) {
    const auto found = guests_.find(events[i].data.fd);
    if (found == guests_.end()) {
      let_in();
      continue;
    }
    Guest& guest = *found->second;
    if (!hear(guest)) continue;
    ::epoll_ctl(epoll_.get(), EPOLL_CTL_DEL, guest.fd.get(), nullptr);
    if (welcome(guest, expected)) callers.push_back({guest.hello.rank, std::move(guest.fd)});
    guests_.erase(found);
  }
  std::erase_if(guests_, [](auto& each) { return each.second->deadline.passed(); });
  return callers;
}

void Reception::let_in() {
  while (true) {
    UniqueFd fd(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!fd) return;
    if (guests_.size() >= kMostStrangers + size_ || !watch(epoll_.get(), fd.get())) continue;
    auto guest = std::make_unique<Guest>();
    guest->fd = std::move(fd);
    guests_[guest->fd.get()] = std::move(guest);
  }
}

bool Reception::hear(Guest& guest) {
  auto* const to = reinterpret_cast<char*>(&guest.hello) + guest.got;
  const ssize_t n = ::recv(guest.fd.get(), to, sizeof(guest.hello) - guest.got, 0);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return false;
  guest.got += std::max<ssize_t>(n, 0);
  return n <= 0 || guest.got == sizeof(guest.hello);
}

bool Reception::welcome(const Guest& guest, const std::function<bool(int)>& expected) const {
  const Hello& hello = guest.hello;
  const Hello answer{Hello::kMagic, endpoint_.answer, rank_, size_};
  return guest.got == sizeof(hello) && hello.magic == Hello::kMagic &&
         hello.secret == endpoint_.ask && hello.rank > rank_ && hello.rank < size_ &&
         hello.size == size_ && expected(hello.rank) &&
         ::send(guest.fd.get(), &answer, sizeof(answer), MSG_NOSIGNAL) == sizeof(answer);
}

}  // namespace bluefog::tcp
