// Device memory: files in memory, so that other processes can map them as well.
#pragma once

#include <cstddef>
#include <optional>

#include "cuda/stream.h"

namespace emulator {

struct Block {
  std::byte* begin;
  std::size_t bytes;
  int file;
  int device;
};

/// Of a file without a name, filled with 0xff: as a number, NaN.
int make_file(std::size_t bytes);

/// The block that an address lies in, if it is device memory.
std::optional<Block> find_block(const void* address);
void add_block(const Block& block);
/// Takes the block that begins there off the list.
std::optional<Block> remove_block(const void* begin);

bool is_pinned(const void* address);

}  // namespace emulator
