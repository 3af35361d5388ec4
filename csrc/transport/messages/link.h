// One end of a connection with another rank.
#pragma once

#include <atomic>
#include <deque>
#include <functional>
#include <mutex>
#include <string>

#include "base/fd.h"
#include "transport/messages/service.h"

namespace bluefog::messages {

/// Any thread sends; the service's thread does the rest.
struct Service::Link {
  explicit Link(int rank) : rank(rank) {}

  static constexpr std::uint32_t kGoodbye = 0xffffffff;  // a kind of message

  using MakeRoom = std::function<Payload(const Header&)>;
  using Deliver = std::function<void(const Header&, const Payload&)>;

  void send(const Header& header, Payload payload);

  /// Writes what the connection takes, up to about `budget` bytes; whether there is more.
  bool flush(std::size_t budget);

  /// Reads what has come, up to about `budget` bytes. Returns false at the end of the connection,
  /// and says in `end` how that came.
  bool receive(std::size_t budget, const MakeRoom& make_room, const Deliver& deliver);

  /// Ends it: lost() then says how.
  void close(const std::string& how);

  /// Ends it after what has been sent; the other side is to read it.
  void hang_up();

  const int rank;
  std::atomic<bool> made{false};  // there is, or was, a connection
  std::atomic<bool> lost{false};  // set after `how`
  std::string how;
  std::string end;

  std::mutex mutex;
  UniqueFd fd;     // under mutex
  int epoll = -1;  // under mutex

 private:
  struct Letter {
    Header header;
    Payload payload;
  };

  bool flush_locked(std::size_t budget);
  void want_to_write(bool on);
  ssize_t write_some(std::size_t budget);
  bool begin(const MakeRoom& make_room);
  bool read_some(std::size_t& budget);

  std::deque<Letter> letters_;   // under mutex: to be sent; the first one is sent in part
  std::size_t sent_ = 0;         // under mutex: of the first one
  bool wants_to_write_ = false;  // under mutex

  Letter arriving_;      // of the thread
  std::size_t got_ = 0;  // of it
};

}  // namespace bluefog::messages
