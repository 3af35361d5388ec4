# The Python modules bluefog_pg._C and, with CUDA, bluefog_pg._C_cuda, and their _build_info.py: all
# in <build>/bluefog_pg. The target bluefog_modules builds those that there are.

set(BLUEFOG_PACKAGE_DIR ${CMAKE_BINARY_DIR}/bluefog_pg)

Python_add_library(_C MODULE WITH_SOABI ${MODULE_SOURCES})
target_compile_definitions(_C PRIVATE TORCH_EXTENSION_NAME=_C TORCH_API_INCLUDE_EXTENSION_H)
# torch::cpu before everything else: another pybind11 on the include path would have its own type
# registry and not know torch's c10d classes.
target_include_directories(
  _C SYSTEM BEFORE PRIVATE $<TARGET_PROPERTY:torch::cpu,INTERFACE_INCLUDE_DIRECTORIES>)
target_link_libraries(_C PRIVATE torch::c10d bluefog_device bluefog_core bluefog_flags)
target_precompile_headers(_C REUSE_FROM bluefog_device)
set_target_properties(
  _C
  PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${BLUEFOG_PACKAGE_DIR}
             # Beside torch in site-packages; `import torch` has loaded the libraries already.
             BUILD_WITH_INSTALL_RPATH ON
             INSTALL_RPATH "$ORIGIN/../torch/lib")

add_custom_target(bluefog_modules DEPENDS _C)

file(GLOB _stale ${BLUEFOG_PACKAGE_DIR}/_C_cuda.*)
if(BLUEFOG_CUDA_ENABLED)
  # Apart, because nvcc knows neither torch's headers nor g++'s warnings.
  list(FILTER CUDA_SOURCES EXCLUDE REGEX "\\.cu$")
  if(NOT BLUEFOG_NCCL_INCLUDE)
    list(FILTER CUDA_SOURCES EXCLUDE REGEX "/loaded_nccl\\.cc$")
  endif()
  file(GLOB _kernels CONFIGURE_DEPENDS csrc/kernels/*.cu)
  add_library(bluefog_cuda_kernels OBJECT ${_kernels})
  target_include_directories(bluefog_cuda_kernels PRIVATE csrc)
  # One compiler for each architecture, at once.
  target_compile_options(bluefog_cuda_kernels PRIVATE -std=c++20 --threads=0)
  set_target_properties(bluefog_cuda_kernels PROPERTIES CUDA_STANDARD_REQUIRED OFF)

  # The checks and the fallback are in both modules: neither links the other.
  Python_add_library(_C_cuda MODULE WITH_SOABI ${CUDA_SOURCES} csrc/device/combine_aten.cc)
  target_compile_definitions(
    _C_cuda PRIVATE TORCH_EXTENSION_NAME=_C_cuda TORCH_API_INCLUDE_EXTENSION_H
                    BLUEFOG_CUDA_VERSION="${BLUEFOG_CUDA_VERSION}"
                    BLUEFOG_CUDA_ARCHITECTURES="${BLUEFOG_CUDA_ARCHITECTURES}")
  target_include_directories(
    _C_cuda SYSTEM BEFORE PRIVATE $<TARGET_PROPERTY:torch::cpu,INTERFACE_INCLUDE_DIRECTORIES>)
  target_link_libraries(_C_cuda PRIVATE bluefog_cuda_kernels torch::c10d torch::cuda bluefog_core
                                        bluefog_flags)
  set_target_properties(
    _C_cuda
    PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${BLUEFOG_PACKAGE_DIR}
               BUILD_WITH_INSTALL_RPATH ON
               INSTALL_RPATH "$ORIGIN/../torch/lib"
               CUDA_RUNTIME_LIBRARY None # torch::cuda brings it
               LINKER_LANGUAGE CXX)
  add_dependencies(bluefog_modules _C_cuda)
elseif(_stale)
  file(REMOVE ${_stale}) # of an earlier configuration: setup.py takes what is here
endif()

# Read by bluefog_pg/_extension.py before it loads the module.
configure_file(${CMAKE_CURRENT_LIST_DIR}/build_info.py.in ${BLUEFOG_PACKAGE_DIR}/_build_info.py
               @ONLY)
