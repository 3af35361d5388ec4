#include "ranks.h"

#include <algorithm>
#include <exception>
#include <thread>
#include <utility>

#include "base/error.h"
#include "lending.h"
#include "transport/routed.h"
#include "transport/tcp/tcp_transport.h"

namespace bluefog::test {
namespace {

template <typename T>
std::vector<std::unique_ptr<Transport>> upcast(std::vector<std::unique_ptr<T>> transports) {
  return {std::make_move_iterator(transports.begin()), std::make_move_iterator(transports.end())};
}

std::vector<std::unique_ptr<Transport>> make_loopback(int n, LoopbackHub* hub) {
  std::vector<std::unique_ptr<Transport>> transports;
  for (int rank = 0; rank < n; ++rank) {
    transports.push_back(std::make_unique<LoopbackTransport>(hub, rank));
  }
  return transports;
}

// The `far` ones between ranks that are apart, shared memory between others.
std::vector<std::unique_ptr<Transport>> make_routed(int n,
                                                    std::vector<std::unique_ptr<Transport>> far,
                                                    const Env& env,
                                                    const std::function<bool(int, int)>& apart) {
  auto shm = make_shm(n, env);
  std::vector<std::unique_ptr<Transport>> routed;
  for (int rank = 0; rank < n; ++rank) {
    std::vector<std::unique_ptr<Transport>> transports;
    transports.push_back(std::move(far[rank]));
    transports.push_back(std::move(shm[rank]));
    std::vector<int> routes;
    for (int peer = 0; peer < n; ++peer) routes.push_back(apart(rank, peer) ? 0 : 1);
    routed.push_back(std::make_unique<RoutedTransport>(std::move(transports), std::move(routes)));
  }
  return routed;
}

std::vector<int> others(int n, int rank) {
  std::vector<int> ranks;
  for (int peer = 0; peer < n; ++peer) {
    if (peer != rank) ranks.push_back(peer);
  }
  return ranks;
}

constexpr std::size_t kInFlight = 8 << 20;  // more than the kernel keeps of a connection

// `together`: ranks that share memory with others.
std::vector<std::unique_ptr<Transport>> make_tcp(
    int n, const std::function<bool(int)>& together = [](int) { return false; }) {
  Store store;
  std::vector<std::unique_ptr<Transport>> transports(n);
  run_ranks(n, [&](int rank) {
    const auto pieces = together(rank) ? tcp::Pieces::kOne : tcp::Pieces::kMany;
    transports[rank] = tcp::TcpTransport::connect(store.rendezvous(rank), rank, n, others(n, rank),
                                                  "lo", pieces, Deadline::in(kPlenty));
  });
  return transports;
}

// Every `step`-th rank lends its payloads.
std::vector<std::unique_ptr<Transport>> make_lending(int n, const Env& env, int step) {
  auto transports = upcast(make_shm(n, env));
  for (int rank = 0; rank < n; rank += step) {
    transports[rank] = std::make_unique<LendingTransport>(std::move(transports[rank]));
  }
  return transports;
}

}  // namespace

void run_ranks(int n, const std::function<void(int)>& fn, const std::function<void()>& on_failure) {
  std::mutex mutex;
  std::exception_ptr first;
  std::vector<std::thread> threads;
  for (int rank = 0; rank < n; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        fn(rank);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (!first) {
          first = std::current_exception();
          on_failure();
        }
      }
    });
  }
  for (auto& thread : threads) thread.join();
  if (first) std::rethrow_exception(first);
}

Caught catch_error(const std::function<void()>& fn) {
  try {
    fn();
  } catch (const Error& error) {
    return {error.code(), error.what()};
  }
  return {std::nullopt, "no error"};
}

Caught describe(std::exception_ptr error) {
  return catch_error([&] {
    if (error) std::rethrow_exception(error);
  });
}

void Store::set(int rank, const std::string& key, const std::string& value) {
  {
    const std::lock_guard lock(mutex_);
    values_[{rank, key}] = value;
  }
  changed_.notify_all();
}

std::string Store::get(int of, const std::string& key, milliseconds timeout) {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, timeout, [&] { return values_.count({of, key}) > 0; })) {
    fail(ErrorCode::kTimeout, "rank ", of, " did not set ", key);
  }
  return values_[{of, key}];
}

Rendezvous Store::rendezvous(int rank) {
  return {[this, rank](const std::string& key, const std::string& value) { set(rank, key, value); },
          [this](int of, const std::string& key) { return get(of, key); }};
}

Env shm_env(std::size_t chunk_bytes, std::size_t chunks) {
  Env env;
  env.shm_chunk_bytes = chunk_bytes;
  env.shm_chunks = chunks;
  env.shm_heap_bytes = 16 << 20;
  return env;
}

std::vector<std::unique_ptr<shm::ShmTransport>> make_shm(int n, const Env& env) {
  Store store;
  std::vector<std::unique_ptr<shm::ShmTransport>> transports(n);
  run_ranks(n, [&](int rank) {
    transports[rank] =
        shm::ShmTransport::connect(store.rendezvous(rank), rank, n, env, Deadline::in(kPlenty));
  });
  return transports;
}

const std::vector<std::string>& Group::kinds() {
  static const std::vector<std::string> kinds{"loopback", "shm",   "shm_tiny", "tcp",
                                              "routed",   "hosts", "lent",     "mixed"};
  return kinds;
}

Group::Group(const std::string& kind, int size) : hub_(std::make_unique<LoopbackHub>(size)) {
  const Env env = kind == "shm"      ? shm_env(32768, 4)
                  : kind == "routed" ? shm_env(8192, 4)  // another unit than loopback's pieces
                                     : shm_env(4096, 2);
  ring_bytes_ = env.shm_chunk_bytes * env.shm_chunks;
  if (kind == "loopback") {
    transports_ = make_loopback(size, hub_.get());
  } else if (kind == "tcp") {
    transports_ = make_tcp(size);
    ring_bytes_ = kInFlight;
  } else if (kind == "routed") {
    transports_ = make_routed(size, make_loopback(size, hub_.get()), env,
                              [](int rank, int peer) { return (rank + peer) % 2 == 0; });
  } else if (kind == "hosts") {
    transports_ = make_routed(size, make_tcp(size, [](int rank) { return rank != 2; }), env,
                              [](int rank, int peer) { return rank == 2 || peer == 2; });
    ring_bytes_ = kInFlight;
  } else if (kind == "lent" || kind == "mixed") {
    transports_ = make_lending(size, env, kind == "lent" ? 1 : 2);
  } else {
    transports_ = upcast(make_shm(size, env));
  }
}

void Group::run(const std::function<void(int)>& fn) {
  run_ranks(size(), fn, [this] {
    for (auto& transport : transports_) transport->abort();
  });
}

}  // namespace bluefog::test
