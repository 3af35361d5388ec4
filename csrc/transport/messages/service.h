// Messages between ranks that share no memory: a thread of this rank that answers for it.
//
// One TCP connection for each pair of ranks that need it: the higher rank calls the lower one.
// Sending never waits for the receiver: what the connection does not take now is queued, and it is
// for the channels to say little to a rank that does not listen.
#pragma once

#include <atomic>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/deadline.h"
#include "base/process.h"
#include "transport/tcp/reception.h"

namespace bluefog::messages {

/// What goes before a message's payload. What the fields in the middle mean is the channel's.
struct Header {
  std::uint32_t magic = kMagic;
  std::uint32_t kind = 0;
  std::uint64_t channel = 0;
  std::uint64_t number = 0;
  std::uint64_t extra = 0;
  double p = 0;
  std::uint64_t nbytes = 0;  // of the payload

  static constexpr std::uint32_t kMagic = 0x626d7301;
};

using Payload = std::shared_ptr<std::byte>;

/// Who takes the messages of one channel. Called by the service's thread; never twice at a time.
/// What is thrown ends the connection with the sender.
class Channel {
 public:
  virtual ~Channel() = default;

  /// Where to put the payload that follows; null where it is to be thrown away. Throws
  /// Error(kSystem) for a message that cannot be.
  virtual Payload room(int from, const Header& header) = 0;

  virtual void arrived(int from, const Header& header, const Payload& payload) = 0;

  /// The connection with this rank has ended: nothing more comes from it.
  virtual void lost(int rank) = 0;
};

/// Thread-safe.
class Service {
 public:
  /// Does nothing yet. `interface`: see tcp::listen_at().
  Service(int rank, int size, std::string interface = "");
  ~Service();

  /// Starts to take calls, at the first time; returns this rank's endpoint. Throws Error(kSystem).
  std::string listen();

  /// Connects with the ranks of `peers`, which do the same at the same time. Throws Error(kSystem)
  /// or Error(kTimeout) naming a rank that cannot be reached, Error(kPeerLost) for one that was
  /// connected once, Error(kAborted).
  void meet(const std::vector<int>& peers, const std::function<std::string(int)>& endpoint_of,
            const Deadline& deadline);

  /// Messages of channels that are not open are thrown away.
  void open(std::uint64_t number, std::shared_ptr<Channel> channel);
  /// Waits for the end of a call of the channel's methods that is running.
  void close(std::uint64_t number);

  /// Messages to one rank arrive in the order of the calls; those to a rank that was lost go
  /// nowhere. The payload must not change before the receiver has answered.
  void send(int to, const Header& header, Payload payload = {});

  /// How a rank was lost, null before that.
  const char* lost(int rank) const;

  /// Sends what is queued to ranks that take it, says goodbye and ends the thread.
  void shutdown();

  bool running() const;

 private:
  struct Link;

  void loop();
  void take_calls();
  void adopt(int rank, UniqueFd fd);
  void serve(std::uint64_t key, std::uint32_t events);
  void receive(Link& link);
  void cut(Link& link, const std::string& how);
  void say_goodbye();
  std::shared_ptr<Channel> channel(std::uint64_t number);
  void check_running() const;

  const int rank_;
  const int size_;
  const std::string interface_;
  const int pid_ = process_id();  // a forked child has no such thread

  std::vector<std::unique_ptr<Link>> links_;  // by rank

  std::mutex handling_;  // held while a channel's method runs
  std::map<std::uint64_t, std::shared_ptr<Channel>> channels_;  // under handling_

  mutable std::mutex mutex_;
  std::condition_variable changed_;            // a link was made or lost, or this ends
  bool stopping_ = false;                      // under mutex_
  std::atomic<bool> ends_{false};              // the same, for the thread
  UniqueFd epoll_, wake_;                      // made under mutex_
  std::unique_ptr<tcp::Reception> reception_;  // made under mutex_; of the thread
  std::thread thread_;                         // under mutex_
};

}  // namespace bluefog::messages
