# Sorts csrc/ into the torch-free core, what works on device streams, and the Python modules, by
# folder. A new file in a known folder is picked up by the next build; a file that no rule claims
# stops the configuration.

file(GLOB_RECURSE _all CONFIGURE_DEPENDS csrc/*.cc csrc/*.cu)
file(GLOB CORE_SOURCES CONFIGURE_DEPENDS
     csrc/base/*.cc csrc/plan/*.cc csrc/kernels/*.cc
     csrc/transport/*.cc csrc/transport/loopback/*.cc csrc/transport/faulty/*.cc
     csrc/transport/shm/*.cc csrc/transport/tcp/*.cc csrc/transport/messages/*.cc csrc/window/*.cc
     csrc/backend/executor.cc csrc/backend/agreement.cc csrc/backend/sink.cc
     csrc/backend/shares.cc)
# Results must not depend on whether the machine fuses a * b + c into one rounding.
set_source_files_properties(csrc/kernels/combine_cpu.cc PROPERTIES
                            COMPILE_OPTIONS -ffp-contract=off)
file(GLOB MODULE_SOURCES CONFIGURE_DEPENDS csrc/backend/*.cc csrc/transport/gloo/*.cc)
list(REMOVE_ITEM MODULE_SOURCES ${CORE_SOURCES})
file(GLOB DEVICE_SOURCES CONFIGURE_DEPENDS csrc/device/*.cc csrc/transport/nccl/*.cc)
file(GLOB CUDA_SOURCES CONFIGURE_DEPENDS csrc/cuda/*.cc csrc/kernels/*.cu)
file(GLOB TEST_SOURCES CONFIGURE_DEPENDS tests/cpp/*.cc)
file(GLOB DEVICE_TEST_SOURCES CONFIGURE_DEPENDS tests/cpp/device/*.cc)

set(_unclaimed ${_all})
list(REMOVE_ITEM _unclaimed ${CORE_SOURCES} ${DEVICE_SOURCES} ${CUDA_SOURCES} ${MODULE_SOURCES})
if(_unclaimed)
  message(FATAL_ERROR "No target builds ${_unclaimed}: add the folder to cmake/Sources.cmake")
endif()
