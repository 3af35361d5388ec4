// How the ranks of a group come to reach each other without Gloo: those of one host when the group
// is made, others at the first neighbor operation.
#include <algorithm>
#include <map>
#include <thread>
#include <utility>

#include "backend/bluefog_backend.h"
#include "backend/connect.h"
#include "base/env.h"
#include "base/error.h"
#include "plan/collective.h"

namespace bluefog {

// A collective that is async may not wait for ranks that do something else first, so what connects
// them happens here: making a group is collective, and Gloo has connected it already.
void BluefogBackend::meetOnHost() {
  const Env env = Env::read();
  const bool wanted =
      options_->host_collectives && env.host_collectives && shares_memory(options_->transport);
  if (getSize() == 1) {  // there is nobody to meet: it connects when it is used, if ever
    if (wanted) make_host_plans();
    return;
  }
  const Rendezvous rendezvous = rendezvous_at("host/", "its process group");
  std::lock_guard lock(connect_mutex_);
  if (!may_share_host(rendezvous, getSize(), wanted)) return;
  host_ = connect_host(connect_options(env), rendezvous);
  if (!host_.everybody) return;
  adopt(connect_on_host(std::move(host_), connect_options(env)));
  make_host_plans();
}

Executor& BluefogBackend::executor() {
  check_process();
  Executor* const running = connected_.load(std::memory_order_acquire);
  if (running && !closed_) {
    return *running;
  }
  std::lock_guard lock(connect_mutex_);
  if (closed_) {
    fail(ErrorCode::kAborted, "rank ", getRank(), "'s process group has been destroyed or aborted");
  }
  if (!executor_) connect();
  return *executor_;
}

// First all ranks say that they are here, which may time out and be tried again; only then does
// anything follow that has to be done by all of them together. A second try of that would find the
// words of the first one in the store, so each has a place of its own there.
void BluefogBackend::connect() {
  const Env env = Env::read();
  const Rendezvous rendezvous =
      rendezvous_at(concat("neighbors/", connect_tries_, "/"), "its first neighbor operation");
  rendezvous.set("here", "");
  rendezvous.get(getRank(), "here");
  ++connect_tries_;
  HostPart host = std::exchange(host_, {});
  if (!host.shm) host = connect_host(connect_options(env), rendezvous);
  adopt(connect_transport(connect_options(env), std::move(host), rendezvous, makers_.edges));
}

ConnectOptions BluefogBackend::connect_options(const Env& env) const {
  return {options_->transport, getRank(), getSize(), env, Deadline::in(options_->timeout)};
}

void BluefogBackend::adopt(Connection connection) {
  transport_ = std::move(connection.transport);
  transport_names_ = std::move(connection.names);
  executor_ = std::make_unique<Executor>(transport_.get());
  connected_.store(executor_.get(), std::memory_order_release);
}

void BluefogBackend::make_host_plans() {
  const int rank = getRank(), size = getSize();
  host_plans_.sum = std::make_shared<const Plan>(all_to_all(rank, size, 1));
  host_plans_.mean = std::make_shared<const Plan>(all_to_all(rank, size, 1.0 / size));
  for (int root = 0; root < size; ++root) {
    host_plans_.roots.push_back(std::make_shared<const Plan>(from_root(rank, size, root)));
  }
  host_collectives_ = true;
}

// What ranks say under one key is read once that of all of them is there: two requests to the store
// for any number of ranks. `what` is what they are to join.
Rendezvous BluefogBackend::rendezvous_at(const std::string& place, const char* what) {
  auto keys_of = [place, size = getSize()](const std::string& key) {
    std::vector<std::string> keys;
    for (int rank = 0; rank < size; ++rank) keys.push_back(concat(place, key, "/", rank));
    return keys;
  };
  auto known = std::make_shared<std::map<std::string, std::vector<std::vector<uint8_t>>>>();
  return {[this, keys_of](const std::string& key, const std::string& value) {
            store_->set(keys_of(key)[getRank()], std::vector<uint8_t>(value.begin(), value.end()));
          },
          [this, keys_of, known, what](int of, const std::string& key) {
            auto& values = (*known)[key];
            if (values.empty()) {
              wait_for_ranks(keys_of(key), what);
              values = read_all(keys_of(key));
            }
            return std::string(values[of].begin(), values[of].end());
          }};
}

std::vector<std::vector<uint8_t>> BluefogBackend::read_all(const std::vector<std::string>& keys) {
  if (store_->hasExtendedApi()) return store_->multiGet(keys);
  std::vector<std::vector<uint8_t>> values;
  for (const std::string& key : keys) values.push_back(store_->get(key));
  return values;
}

// Looks again and again: nothing ends a Store's own wait before its time. `keys` are by rank.
void BluefogBackend::wait_for_ranks(const std::vector<std::string>& keys, const char* what) {
  const Deadline deadline = Deadline::in(options_->timeout);
  std::chrono::microseconds pause{50};
  while (!store_->check(keys)) {
    if (closed_) {
      fail(ErrorCode::kAborted, "rank ", getRank(), "'s wait for the others to join ", what,
           " ended because the process group was aborted or destroyed");
    }
    if (deadline.passed()) {
      std::vector<int> missing;
      for (int rank = 0; rank < getSize(); ++rank) {
        if (!store_->check({keys[rank]})) missing.push_back(rank);
      }
      fail(ErrorCode::kTimeout, "rank ", getRank(), " waited ", options_->timeout.count() / 1000.0,
           " s for ", name_ranks(missing), " to join ", what);
    }
    std::this_thread::sleep_for(pause);
    pause = std::min(2 * pause, std::chrono::microseconds(16000));
  }
}

std::string BluefogBackend::transportOf(int peer) {
  TORCH_CHECK_VALUE(peer >= 0 && peer < getSize() && peer != getRank(), "rank ", getRank(),
                    " has no peer ", peer, " in a group of ", getSize());
  executor();
  return transport_names_[peer];
}

}  // namespace bluefog
