# With GoogleTest, each TEST as its own ctest: bluefog_core_tests of tests/cpp/*.cc, and
# bluefog_device_tests of tests/cpp/device/*.cc, which need torch. The target bluefog_tests builds
# those that there are; for the thread sanitizer, the first alone.

find_package(GTest QUIET)
if(NOT GTest_FOUND)
  message(FATAL_ERROR "GoogleTest is missing: apt-get install libgtest-dev")
endif()
include(GoogleTest)

add_executable(bluefog_core_tests ${TEST_SOURCES})
target_include_directories(bluefog_core_tests PRIVATE tests/cpp)
target_link_libraries(bluefog_core_tests PRIVATE bluefog_core GTest::gtest GTest::gtest_main)
gtest_discover_tests(bluefog_core_tests DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 300)
add_custom_target(bluefog_tests DEPENDS bluefog_core_tests)

if(TARGET bluefog_device)
  add_executable(bluefog_device_tests ${DEVICE_TEST_SOURCES})
  target_include_directories(bluefog_device_tests PRIVATE tests/cpp)
  target_link_libraries(bluefog_device_tests PRIVATE bluefog_device GTest::gtest GTest::gtest_main)
  # As a library, or the precompiled header would be another one.
  target_compile_options(bluefog_device_tests PRIVATE -fPIC)
  target_precompile_headers(bluefog_device_tests REUSE_FROM bluefog_device)
  set_target_properties(bluefog_device_tests PROPERTIES BUILD_RPATH ${TORCH_DIR}/lib
                                                        POSITION_INDEPENDENT_CODE OFF)
  gtest_discover_tests(bluefog_device_tests DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 300)
  add_dependencies(bluefog_tests bluefog_device_tests)
endif()
