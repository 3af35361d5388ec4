#include "forked.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cstdio>
#include <string>

#include "base/error.h"

namespace bluefog::test {
namespace {

// One message of the link: the child sets a value (and gets no answer) or asks for one.
struct Message {
  int of;  // the rank asked for, -1 to set
  char key[32];
  std::uint32_t size;
  char value[512];
};

void send_message(int link, int of, const std::string& key, const std::string& value) {
  Message message{of, {}, static_cast<std::uint32_t>(value.size()), {}};
  if (key.size() >= sizeof(message.key) || value.size() > sizeof(message.value)) {
    fail(ErrorCode::kUsage, "the link carries no key or value as long as that of ", key);
  }
  key.copy(message.key, key.size());
  value.copy(message.value, value.size());
  if (::send(link, &message, sizeof(message), MSG_NOSIGNAL) != sizeof(message)) {
    fail(ErrorCode::kSystem, "the other end of the link is gone");
  }
}

bool receive_message(int link, Message& message) {
  return ::recv(link, &message, sizeof(message), 0) == sizeof(message);
}

Rendezvous client(int link) {
  return {[link](const std::string& key, const std::string& value) {
            send_message(link, -1, key, value);
          },
          [link](int of, const std::string& key) {
            send_message(link, of, key, "");
            Message answer;
            if (!receive_message(link, answer)) fail(ErrorCode::kTimeout, "rank ", of, " is gone");
            return std::string(answer.value, answer.size);
          }};
}

// Until the child ends. Values that do not come end it too: its next receive fails.
void serve(int link, Store& store, int rank) {
  try {
    for (Message message; receive_message(link, message);) {
      if (message.of < 0) {
        store.set(rank, message.key, std::string(message.value, message.size));
      } else {
        send_message(link, message.of, message.key, store.get(message.of, message.key));
      }
    }
  } catch (const Error& error) {
    std::fprintf(stderr, "rendezvous of forked rank %d: %s\n", rank, error.what());
  }
  ::shutdown(link, SHUT_RDWR);
}

[[noreturn]] void run_child(int link, const std::function<void(const Rendezvous&)>& body) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  int status = 0;
  try {
    body(client(link));
  } catch (const std::exception& error) {
    std::fprintf(stderr, "forked rank: %s\n", error.what());
    status = 1;
  }
  ::_exit(::testing::Test::HasFailure() ? 1 : status);
}

}  // namespace

ForkedRank::ForkedRank(Store& store, int rank, const std::function<void(const Rendezvous&)>& body) {
  std::array<int, 2> ends;
  if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0) {
    fail(ErrorCode::kSystem, "socketpair failed");
  }
  link_ = UniqueFd(ends[0]);
  UniqueFd theirs(ends[1]);
  std::fflush(nullptr);
  pid_ = ::fork();
  if (pid_ < 0) fail(ErrorCode::kSystem, "fork failed");
  if (pid_ == 0) run_child(theirs.get(), body);
  server_ = std::thread(serve, link_.get(), std::ref(store), rank);
}

ForkedRank::~ForkedRank() {
  if (!reaped_) {
    signal(SIGKILL);
    wait();
  }
  server_.join();
}

void ForkedRank::signal(int number) const { ::kill(pid_, number); }

int ForkedRank::wait() {
  int status = -1;
  while (::waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
  }
  reaped_ = true;
  return status;
}

}  // namespace bluefog::test
