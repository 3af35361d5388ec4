#include "base/env.h"

#include <charconv>
#include <cstdlib>
#include <cstring>

#include "base/error.h"

namespace bluefog {
namespace {

long read_number(const char* name, long fallback, long least, long most) {
  const char* text = std::getenv(name);
  if (text == nullptr || *text == '\0') {
    return fallback;
  }
  long value = 0;
  const char* end = text + std::strlen(text);
  auto [stop, error] = std::from_chars(text, end, value);
  if (error != std::errc() || stop != end || value < least || value > most) {
    fail(ErrorCode::kUsage, name, "=", text, " is not a whole number from ", least, " to ", most);
  }
  return value;
}

}  // namespace

std::string Env::interface() {
  const char* value = std::getenv("GLOO_SOCKET_IFNAME");
  const std::string names = value == nullptr ? "" : value;
  return names.substr(0, names.find(','));
}

Env Env::read() {
  Env env;
  env.shm_chunk_bytes = read_number("BLUEFOG_SHM_CHUNK_BYTES", env.shm_chunk_bytes, 4096, 1 << 28);
  if (env.shm_chunk_bytes % 4096 != 0) {
    fail(ErrorCode::kUsage, "BLUEFOG_SHM_CHUNK_BYTES=", env.shm_chunk_bytes,
         " is not a multiple of 4096");
  }
  env.shm_chunks = read_number("BLUEFOG_SHM_CHUNKS", env.shm_chunks, 2, 4096);
  env.shm_heap_bytes = read_number("BLUEFOG_SHM_HEAP_BYTES", env.shm_heap_bytes, -1, 1L << 44);
  env.spin_us = read_number("BLUEFOG_SPIN_US", env.spin_us, 0, 1000000);
  env.host_collectives = read_number("BLUEFOG_HOST_COLLECTIVES", 1, 0, 1) != 0;
  return env;
}

}  // namespace bluefog
