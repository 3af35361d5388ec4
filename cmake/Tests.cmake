# bluefog_core_tests: tests/cpp/*.cc with GoogleTest, each TEST as its own ctest.

find_package(GTest QUIET)
if(NOT GTest_FOUND)
  message(FATAL_ERROR "GoogleTest is missing: apt-get install libgtest-dev")
endif()
include(GoogleTest)

add_executable(bluefog_core_tests ${TEST_SOURCES})
target_include_directories(bluefog_core_tests PRIVATE tests/cpp)
target_link_libraries(bluefog_core_tests PRIVATE bluefog_core GTest::gtest GTest::gtest_main)
gtest_discover_tests(bluefog_core_tests DISCOVERY_MODE PRE_TEST PROPERTIES TIMEOUT 300)
