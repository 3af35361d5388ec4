#include "transport/nccl/communicator.h"

#include <algorithm>
#include <thread>
#include <utility>
#include <vector>

#include "transport/nccl/group_guard.h"

namespace bluefog::nccl {
namespace {

// A group is there within microseconds once its peers are connected; that, and everything else,
// takes milliseconds.
constexpr int kYields = 100;
constexpr std::chrono::milliseconds kPause{1};

ErrorCode code_of(Result result) {
  switch (result) {
    case Result::kRemoteError:
      return ErrorCode::kPeerLost;
    case Result::kTimeout:
      return ErrorCode::kTimeout;
    default:
      return ErrorCode::kSystem;
  }
}

std::string join_call(std::string_view call, int size) {
  return concat(call, " (a communicator of ", size, " ranks)");
}

// In the store the id is "+" and its bytes; "-" and a message where rank 0 could not make one, so
// that the others need not wait for the deadline.
std::vector<std::uint8_t> encode(char sign, std::string_view text) {
  const std::string signed_text = concat(sign, text);
  return {signed_text.begin(), signed_text.end()};
}

}  // namespace

void Communicator::connect(c10d::Store& store, const Deadline& deadline) {
  const UniqueId id = agree_on_id(store, deadline);
  const std::string call = join_call("ncclCommInitRankConfig", options_.size);
  {
    std::lock_guard lock(mutex_);
    check_open();
    check(api_.comm_init_rank(comm_, options_.size, id, options_.rank, config()), call);
  }
  wait_until_ready(call, deadline);
}

std::unique_ptr<Communicator> Communicator::split(int color, Options options,
                                                  const Deadline& deadline) {
  auto child = std::make_unique<Communicator>(api_, std::move(options));
  const std::string call = join_call("ncclCommSplit", child->options_.size);
  try {
    {
      std::lock_guard lock(mutex_);
      check(api_.comm_split(live(), color, child->options_.rank, child->comm_, child->config()),
            call);
    }
    wait_until_ready(call, deadline);
  } catch (...) {
    // Only the parent's end keeps NCCL's thread from writing into the child.
    abort();
    throw;
  }
  child->wait_until_ready(call, deadline);
  return child;
}

Communicator::~Communicator() { abort(); }

UniqueId Communicator::agree_on_id(c10d::Store& store, const Deadline& deadline) const {
  try {
    return options_.rank == 0 ? publish_id(store) : await_id(store, deadline);
  } catch (const Error&) {
    throw;
  } catch (const std::exception& failed) {
    fail(deadline.passed() ? ErrorCode::kTimeout : ErrorCode::kSystem, "rank ", options_.rank,
         " of ", options_.size, ": after ", deadline.elapsed_seconds(),
         " s the store has no NCCL id of rank 0 (key \"", options_.key, "\"): ", failed.what());
  }
}

UniqueId Communicator::publish_id(c10d::Store& store) const {
  UniqueId id;
  const Result result = api_.get_unique_id(id);
  if (result != Result::kSuccess) {
    const Error failed = error(result, "ncclGetUniqueId");
    store.set(options_.key, encode('-', failed.what()));
    throw failed;
  }
  store.set(options_.key, encode('+', {id.bytes.data(), id.bytes.size()}));
  return id;
}

UniqueId Communicator::await_id(c10d::Store& store, const Deadline& deadline) const {
  // To a store, 0 is no time limit at all.
  store.wait({options_.key}, std::max(deadline.left_in_ms(), std::chrono::milliseconds(1)));
  const std::vector<std::uint8_t> value = store.get(options_.key);
  UniqueId id;
  if (value.size() != 1 + id.bytes.size() || value[0] != '+') {
    fail(ErrorCode::kSystem, "rank ", options_.rank, ": there is no NCCL id for ", options_.size,
         " ranks: ", std::string(value.begin() + !value.empty(), value.end()));
  }
  std::copy(value.begin() + 1, value.end(), id.bytes.begin());
  return id;
}

Config Communicator::config() const {
  Config config;
  if (api_.has_max_p2p_peers()) config.max_p2p_peers = options_.degree;
  if (!options_.name.empty()) config.name = options_.name.c_str();
  return config;
}

// Requires mutex_.
void Communicator::check_open() const {
  if (closed_) {
    fail(ErrorCode::kAborted, "rank ", options_.rank,
         "'s NCCL communicator was aborted or shut down");
  }
}

// Requires mutex_.
Comm Communicator::live() const {
  check_open();
  if (comm_ == nullptr) {
    fail(ErrorCode::kUsage, "rank ", options_.rank, "'s NCCL communicator is not connected");
  }
  return comm_;
}

void Communicator::exchange(std::span<const Message> messages, void* stream,
                            const Deadline& deadline) {
  {
    std::lock_guard lock(mutex_);
    if (post(messages, stream) == Result::kSuccess) return;
  }
  wait_until_ready("ncclGroupEnd", deadline);
}

// Under mutex_ to its end: no call in a group of a non-blocking communicator waits for anything.
Result Communicator::post(std::span<const Message> messages, void* stream) {
  const Comm comm = live();
  GroupGuard group(api_);
  check(group.started(), "ncclGroupStart");
  for (const Message& message : messages) {
    if (message.direction == Transfer::kSend) {
      check(api_.send(message.data, message.bytes, message.peer, comm, stream),
            concat("ncclSend of ", message.bytes, " bytes to rank ", message.peer));
    } else {
      check(api_.recv(message.data, message.bytes, message.peer, comm, stream),
            concat("ncclRecv of ", message.bytes, " bytes from rank ", message.peer));
    }
  }
  const Result result = group.end();
  check(result, "ncclGroupEnd");
  return result;
}

template <typename Call>
void Communicator::issue(std::string_view call_name, const Deadline& deadline, Call&& call) {
  {
    std::lock_guard lock(mutex_);
    const Result result = call(live());
    check(result, call_name);
    if (result == Result::kSuccess) return;
  }
  wait_until_ready(call_name, deadline);
}

void Communicator::put_signal(const void* data, std::size_t bytes, int peer, Window window,
                              std::size_t offset, void* stream, const Deadline& deadline) {
  issue(concat("ncclPutSignal of ", bytes, " bytes to rank ", peer), deadline, [&](Comm comm) {
    return api_.put_signal(data, bytes, peer, window, offset, comm, stream);
  });
}

void Communicator::signal(int peer, void* stream, const Deadline& deadline) {
  issue(concat("ncclSignal to rank ", peer), deadline,
        [&](Comm comm) { return api_.signal(peer, comm, stream); });
}

void Communicator::wait_signal(int peer, void* stream, const Deadline& deadline) {
  issue(concat("ncclWaitSignal for rank ", peer), deadline,
        [&](Comm comm) { return api_.wait_signal(peer, comm, stream); });
}

void Communicator::register_window(void* memory, std::size_t bytes, Window& window,
                                   const Deadline& deadline) {
  issue(concat("ncclCommWindowRegister of ", bytes, " bytes"), deadline,
        [&](Comm comm) { return api_.window_register(comm, memory, bytes, window); });
}

void Communicator::deregister_window(Window window, const Deadline& deadline) {
  issue("ncclCommWindowDeregister", deadline,
        [&](Comm comm) { return api_.window_deregister(comm, window); });
}

std::optional<Error> Communicator::async_error() {
  std::lock_guard lock(mutex_);
  if (comm_ == nullptr) return std::nullopt;
  Result state = Result::kSuccess;
  const Result asked = api_.comm_get_async_error(comm_, state);
  const Result result = asked == Result::kSuccess ? state : asked;
  if (result == Result::kSuccess || result == Result::kInProgress) return std::nullopt;
  return error(result, "NCCL's own thread");
}

void Communicator::finalize(const Deadline& deadline) {
  {
    std::lock_guard lock(mutex_);
    check(api_.comm_finalize(live()), "ncclCommFinalize");
  }
  wait_until_ready("ncclCommFinalize", deadline);
  std::lock_guard lock(mutex_);
  const Comm comm = live();
  closed_ = true;
  comm_ = nullptr;  // gone even where this reports a failure
  check(api_.comm_destroy(comm), "ncclCommDestroy");
}

// The result tells of nothing that could still be done.
void Communicator::abort() noexcept {
  std::lock_guard lock(mutex_);
  closed_ = true;
  if (comm_ != nullptr) api_.comm_abort(std::exchange(comm_, nullptr));
}

void Communicator::check(Result result, std::string_view call) const {
  if (result != Result::kSuccess && result != Result::kInProgress) throw error(result, call);
}

// Requires mutex_ where there is a communicator.
Error Communicator::error(Result result, std::string_view call) const {
  const std::string last = api_.last_error(comm_);
  return Error(code_of(result),
               concat("rank ", options_.rank, ": ", call, " failed: ", api_.error_string(result),
                      last.empty() ? "" : "; NCCL's last message: ", last));
}

void Communicator::wait_until_ready(std::string_view call, const Deadline& deadline) {
  for (int tries = 0;; ++tries) {
    {
      std::lock_guard lock(mutex_);
      Result state = Result::kSuccess;
      check(api_.comm_get_async_error(live(), state), "ncclCommGetAsyncError");
      check(state, call);
      if (state == Result::kSuccess) return;
    }
    if (deadline.passed()) {
      fail(ErrorCode::kTimeout, "rank ", options_.rank, ": ", call, " was not done after ",
           deadline.elapsed_seconds(), " s; other ranks have not come to it");
    }
    if (tries < kYields) {
      std::this_thread::yield();
    } else {
      std::this_thread::sleep_for(kPause);
    }
  }
}

}  // namespace bluefog::nccl
