// A device whose streams do everything at once, on the host, and write down what they were told.
//
// It is torch's device type PrivateUse1, known to c10's guards, streams and events and to the
// dispatcher, so that code for CUDA's streams runs unchanged. Per thread: the current stream and
// the log, so that ranks may be threads.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Stream.h>

#include <string>
#include <vector>

namespace bluefog::fake {

inline c10::Device device() { return {c10::DeviceType::PrivateUse1, 0}; }

/// Zeros in host memory that count as memory of the device.
at::Tensor tensor(std::int64_t numel, at::ScalarType dtype = at::kFloat);

/// The elements of a float32 tensor.
std::vector<float> values(const at::Tensor& tensor);
void set(const at::Tensor& tensor, const std::vector<float>& values);

/// Calls of this thread since the last reset: "record 1 on 0", "wait for 1 on 7" (events, streams;
/// both numbered by use), "uses memory on 7", "synchronize 7", and what others add.
std::vector<std::string>& log();

/// Empties the log, makes stream 0 current, and starts counting streams and events anew.
void reset();

std::int64_t current_stream();

/// Streams of the pool are numbered from 1, those of low priority from one more than this.
inline constexpr std::int64_t kLowPriority = 100;

/// What event queries say from now on, in all threads. True at first.
void set_events_done(bool done);

}  // namespace bluefog::fake
