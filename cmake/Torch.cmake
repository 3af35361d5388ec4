# Finds the torch of Python_EXECUTABLE and gives
#   torch::c10    c10's headers (Half, BFloat16, Exception) and libc10; nothing of torch's
#                 distributed package can be included through it
#   torch::cpu    all of torch's headers, with its own copy of pybind11, and its C++ libraries
#   torch::c10d   torch::cpu and the library of torch's Python module
#   TORCH_VERSION, TORCH_CUDA (empty for a build without CUDA), TORCH_CXX11_ABI (0 or 1)
# torch's own CMake package is no help: with a CUDA build of torch it demands a CUDA toolkit.

find_package(Python 3.11 QUIET COMPONENTS Interpreter Development.Module)
if(NOT Python_Interpreter_FOUND)
  message(FATAL_ERROR "Python 3.11 or newer is missing: apt-get install python3")
endif()
if(NOT Python_Development.Module_FOUND)
  message(FATAL_ERROR "Python.h is missing for ${Python_EXECUTABLE}: apt-get install python3-dev")
endif()

execute_process(
  COMMAND ${CMAKE_COMMAND} -E env TORCH_DEVICE_BACKEND_AUTOLOAD=0 ${Python_EXECUTABLE} -c
          "import os, torch
print(os.path.dirname(torch.__file__), torch.__version__, torch.version.cuda or '',
      int(torch.compiled_with_cxx11_abi()), sep=';', end='')"
  OUTPUT_VARIABLE _torch_facts
  ERROR_VARIABLE _torch_error
  RESULT_VARIABLE _torch_result)
if(NOT _torch_result EQUAL 0)
  message(FATAL_ERROR "torch cannot be imported by ${Python_EXECUTABLE}: install torch there first"
                      "\n${_torch_error}")
endif()
list(GET _torch_facts 0 TORCH_DIR)
list(GET _torch_facts 1 TORCH_VERSION)
list(GET _torch_facts 2 TORCH_CUDA)
list(GET _torch_facts 3 TORCH_CXX11_ABI)
message(STATUS "torch ${TORCH_VERSION} in ${TORCH_DIR}, Python ${Python_VERSION}")

# torch's include folder has everything in one place; the core sees the two parts it may use.
set(_core_include ${CMAKE_BINARY_DIR}/core_include)
file(MAKE_DIRECTORY ${_core_include}/torch)
file(CREATE_LINK ${TORCH_DIR}/include/c10 ${_core_include}/c10 SYMBOLIC)
file(CREATE_LINK ${TORCH_DIR}/include/torch/headeronly ${_core_include}/torch/headeronly SYMBOLIC)

add_library(torch::c10 INTERFACE IMPORTED)
target_include_directories(torch::c10 SYSTEM INTERFACE ${_core_include})
target_compile_definitions(torch::c10 INTERFACE _GLIBCXX_USE_CXX11_ABI=${TORCH_CXX11_ABI})
target_link_libraries(torch::c10 INTERFACE ${TORCH_DIR}/lib/libc10.so)

add_library(torch::cpu INTERFACE IMPORTED)
target_include_directories(torch::cpu SYSTEM INTERFACE ${TORCH_DIR}/include
                                                       ${TORCH_DIR}/include/torch/csrc/api/include)
target_link_libraries(torch::cpu INTERFACE ${TORCH_DIR}/lib/libtorch.so
                                           ${TORCH_DIR}/lib/libtorch_cpu.so torch::c10)

add_library(torch::c10d INTERFACE IMPORTED)
target_link_libraries(torch::c10d INTERFACE ${TORCH_DIR}/lib/libtorch_python.so torch::cpu)
