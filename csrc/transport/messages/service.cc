// The service's life: connections are made and end. What goes over them: link.cc.
#include "transport/messages/service.h"

#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "transport/messages/link.h"

namespace bluefog::messages {
namespace {

// Of an event: a rank, or one of these.
constexpr std::uint64_t kWake = 1ull << 32;
constexpr std::uint64_t kReception = 2ull << 32;

constexpr std::chrono::milliseconds kFarewell{100};  // without progress
constexpr std::size_t kAtOnce = 4 << 20;             // bytes, before others have their turn

bool watch(int epoll, int fd, std::uint64_t key) {
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.u64 = key;
  return ::epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

}  // namespace

Service::Service(int rank, int size, std::string interface)
    : rank_(rank), size_(size), interface_(std::move(interface)) {
  for (int peer = 0; peer < size; ++peer) links_.push_back(std::make_unique<Link>(peer));
}

Service::~Service() { shutdown(); }

std::string Service::listen() {
  const std::lock_guard lock(mutex_);
  check_running();
  if (!thread_.joinable()) {
    reception_ = std::make_unique<tcp::Reception>(rank_, size_, interface_);
    epoll_ = UniqueFd(::epoll_create1(EPOLL_CLOEXEC));
    wake_ = UniqueFd(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    if (!epoll_ || !wake_ || !watch(epoll_.get(), wake_.get(), kWake) ||
        !watch(epoll_.get(), reception_->fd(), kReception)) {
      fail(ErrorCode::kSystem, "cannot wait for messages: ", std::strerror(errno));
    }
    thread_ = std::thread([this] { loop(); });
  }
  return reception_->endpoint().pack();
}

// Under mutex_.
void Service::check_running() const {
  if (stopping_) {
    fail(ErrorCode::kAborted, "rank ", rank_, "'s process group has been destroyed or aborted");
  }
}

bool Service::running() const {
  const std::lock_guard lock(mutex_);
  return thread_.joinable();
}

void Service::meet(const std::vector<int>& peers,
                   const std::function<std::string(int)>& endpoint_of, const Deadline& deadline) {
  for (int peer : peers) {
    if (peer > rank_ || links_[peer]->made) continue;
    const auto there = tcp::Endpoint::unpack(endpoint_of(peer), peer);
    adopt(peer, tcp::call(there, peer, rank_, size_, deadline));
  }
  std::vector<int> missing;
  const auto all_there = [&] {
    missing.clear();
    std::copy_if(peers.begin(), peers.end(), std::back_inserter(missing),
                 [&](int peer) { return !links_[peer]->made; });
    return missing.empty();
  };
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, deadline.left(), [&] { return stopping_ || all_there(); });
  check_running();
  if (!missing.empty()) {
    fail(ErrorCode::kTimeout, "rank ", rank_, " waited ", deadline.timeout_seconds(), " s for ",
         name_ranks(missing), " to call it at ", reception_->endpoint().where());
  }
  for (int peer : peers) {
    if (const char* how = lost(peer)) {
      fail(ErrorCode::kPeerLost, "rank ", peer, " was lost: ", how);
    }
  }
}

void Service::adopt(int rank, UniqueFd fd) {
  tcp::set_options(fd.get());
  Link& link = *links_[rank];
  {
    const std::lock_guard lock(link.mutex);
    link.fd = std::move(fd);
    link.epoll = epoll_.get();
    if (!watch(link.epoll, link.fd.get(), static_cast<std::uint64_t>(rank))) {
      ::shutdown(link.fd.get(), SHUT_RDWR);  // the other side hears of it
    }
  }
  {
    const std::lock_guard lock(mutex_);
    link.made = true;
  }
  changed_.notify_all();
}

void Service::open(std::uint64_t number, std::shared_ptr<Channel> channel) {
  const std::lock_guard lock(handling_);
  channels_[number] = std::move(channel);
}

void Service::close(std::uint64_t number) {
  std::shared_ptr<Channel> gone;
  const std::lock_guard lock(handling_);
  const auto found = channels_.find(number);
  if (found == channels_.end()) return;
  gone = std::move(found->second);
  channels_.erase(found);
}

const char* Service::lost(int rank) const {
  const Link& link = *links_[rank];
  return link.lost.load(std::memory_order_acquire) ? link.how.c_str() : nullptr;
}

void Service::send(int to, const Header& header, Payload payload) {
  links_[to]->send(header, std::move(payload));
}

void Service::loop() {
  ::pthread_setname_np(::pthread_self(), "bluefog message");
  std::array<epoll_event, 32> events;
  while (!ends_) {
    const int n = ::epoll_wait(epoll_.get(), events.data(), static_cast<int>(events.size()),
                               reception_->has_guests() ? 1000 : -1);
    for (int i = 0; i < n; ++i) serve(events[i].data.u64, events[i].events);
    if (reception_->has_guests()) take_calls();
  }
  reception_.reset();
  say_goodbye();
}

void Service::serve(std::uint64_t key, std::uint32_t events) {
  if (key == kReception) {
    take_calls();
  } else if (key < kWake && !links_[key]->lost) {
    Link& link = *links_[key];
    if (events & EPOLLOUT) link.flush(kAtOnce);
    if (events & ~EPOLLOUT) receive(link);
  }
}

void Service::take_calls() {
  for (auto& caller : reception_->take([this](int rank) { return !links_[rank]->made; })) {
    adopt(caller.rank, std::move(caller.fd));
  }
}

std::shared_ptr<Channel> Service::channel(std::uint64_t number) {
  const auto found = channels_.find(number);
  return found == channels_.end() ? nullptr : found->second;
}

void Service::receive(Link& link) {
  std::string problem = "it sent a message that could not be taken";
  try {
    const auto make_room = [&](const Header& header) {
      const std::lock_guard lock(handling_);
      const auto to = channel(header.channel);
      return to ? to->room(link.rank, header) : nullptr;
    };
    const auto deliver = [&](const Header& header, const Payload& payload) {
      const std::lock_guard lock(handling_);
      if (const auto to = channel(header.channel)) to->arrived(link.rank, header, payload);
    };
    if (link.receive(kAtOnce, make_room, deliver)) return;
    problem = link.end;
  } catch (const std::exception& error) {
    problem += concat(" (", error.what(), ")");
  }
  cut(link, problem);
}

void Service::cut(Link& link, const std::string& how) {
  link.close(how);
  {
    const std::lock_guard lock(mutex_);
  }
  changed_.notify_all();
  const std::lock_guard lock(handling_);
  for (auto& [number, channel] : channels_) channel->lost(link.rank);
}

void Service::shutdown() {
  if (process_id() != pid_) {
    if (thread_.joinable()) new std::thread(std::move(thread_));  // not to be joined or destroyed
    return;
  }
  std::thread thread;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    ends_ = true;
    thread = std::move(thread_);
  }
  changed_.notify_all();
  if (!thread.joinable()) return;
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
  thread.join();
}

void Service::say_goodbye() {
  Header goodbye;
  goodbye.kind = Link::kGoodbye;
  for (auto& link : links_) link->send(goodbye, {});
  while (true) {
    std::vector<pollfd> waiting;
    for (auto& link : links_) {
      if (link->flush(kAtOnce)) waiting.push_back({link->fd.get(), POLLOUT, 0});
    }
    const int most = static_cast<int>(kFarewell.count());
    if (waiting.empty() || ::poll(waiting.data(), waiting.size(), most) <= 0) break;
  }
  for (auto& link : links_) link->hang_up();
}

}  // namespace bluefog::messages
