// What windows do with values on a device: on which stream, and that it is over.
#include "device/window_arithmetic.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "device/fake_device.h"

namespace bluefog::test {
namespace {

using device::WindowArithmetic;
using Log = std::vector<std::string>;

std::byte* bytes_of(const at::Tensor& tensor) {
  return static_cast<std::byte*>(tensor.mutable_data_ptr());
}

WindowArithmetic on_device(std::optional<c10::Stream> own_stream = {}) {
  return {fake::device(), at::TensorOptions(fake::device()), nullptr, own_stream};
}

class WindowArithmeticTest : public testing::Test {
 protected:
  void SetUp() override {
    for (const auto& [tensor, first] : {std::pair(x, 1), std::pair(y, 10), std::pair(z, 100)}) {
      fake::set(tensor, {1.0f * first, 2.0f * first, 3.0f * first});
    }
    fake::reset();
  }
  const at::Tensor x = fake::tensor(3), y = fake::tensor(3), z = fake::tensor(3);
  static constexpr std::size_t kBytes = 12;
};

TEST_F(WindowArithmeticTest, CombinesOnTheCurrentStreamAndWaits) {
  const Term terms[] = {{bytes_of(x), 2}, {bytes_of(y), 0.5}};
  on_device().combine(DType::kFloat32, bytes_of(z), terms, kBytes);
  EXPECT_EQ(fake::values(z), (std::vector<float>{7, 14, 21}));
  EXPECT_EQ(fake::log(), (Log{"combine on 0", "synchronize 0"}));
}

TEST_F(WindowArithmeticTest, TheFirstTermMayBeTheResult) {
  const Term terms[] = {{bytes_of(x), 2}, {bytes_of(y), 1}};
  on_device().combine(DType::kFloat32, bytes_of(x), terms, kBytes);
  EXPECT_EQ(fake::values(x), (std::vector<float>{12, 24, 36}));
}

TEST_F(WindowArithmeticTest, ASumOfNothingIsZero) {
  on_device().combine(DType::kFloat32, bytes_of(x), {}, kBytes);
  EXPECT_EQ(fake::values(x), (std::vector<float>{0, 0, 0}));
}

TEST_F(WindowArithmeticTest, IntegersWrapAround) {
  const at::Tensor a = fake::tensor(2, at::kInt), b = fake::tensor(2, at::kInt);
  auto* const values = static_cast<int*>(a.mutable_data_ptr());
  values[0] = 5, values[1] = std::numeric_limits<int>::max();
  auto* const others = static_cast<int*>(b.mutable_data_ptr());
  others[0] = 7, others[1] = 1;
  const Term terms[] = {{bytes_of(a), 1}, {bytes_of(b), 2}};
  on_device().combine(DType::kInt32, bytes_of(a), terms, 8);
  EXPECT_EQ(values[0], 19);
  EXPECT_EQ(values[1], std::numeric_limits<int>::min() + 1);
}

TEST_F(WindowArithmeticTest, ShowsAndLooksByteByByte) {
  on_device().show(bytes_of(x), bytes_of(y), 5);  // also what is no whole element
  on_device().look(bytes_of(z), bytes_of(x), kBytes);
  EXPECT_EQ(std::memcmp(bytes_of(z), bytes_of(y), 5), 0);
  EXPECT_EQ(fake::values(z)[2], 3);
  EXPECT_EQ(fake::log(), (Log{"synchronize 0", "synchronize 0"}));
}

TEST_F(WindowArithmeticTest, WorksOnItsOwnStreamAndLeavesTheCurrentOne) {
  const c10::Stream own(c10::Stream::UNSAFE, fake::device(), 5);
  const Term term{bytes_of(x), 3};
  on_device(own).combine(DType::kFloat32, bytes_of(z), {&term, 1}, kBytes);
  EXPECT_EQ(fake::log(), (Log{"combine on 5", "synchronize 5"}));
  EXPECT_EQ(fake::current_stream(), 0);
}

TEST_F(WindowArithmeticTest, NothingIsEnqueuedForNothing) {
  on_device().combine(DType::kFloat32, nullptr, {}, 0);
  on_device().show(nullptr, nullptr, 0);
  EXPECT_EQ(fake::log(), Log());
}

TEST_F(WindowArithmeticTest, PinsWhatItIsToReach) {
  Log pins;
  const WindowArithmetic arithmetic(
      fake::device(), at::TensorOptions(at::kCPU), [&](std::byte* data, std::size_t nbytes) {
        pins.push_back("pin " + std::to_string(nbytes));
        return std::shared_ptr<void>(data, [&](void*) { pins.push_back("unpin"); });
      });
  std::vector<std::byte> memory(64);
  const window::Bytes room = arithmetic.allocate(16);
  room.get()[15] = std::byte{1};
  arithmetic.reach(memory.data(), memory.size()).reset();
  EXPECT_EQ(pins, (Log{"pin 64", "unpin"}));
  EXPECT_EQ(on_device().reach(memory.data(), memory.size()), nullptr);
}

TEST_F(WindowArithmeticTest, ALaterCallIsBehindWhatTheCurrentStreamHasNow) {
  const c10::Stream side(c10::Stream::UNSAFE, fake::device(), 9);
  const auto call = device::behind_current(
      side, [] { fake::log().push_back("call on " + std::to_string(fake::current_stream())); });
  EXPECT_EQ(fake::log(), (Log{"record 1 on 0"}));
  call();
  EXPECT_EQ(fake::log(), (Log{"record 1 on 0", "wait for 1 on 9", "call on 9"}));
  EXPECT_EQ(fake::current_stream(), 0);
}

}  // namespace
}  // namespace bluefog::test
