// What the emulated GPU's kernels do, by the names that nvcc gives them. Device memory is memory of
// the process, so a kernel is a function that runs on the thread of its stream.
#pragma once

#include <cuda_runtime_api.h>

#include <functional>
#include <string>

namespace emulator {

/// What a launch of the kernel with this mangled name does; empty if the emulator does not know it.
/// The arguments are copied; the work may be called several times.
std::function<void()> kernel_work(const std::string& mangled_name, dim3 grid, dim3 block,
                                  void** arguments);

/// The same for bluefog's own kernel: combine_kernel of csrc/kernels/combine_cuda.cu.
std::function<void()> combine_work(const std::string& mangled_name, dim3 grid, dim3 block,
                                   void** arguments);

/// The same for the signals of torch's symmetric memory: put, wait and barrier.
std::function<void()> signal_work(const std::string& mangled_name, void** arguments);

}  // namespace emulator
