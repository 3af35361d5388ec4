// One call of an operator of torch's on the emulated GPU.
#pragma once

#include <ATen/core/dispatch/Dispatcher.h>
#include <cuda_runtime_api.h>

#include <vector>

#include "operators/views.h"

namespace emulator {

class Call {
 public:
  Call(const c10::OperatorHandle& op, Stack arguments)
      : op_(op), schema_(op.schema()), arguments_(std::move(arguments)) {}

  /// On the first tensor's device, in order with what is done on the others' current streams.
  /// Returns the results, which are there when the device's current stream has come so far.
  Stack run();

 private:
  void check_together(const std::vector<at::Device>& devices) const;
  Stack run_here();
  Stack run_now() const;
  bool can_be_enqueued() const;
  bool ask_meta(Stack& results);
  Stack resize_and_allocate(const Stack& meta) const;

  /// Whether a result is an argument that the operator has written, and which one.
  bool is_argument(std::size_t result) const {
    return schema_.returns()[result].alias_info() != nullptr;
  }
  c10::IValue written(std::size_t result) const;

  const c10::OperatorHandle op_;
  const c10::FunctionSchema& schema_;
  const Stack arguments_;
  Stack meta_arguments_;
};

}  // namespace emulator
