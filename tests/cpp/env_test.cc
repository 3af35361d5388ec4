#include "base/env.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "ranks.h"

namespace bluefog::test {
namespace {

class EnvTest : public ::testing::Test {
 protected:
  void SetUp() override { clear(); }
  void TearDown() override { clear(); }

  static void clear() {
    for (const char* name :
         {"BLUEFOG_SHM_CHUNK_BYTES", "BLUEFOG_SHM_CHUNKS", "BLUEFOG_SHM_HEAP_BYTES",
          "BLUEFOG_SPIN_US", "BLUEFOG_HOST_COLLECTIVES"}) {
      ::unsetenv(name);
    }
  }

  static std::string refusal(const char* name, const char* value) {
    ::setenv(name, value, 1);
    const Caught caught = catch_error([] { Env::read(); });
    ::unsetenv(name);
    EXPECT_EQ(caught.code, ErrorCode::kUsage) << name << "=" << value;
    return caught.what;
  }
};

TEST_F(EnvTest, HasDefaults) {
  const Env env = Env::read();
  EXPECT_EQ(env.shm_chunk_bytes, 128u << 10);
  EXPECT_EQ(env.shm_chunks, 9u);
  EXPECT_EQ(env.shm_heap_bytes, -1);
  EXPECT_EQ(env.spin_us, 300);
  EXPECT_TRUE(env.host_collectives);
}

TEST_F(EnvTest, ReadsItsVariables) {
  ::setenv("BLUEFOG_SHM_CHUNK_BYTES", "8192", 1);
  ::setenv("BLUEFOG_SHM_CHUNKS", "2", 1);
  ::setenv("BLUEFOG_SHM_HEAP_BYTES", "17592186044416", 1);
  ::setenv("BLUEFOG_SPIN_US", "0", 1);
  ::setenv("BLUEFOG_HOST_COLLECTIVES", "0", 1);
  const Env env = Env::read();
  EXPECT_EQ(env.shm_chunk_bytes, 8192u);
  EXPECT_EQ(env.shm_chunks, 2u);
  EXPECT_EQ(env.shm_heap_bytes, 1L << 44);
  EXPECT_EQ(env.spin_us, 0);
  EXPECT_FALSE(env.host_collectives);
}

TEST_F(EnvTest, AHeapMayBeNothingOrAll) {
  for (const char* value : {"0", "-1", "1"}) {
    ::setenv("BLUEFOG_SHM_HEAP_BYTES", value, 1);
    EXPECT_EQ(Env::read().shm_heap_bytes, std::atol(value));
  }
}

TEST_F(EnvTest, AnEmptyVariableIsTheDefault) {
  ::setenv("BLUEFOG_SHM_CHUNKS", "", 1);
  EXPECT_EQ(Env::read().shm_chunks, 9u);
}

TEST_F(EnvTest, RefusesWhatIsNoNumber) {
  EXPECT_EQ(refusal("BLUEFOG_SHM_CHUNKS", "many"),
            "BLUEFOG_SHM_CHUNKS=many is not a whole number from 2 to 4096");
  for (const char* value : {"4k", "1.5", " 8", "0x10", "99999999999999999999"}) {
    EXPECT_NE(refusal("BLUEFOG_SHM_CHUNKS", value).find(value), std::string::npos);
  }
}

TEST_F(EnvTest, RefusesWhatIsOutOfRange) {
  EXPECT_EQ(refusal("BLUEFOG_SHM_CHUNKS", "1"),
            "BLUEFOG_SHM_CHUNKS=1 is not a whole number from 2 to 4096");
  EXPECT_EQ(refusal("BLUEFOG_SPIN_US", "-1"),
            "BLUEFOG_SPIN_US=-1 is not a whole number from 0 to 1000000");
  EXPECT_EQ(refusal("BLUEFOG_SHM_HEAP_BYTES", "-2"),
            "BLUEFOG_SHM_HEAP_BYTES=-2 is not a whole number from -1 to 17592186044416");
  refusal("BLUEFOG_SHM_HEAP_BYTES", "17592186044417");
  refusal("BLUEFOG_SHM_HEAP_BYTES", "64G");
  refusal("BLUEFOG_SHM_HEAP_BYTES", "1e9");
  refusal("BLUEFOG_SHM_CHUNK_BYTES", "0");
  refusal("BLUEFOG_SHM_CHUNK_BYTES", "268435457");
}

TEST_F(EnvTest, ChunksAreWholePages) {
  EXPECT_EQ(refusal("BLUEFOG_SHM_CHUNK_BYTES", "5000"),
            "BLUEFOG_SHM_CHUNK_BYTES=5000 is not a multiple of 4096");
}

}  // namespace
}  // namespace bluefog::test
