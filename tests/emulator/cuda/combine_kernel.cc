// bluefog's own kernel, from its real source, on the CPU. Its threads know nothing of each other,
// so a launch is a loop over them. Compiled with -ffp-contract=off, as kernels/combine_cpu.cc.
#include <cxxabi.h>

#include <cstdio>
#include <cstring>
#include <memory>

#include "cuda/device_code.h"
#include "cuda/kernels.h"
#include "kernels/combine_cuda.h"

namespace bluefog {
// Not to be emitted: who calls it has the one of the module that is tested.
inline cudaError_t launch_combine(const CombineList& list, cudaStream_t stream);
}  // namespace bluefog

// What is outside a tensor is computed, but not stored. (For the pragmas that g++ 12 does not know,
// there is only -Wno-unknown-pragmas.)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC diagnostic ignored "-Wuninitialized"
#include "kernels/combine_cuda.cu"
#pragma GCC diagnostic pop

namespace bluefog {
namespace {

// The instantiation of this name for the CPU; null if the name is of another kernel. The name has
// the source file's name in it as well, and a hash.
Kernel kernel_of(const std::string& mangled_name) {
  if (mangled_name.find("combine_kernel") == std::string::npos) return nullptr;
  const std::unique_ptr<char, decltype(&std::free)> name(
      abi::__cxa_demangle(mangled_name.c_str(), nullptr, nullptr, nullptr), &std::free);
  const char* place = name ? std::strstr(name.get(), "::combine_kernel<") : nullptr;
  unsigned own, payload, terms;
  if (place == nullptr ||
      std::sscanf(place, "::combine_kernel<(bluefog::Element)%u, (bluefog::Element)%u, %u>", &own,
                  &payload, &terms) != 3) {
    return nullptr;
  }
  // 0 terms stand for any number there as well.
  return kernel_for(static_cast<Element>(own), static_cast<Element>(payload), terms);
}

void run(Kernel kernel, dim3 grid, dim3 block, const CombineArguments& arguments) {
  gridDim = grid;
  for (unsigned b = 0; b < grid.x; ++b) {
    blockIdx = {b, 0, 0};
    for (unsigned t = 0; t < block.x; ++t) {
      threadIdx = {t, 0, 0};
      kernel(arguments);
    }
  }
}

}  // namespace
}  // namespace bluefog

namespace emulator {

std::function<void()> combine_work(const std::string& mangled_name, dim3 grid, dim3 block,
                                   void** arguments) {
  const bluefog::Kernel kernel = bluefog::kernel_of(mangled_name);
  if (kernel == nullptr) return {};
  return
      [kernel, grid, block, copy = *static_cast<const bluefog::CombineArguments*>(arguments[0])] {
        bluefog::run(kernel, grid, block, copy);
      };
}

}  // namespace emulator
