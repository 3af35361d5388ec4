// The signals of torch's symmetric memory (its CUDASymmetricMemory-inl.cuh, of torch 2.11 to 2.15):
// flags in memory that the ranks share. Who puts a signal changes a flag of the receiver from 0 to
// 1, and who waits for it changes it back; each blocks its stream until it can. The pad of a rank
// has, for each channel, one flag for each rank that signals to it.
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <thread>

#include "cuda/kernels.h"

namespace emulator {
namespace {

// What the three kernels are told. `peer` is of put and wait only.
struct Signals {
  std::uint32_t** pads;  // one a rank
  int peer;
  int channel;
  int rank;
  int world_size;
  std::size_t timeout_ms;  // 0: none

  std::uint32_t& flag(int receiver, int sender) const {
    return pads[receiver][world_size * channel + sender];
  }
};

// Since when somebody waits.
class Waiting {
 public:
  explicit Waiting(std::size_t timeout_ms) : timeout_ms_(timeout_ms) {}

  // Changes `flag` from `before` to `after` as soon as that is possible; false if it was not in
  // time. More ranks than cores take turns, so it sleeps.
  bool change(std::uint32_t& flag, std::uint32_t before, std::uint32_t after,
              std::memory_order order) const {
    const std::atomic_ref<std::uint32_t> shared(flag);
    for (std::uint32_t seen = before;
         !shared.compare_exchange_strong(seen, after, order, std::memory_order_relaxed);
         seen = before) {
      if (timeout_ms_ != 0 && passed_ms() > timeout_ms_) return false;
      std::this_thread::sleep_for(std::chrono::microseconds(10));
    }
    return true;
  }

 private:
  std::size_t passed_ms() const {
    const auto passed = std::chrono::steady_clock::now() - begin_;
    return std::chrono::duration_cast<std::chrono::milliseconds>(passed).count();
  }

  const std::size_t timeout_ms_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();
};

// A real kernel prints and traps, which makes every later call of the process fail.
[[noreturn]] void give_up(const Signals& signals, const char* function, const char* what,
                          int peer) {
  std::fprintf(stderr,
               "[FATAL] SymmetricMemory::%s: rank %d failed to %s rank %d on channel %d after %zu "
               "milliseconds\n",
               function, signals.rank, what, peer, signals.channel, signals.timeout_ms);
  std::abort();
}

void put(const Signals& signals, int peer, const Waiting& waiting, const char* function) {
  std::uint32_t& flag = signals.flag(peer, signals.rank);
  if (!waiting.change(flag, 0, 1, std::memory_order_release)) {
    give_up(signals, function, "send signal to", peer);
  }
}

void wait(const Signals& signals, int peer, const Waiting& waiting, const char* function) {
  std::uint32_t& flag = signals.flag(signals.rank, peer);
  if (!waiting.change(flag, 1, 0, std::memory_order_acquire)) {
    give_up(signals, function, "receive signal from", peer);
  }
}

// There each peer has a thread that puts and then waits. Here all puts come first: they depend on
// nothing but barriers that are past, and so no peer waits for another's.
void barrier(const Signals& signals) {
  const auto each_peer = [&](auto step) {
    const Waiting waiting(signals.timeout_ms);
    for (int peer = 0; peer < signals.world_size; ++peer) {
      if (peer != signals.rank) step(signals, peer, waiting, "barrier");
    }
  };
  each_peer(put);
  each_peer(wait);
}

template <typename T>
T argument(void** arguments, int number) {
  return *static_cast<const T*>(arguments[number]);
}

}  // namespace

std::function<void()> signal_work(const std::string& mangled_name, void** arguments) {
  // (std::uint32_t** pads, [int peer,] int channel, int rank, int world_size, size_t timeout_ms)
  const auto signals = [arguments](bool with_peer) {
    const auto number = [&](int i) { return argument<int>(arguments, i + with_peer); };
    return Signals{argument<std::uint32_t**>(arguments, 0),
                   with_peer ? argument<int>(arguments, 1) : -1,
                   number(1),
                   number(2),
                   number(3),
                   argument<std::size_t>(arguments, 4 + with_peer)};
  };
  if (mangled_name == "_ZN4c10d16symmetric_memory17put_signal_kernelEPPjiiiim") {
    return [all = signals(true)] { put(all, all.peer, Waiting(all.timeout_ms), "put_signal"); };
  }
  if (mangled_name == "_ZN4c10d16symmetric_memory18wait_signal_kernelEPPjiiiim") {
    return [all = signals(true)] { wait(all, all.peer, Waiting(all.timeout_ms), "wait_signal"); };
  }
  if (mangled_name == "_ZN4c10d16symmetric_memory14barrier_kernelEPPjiiim") {
    return [all = signals(false)] { barrier(all); };
  }
  return {};
}

}  // namespace emulator
