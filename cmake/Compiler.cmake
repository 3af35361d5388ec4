# Compiler settings for all of our own code, as the target bluefog_flags.

if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 11)
  message(FATAL_ERROR "g++ ${CMAKE_CXX_COMPILER_VERSION} is too old: bluefog_pg is C++20 and needs "
                      "11 or newer (apt-get install g++-12, then set CXX=g++-12)")
endif()

if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Release, RelWithDebInfo or Debug" FORCE)
endif()
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_CXX_VISIBILITY_PRESET hidden)
set(CMAKE_VISIBILITY_INLINES_HIDDEN ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)

find_program(CCACHE ccache)
if(CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  # ccache takes a precompiled header for what it was made of only where it is told so.
  set(CMAKE_CXX_COMPILER_LAUNCHER
      ${CMAKE_COMMAND} -E env CCACHE_SLOPPINESS=pch_defines,time_macros ${CCACHE})
  add_compile_options($<$<COMPILE_LANG_AND_ID:CXX,GNU>:-fpch-preprocess>)
endif()

add_library(bluefog_flags INTERFACE)
target_compile_options(bluefog_flags INTERFACE -Wall -Wextra -fstack-protector-strong)
target_compile_definitions(bluefog_flags INTERFACE _GLIBCXX_ASSERTIONS)
target_link_options(bluefog_flags INTERFACE -Wl,-z,relro,-z,now)

if(SANITIZE)
  if(NOT SANITIZE MATCHES "^(address|thread|undefined)$")
    message(FATAL_ERROR "SANITIZE is '${SANITIZE}': use address, thread or undefined")
  endif()
  # The reports need frames and lines; a report of undefined behaviour must fail the test.
  target_compile_options(bluefog_flags INTERFACE -fsanitize=${SANITIZE} -fno-omit-frame-pointer
                                                 -fno-sanitize-recover=all -g)
  target_link_options(bluefog_flags INTERFACE -fsanitize=${SANITIZE})
  if(SANITIZE STREQUAL "thread" AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    # The fences are between ranks, which map the memory they share at different addresses: this
    # sanitizer sees neither them nor a race that they could hide.
    target_compile_options(bluefog_flags INTERFACE -Wno-tsan)
  endif()
endif()
