# The emulated GPU of the tests (tests/emulator), in <build>/emulator, by the names of what its
# libraries stand in for; the target bluefog_emulator, which is empty where CUDA is off.

add_custom_target(bluefog_emulator)
if(NOT BLUEFOG_CUDA_ENABLED)
  return()
endif()

set(BLUEFOG_EMULATOR_DIR ${CMAKE_BINARY_DIR}/emulator)
file(GLOB _cuda CONFIGURE_DEPENDS tests/emulator/cuda/*.cc)
file(GLOB _nccl CONFIGURE_DEPENDS tests/emulator/nccl/*.cc)
file(GLOB _operators CONFIGURE_DEPENDS tests/emulator/operators/*.cc)

# As in combine_cpu.cc; and of its pragmas, g++ knows none.
set_source_files_properties(tests/emulator/cuda/combine_kernel.cc PROPERTIES
                            COMPILE_OPTIONS "-ffp-contract=off;-Wno-unknown-pragmas")

function(add_emulated target file)
  add_library(${target} MODULE ${ARGN})
  target_include_directories(${target} PRIVATE csrc tests/emulator)
  target_include_directories(
    ${target} SYSTEM PRIVATE $<TARGET_PROPERTY:torch::cuda,INTERFACE_INCLUDE_DIRECTORIES>)
  target_link_libraries(${target} PRIVATE bluefog_flags Threads::Threads)
  # The process has preloaded what they call.
  target_link_options(${target} PRIVATE -Wl,-soname,${file} -Wl,-z,undefs)
  set_target_properties(${target} PROPERTIES PREFIX "" SUFFIX "" OUTPUT_NAME ${file}
                                             LIBRARY_OUTPUT_DIRECTORY ${BLUEFOG_EMULATOR_DIR})
endfunction()

add_emulated(emulated_cuda libcuda.so.1 ${_cuda})
add_emulated(emulated_nvml libnvidia-ml.so.1 tests/emulator/nvml.cc)
add_emulated(emulated_nccl libnccl.so.2 ${_nccl})
add_emulated(emulated_operators libemulated_operators.so ${_operators})
target_link_libraries(emulated_operators PRIVATE torch::cpu ${TORCH_DIR}/lib/libc10_cuda.so)
set_target_properties(emulated_operators PROPERTIES BUILD_RPATH ${TORCH_DIR}/lib)
add_dependencies(bluefog_emulator emulated_cuda emulated_nvml emulated_nccl emulated_operators)
