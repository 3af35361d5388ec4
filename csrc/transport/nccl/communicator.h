// An NCCL communicator of its own, non-blocking, so that no call can hang beyond its deadline.
//
// Thread-safe; abort() also interrupts another thread's wait here. A call that throws leaves
// the communicator fit for nothing but abort(), which is left to the owner: who watches its rounds
// has to be told of the failure before the abort makes them look complete.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <torch/csrc/distributed/c10d/Store.hpp>

#include "base/deadline.h"
#include "base/error.h"
#include "transport/nccl/api.h"
#include "transport/nccl/wire.h"

namespace bluefog::nccl {

class Communicator {
 public:
  struct Options {
    int rank;
    int size;
    int degree = 0;         // Config::max_p2p_peers
    std::string name = {};  // Config::name
    /// Where rank 0 leaves the id. The store keeps it: another communicator wants another key.
    std::string key = "nccl_id";
  };

  /// Bytes that go to a peer or come from it.
  struct Message {
    Transfer::Direction direction;
    int peer;
    void* data;
    std::size_t bytes;
  };

  /// `api` must outlive the communicator, which is one only after connect() or from split().
  Communicator(NcclApi& api, Options options) : api_(api), options_(std::move(options)) {}

  /// Collective, once. The current device is the communicator's. Throws Error(kTimeout) where the
  /// others have not come by the deadline, Error(kSystem) where NCCL or the store fails. Nothing
  /// ends the wait for the store before the deadline.
  void connect(c10d::Store& store, const Deadline& deadline);

  /// Collective over this communicator: ranks of one `color`, which is not negative, form a new
  /// one, in which this rank is options.rank; options.key is not used. Aborts this one where it
  /// fails: nothing else keeps NCCL from finishing the new one when it is gone.
  std::unique_ptr<Communicator> split(int color, Options options, const Deadline& deadline);

  /// Aborts, unless finalize() or abort() was called.
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  /// Enqueues all messages on `stream` as one group, in their order, and returns once it is there,
  /// which may take the time to connect to peers that are new.
  void exchange(std::span<const Message> messages, void* stream, const Deadline& deadline);

  /// One-sided calls, for an api with has_put_signal(). Each returns once it is enqueued, and comes
  /// after the one before has returned: NCCL refuses calls while one is in progress.
  void put_signal(const void* data, std::size_t bytes, int peer, Window window, std::size_t offset,
                  void* stream, const Deadline& deadline);
  void signal(int peer, void* stream, const Deadline& deadline);
  void wait_signal(int peer, void* stream, const Deadline& deadline);

  /// Collective, with the same number of bytes. Where it throws, NCCL may still write `window`
  /// until this communicator is aborted. Leaves it null where NCCL has no windows for these ranks.
  void register_window(void* memory, std::size_t bytes, Window& window, const Deadline& deadline);
  void deregister_window(Window window, const Deadline& deadline);

  /// What has gone wrong since, in NCCL's own threads; none where all is well or it is aborted.
  std::optional<Error> async_error();

  /// Waits for what this rank has under way, data that others are still to fetch included, and
  /// frees everything. Collective.
  void finalize(const Deadline& deadline);

  /// Stops what is under way on the device and frees everything; other threads' calls and all later
  /// ones fail with kAborted. May come before connect(), and more than once.
  void abort() noexcept;

  int rank() const { return options_.rank; }

 private:
  UniqueId agree_on_id(c10d::Store& store, const Deadline& deadline) const;
  UniqueId publish_id(c10d::Store& store) const;
  UniqueId await_id(c10d::Store& store, const Deadline& deadline) const;
  Config config() const;
  void check_open() const;
  Comm live() const;
  Result post(std::span<const Message> messages, void* stream);
  template <typename Call>
  void issue(std::string_view call_name, const Deadline& deadline, Call&& call);
  void check(Result result, std::string_view call) const;
  Error error(Result result, std::string_view call) const;
  void wait_until_ready(std::string_view call, const Deadline& deadline);

  NcclApi& api_;
  const Options options_;
  std::mutex mutex_;
  // Both under mutex_, as is every call on comm_.
  Comm comm_ = nullptr;  // null before connect() and once it is gone
  bool closed_ = false;  // aborted or finalized
};

}  // namespace bluefog::nccl
