// Letting go of Python's lock where a thread waits for another one that may need it.
#pragma once

#include <Python.h>

namespace bluefog {

/// Releases the GIL for its lifetime if the calling thread holds it. Destructors of c10d objects
/// may run with it held.
class GilReleased {
 public:
  GilReleased()
      : state_(Py_IsInitialized() && PyGILState_Check() ? PyEval_SaveThread() : nullptr) {}
  ~GilReleased() {
    if (state_ != nullptr) PyEval_RestoreThread(state_);
  }
  GilReleased(const GilReleased&) = delete;
  GilReleased& operator=(const GilReleased&) = delete;

 private:
  PyThreadState* state_;
};

}  // namespace bluefog
