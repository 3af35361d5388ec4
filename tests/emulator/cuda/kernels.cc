#include "cuda/kernels.h"

#include <chrono>
#include <cstdint>
#include <thread>

namespace emulator {
namespace {

// torch.cuda._sleep: a cycle is a nanosecond.
std::function<void()> sleep_work(const std::string& mangled_name, void** arguments) {
  if (mangled_name.find("spin_kernel") == std::string::npos) return {};
  const std::chrono::nanoseconds time(*static_cast<const std::int64_t*>(arguments[0]));
  return [time] { std::this_thread::sleep_for(time); };
}

}  // namespace

std::function<void()> kernel_work(const std::string& mangled_name, dim3 grid, dim3 block,
                                  void** arguments) {
  if (auto work = combine_work(mangled_name, grid, block, arguments)) return work;
  if (auto work = signal_work(mangled_name, arguments)) return work;
  return sleep_work(mangled_name, arguments);
}

}  // namespace emulator
