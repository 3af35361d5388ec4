// Copying in pieces of a larger result.
#pragma once

#include <cstddef>

#include "kernels/store.h"

namespace bluefog {

/// memcpy, which knows the size of the piece only, told where the whole result should go.
void copy(std::byte* to, const std::byte* from, std::size_t nbytes, Store store);

}  // namespace bluefog
