# The Python module bluefog_pg._C and its _build_info.py, both in <build>/bluefog_pg.

set(BLUEFOG_PACKAGE_DIR ${CMAKE_BINARY_DIR}/bluefog_pg)

Python_add_library(_C MODULE WITH_SOABI ${MODULE_SOURCES})
target_compile_definitions(_C PRIVATE TORCH_EXTENSION_NAME=_C TORCH_API_INCLUDE_EXTENSION_H)
if(BLUEFOG_CUDA_ENABLED)
  target_compile_definitions(_C PRIVATE BLUEFOG_CUDA)
endif()
# torch::c10d before everything else: another pybind11 on the include path would have its own type
# registry and not know torch's c10d classes.
target_include_directories(
  _C SYSTEM BEFORE PRIVATE $<TARGET_PROPERTY:torch::c10d,INTERFACE_INCLUDE_DIRECTORIES>)
target_link_libraries(_C PRIVATE torch::c10d bluefog_core bluefog_flags)
set_target_properties(
  _C
  PROPERTIES LIBRARY_OUTPUT_DIRECTORY ${BLUEFOG_PACKAGE_DIR}
             # Beside torch in site-packages; `import torch` has loaded the libraries already.
             BUILD_WITH_INSTALL_RPATH ON
             INSTALL_RPATH "$ORIGIN/../torch/lib")

# Read by bluefog_pg/_extension.py before it loads the module.
configure_file(${CMAKE_CURRENT_LIST_DIR}/build_info.py.in ${BLUEFOG_PACKAGE_DIR}/_build_info.py
               @ONLY)
