# Decides BLUEFOG_CUDA_ENABLED from BLUEFOG_CUDA, nvcc and torch, and says why. Where it is ON, gives
#   torch::cuda                   torch's CUDA libraries, and the toolkit's headers and runtime
#   BLUEFOG_CUDA_VERSION          of nvcc, "13.0"; else empty
#   BLUEFOG_CUDA_ARCHITECTURES    what kernels are compiled for: "sm_80,sm_90,compute_90"
# CMAKE_CUDA_ARCHITECTURES or the environment variable CUDAARCHS take the place of the defaults.

find_program(BLUEFOG_NVCC nvcc HINTS $ENV{CUDA_HOME}/bin /usr/local/cuda/bin)
set(_cuda_missing "")
set(BLUEFOG_CUDA_VERSION "")
if(NOT TORCH_CUDA OR NOT EXISTS ${TORCH_DIR}/include/c10/cuda/CUDAStream.h)
  set(_cuda_missing "this torch is built without CUDA")
elseif(NOT BLUEFOG_NVCC)
  set(_cuda_missing "nvcc is not found (set CUDA_HOME)")
else()
  execute_process(COMMAND ${BLUEFOG_NVCC} --version OUTPUT_VARIABLE _nvcc_says)
  string(REGEX MATCH "release (([0-9]+)\\.[0-9]+)" _ "${_nvcc_says}")
  set(_nvcc_version "${CMAKE_MATCH_1}")
  if(NOT TORCH_CUDA MATCHES "^${CMAKE_MATCH_2}\\.")
    set(_cuda_missing "torch is for CUDA ${TORCH_CUDA} and ${BLUEFOG_NVCC} for ${_nvcc_version}")
  elseif(_nvcc_version VERSION_LESS 12.0)
    set(_cuda_missing "${BLUEFOG_NVCC} is for CUDA ${_nvcc_version}, and C++20 needs 12.0 or newer")
  endif()
endif()

# One more of 80 and up costs 15 seconds of compiling. Others (75, 120) are translated from
# compute_75 by the driver, once per machine.
if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND NOT DEFINED ENV{CUDAARCHS})
  set(CMAKE_CUDA_ARCHITECTURES 75-virtual 80-real 90-real)
  if(_nvcc_version VERSION_GREATER_EQUAL 12.8)
    list(APPEND CMAKE_CUDA_ARCHITECTURES 100-real)
  endif()
endif()

# Whether nvcc works with the C++ compiler is found out by trying, in a project of its own: where
# CUDA is not asked for, that must not end the build.
if(NOT _cuda_missing AND NOT SANITIZE AND (BLUEFOG_CUDA OR BLUEFOG_CUDA STREQUAL "AUTO"))
  set(ENV{CUDACXX} ${BLUEFOG_NVCC})
  if(NOT CMAKE_CUDA_HOST_COMPILER)
    set(CMAKE_CUDA_HOST_COMPILER ${CMAKE_CXX_COMPILER})
  endif()
  include(CheckLanguage)
  check_language(CUDA)
  if(NOT CMAKE_CUDA_COMPILER)
    set(_cuda_missing "${BLUEFOG_NVCC} compiles nothing with ${CMAKE_CUDA_HOST_COMPILER}")
  endif()
endif()

set(BLUEFOG_CUDA_ENABLED OFF)
if(SANITIZE)
  set(_cuda_missing "a sanitizer does not see what runs on a GPU")
elseif(BLUEFOG_CUDA STREQUAL "AUTO")
  if(NOT _cuda_missing)
    set(BLUEFOG_CUDA_ENABLED ON)
  endif()
elseif(BLUEFOG_CUDA)
  if(_cuda_missing)
    message(FATAL_ERROR "BLUEFOG_CUDA is ON, but ${_cuda_missing}")
  endif()
  set(BLUEFOG_CUDA_ENABLED ON)
else()
  set(_cuda_missing "BLUEFOG_CUDA=OFF")
endif()

if(NOT BLUEFOG_CUDA_ENABLED)
  message(STATUS "CUDA: off (${_cuda_missing})")
  return()
endif()

enable_language(CUDA)
if(CCACHE AND NOT CMAKE_CUDA_COMPILER_LAUNCHER)
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CCACHE})
endif()
set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
set(BLUEFOG_CUDA_VERSION ${_nvcc_version})

set(_names "")
foreach(_architecture IN LISTS CMAKE_CUDA_ARCHITECTURES)
  if(_architecture MATCHES "^([0-9]+[af]?)(-real)?$")
    list(APPEND _names sm_${CMAKE_MATCH_1})
  endif()
  if(_architecture MATCHES "^([0-9]+[af]?)(-virtual)?$")
    list(APPEND _names compute_${CMAKE_MATCH_1})
  elseif(NOT _architecture MATCHES "^[0-9]")  # native, all, all-major
    list(APPEND _names ${_architecture})
  endif()
endforeach()
list(JOIN _names "," BLUEFOG_CUDA_ARCHITECTURES)

# The shared runtime, by a name that every minor version of it has: `import torch` has loaded its
# own, with the state that streams and the allocator live in.
find_library(BLUEFOG_CUDART cudart PATHS ${CMAKE_CUDA_IMPLICIT_LINK_DIRECTORIES} NO_DEFAULT_PATH)
add_library(torch::cuda INTERFACE IMPORTED)
target_include_directories(torch::cuda SYSTEM
                           INTERFACE ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
target_link_libraries(torch::cuda INTERFACE ${TORCH_DIR}/lib/libtorch_cuda.so
                                            ${TORCH_DIR}/lib/libc10_cuda.so ${BLUEFOG_CUDART})

# The wheel of torch brings it as a package beside torch. Before the toolkit's folder, which may have
# an older one: what that does not know would be left out of the build.
find_path(BLUEFOG_NCCL_INCLUDE nccl.h HINTS ${TORCH_DIR}/../nvidia/nccl/include)
if(BLUEFOG_NCCL_INCLUDE)
  target_include_directories(torch::cuda SYSTEM BEFORE INTERFACE ${BLUEFOG_NCCL_INCLUDE})
  target_compile_definitions(torch::cuda INTERFACE BLUEFOG_NCCL)
endif()

message(STATUS "CUDA: on (torch's CUDA ${TORCH_CUDA}, ${BLUEFOG_NVCC} ${BLUEFOG_CUDA_VERSION} for "
               "${BLUEFOG_CUDA_ARCHITECTURES})")
