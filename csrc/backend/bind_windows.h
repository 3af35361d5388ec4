// Python's side of windows; bind.cc puts it into the module.
#pragma once

#include <torch/csrc/utils/pybind.h>

namespace bluefog {

/// Also gives BluefogBackend, which is bound already, its make_window.
void bind_windows(pybind11::module_& module);

}  // namespace bluefog
