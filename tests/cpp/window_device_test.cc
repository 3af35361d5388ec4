// Windows whose values are on a device: the same calls as on the host have the same results, and
// the host touches nothing of the device's.
#include <gtest/gtest.h>

#include <random>

#include "far_carrier.h"
#include "far_memory.h"
#include "ranks.h"
#include "window/window.h"

namespace bluefog::test {
namespace {

using window::Bytes;
using window::Route;
using window::Segment;
using window::Sending;
using window::Shape;
using window::Window;

constexpr int kRanks = 3;
constexpr std::size_t kCount = 300;
constexpr std::size_t kBytes = kCount * sizeof(double);

enum class Place { kHost, kSymmetric, kPinned, kCarried };

/// Ranks on a directed ring, each with a value and a second tensor.
class Ring {
 public:
  Ring(Place place, Route route, bool zero_init)
      : on_device_(memory_),
        pinned_(memory_),
        network_(memory_, kRanks),
        place_(place),
        windows_(kRanks) {
    const bool apart = place == Place::kSymmetric || place == Place::kCarried;
    const Shape shape{kRanks, DType::kFloat64, kBytes, /*readable=*/true, apart};
    for (int rank = 0; rank < kRanks; ++rank) {
      if (shape.apart) values_.push_back(memory_.allocate(Segment::value_bytes(shape, 1)));
      x_.push_back(tensor(10 * rank + 1));
      y_.push_back(tensor(0));
    }
    Store store;
    run_ranks(kRanks, [&](int rank) {
      window::Spec spec{
          "x", rank, shape, {below(rank)}, {above(rank)}, zero_init, [](int) { return nullptr; }};
      spec.route = route;
      spec.service = std::make_shared<messages::Service>(rank, kRanks);
      spec.device = device(rank);
      windows_[rank] = Window::create(std::move(spec), x_[rank].get(), store.rendezvous(rank),
                                      Deadline::in(kPlenty));
      windows_[rank]->carry_p(true);
    });
  }
  FarNetwork& network() { return network_; }
  Window& operator[](int rank) { return *windows_[rank]; }

  ~Ring() {
    run_ranks(kRanks, [&](int rank) {
      if (!windows_[rank]->closed()) windows_[rank]->free(Deadline::in(kPlenty));
    });
    windows_.clear();
    x_.clear(), y_.clear(), values_.clear();
    network_.free();
    EXPECT_EQ(memory_.ranges(), 0u) << "memory was kept, or left pinned";
  }

  static int above(int rank) { return (rank + 1) % kRanks; }
  static int below(int rank) { return (rank + kRanks - 1) % kRanks; }

  void send(Sending kind, int rank, double weight, double self_weight) {
    windows_[rank]->send(kind, x_[rank].get(), {{above(rank), weight}}, self_weight, call(rank));
    windows_[rank]->flush(Deadline::in(kPlenty));
  }
  /// Holds the mutex of the mailbox meanwhile, and does not wait until the value is in it.
  void put_with_mutex(int rank) {
    windows_[rank]->send(Sending::kPut, x_[rank].get(), {{above(rank), 1}}, 1,
                         {x_[rank].get(), true, Deadline::in(kPlenty)});
  }
  std::uint64_t version_with_mutex(int rank) {
    const auto keys = windows_[rank]->keys(/*as_owner=*/true, {below(rank)});
    windows_[rank]->lock(keys, Deadline::in(kPlenty));
    const std::uint64_t version = windows_[rank]->versions()[0].second;
    windows_[rank]->unlock(keys);
    return version;
  }
  void get(int rank, double weight) { windows_[rank]->get({{below(rank), weight}}, call(rank)); }
  void update(int rank, bool in_place, bool reset) {
    windows_[rank]->update((in_place ? x_ : y_)[rank].get(), 0.5, {{below(rank), 0.25}}, reset,
                           call(rank));
  }
  void read(int rank, int of) {
    p_ = windows_[rank]->value_of(of, y_[rank].get(), Deadline::in(kPlenty));
  }

  /// Everything that a rank can see.
  std::vector<double> state(int rank) {
    std::vector<double> all(2 * kCount);
    std::memcpy(all.data(), near(x_[rank]), kBytes);
    std::memcpy(all.data() + kCount, near(y_[rank]), kBytes);
    all.push_back(windows_[rank]->p());
    all.push_back(windows_[rank]->p_of(below(rank)));
    all.push_back(static_cast<double>(windows_[rank]->versions()[0].second));
    all.push_back(p_);
    return all;
  }

 private:
  Bytes tensor(double first) {
    Bytes made = place_ == Place::kHost ? window::host_arithmetic().allocate(kBytes)
                                        : memory_.allocate(kBytes);
    std::vector<double> values(kCount);
    for (std::size_t i = 0; i < kCount; ++i) values[i] = first + static_cast<double>(i);
    std::memcpy(near(made), values.data(), kBytes);
    return made;
  }
  std::byte* near(const Bytes& bytes) const {
    return place_ == Place::kHost ? bytes.get() : memory_.near(bytes.get(), kBytes);
  }
  window::Device device(int rank) {
    const auto not_owned = [](const window::Arithmetic& arithmetic) {
      return std::shared_ptr<const window::Arithmetic>(&arithmetic, [](auto*) {});
    };
    window::Device device;
    if (place_ == Place::kHost) return device;
    device.calls = not_owned(pinned_);
    if (place_ == Place::kPinned) return device;
    device.values_of = [this](int of) { return values_[of]; };
    if (place_ == Place::kSymmetric) {
      device.calls = not_owned(on_device_);
    } else {
      device.service = not_owned(pinned_);
      device.parcels = not_owned(on_device_);
      device.carrier = network_.carrier(rank, {below(rank), above(rank)}, kBytes);
    }
    return device;
  }
  window::Call call(int rank) { return {x_[rank].get(), false, Deadline::in(kPlenty)}; }

  FarMemory memory_;
  const OnDevice on_device_;
  const Pinned pinned_;
  FarNetwork network_;
  const Place place_;
  std::vector<Bytes> values_, x_, y_;
  std::vector<std::unique_ptr<Window>> windows_;
  double p_ = 0;
};

/// One call, drawn at random.
void step(Ring& ring, std::mt19937& random) {
  const int rank = static_cast<int>(random() % kRanks);
  const double weight = 0.25 * static_cast<double>(1 + random() % 4);
  const unsigned what = random() % 7, detail = random();
  switch (what) {
    case 0:
    case 1:
      return ring.send(Sending::kPut, rank, weight, detail % 2 ? 1 : 0.5);
    case 2:
    case 3:
      return ring.send(Sending::kAccumulate, rank, weight, detail % 2 ? 1 : 0.5);
    case 4:
      return ring.get(rank, weight);
    case 5:
      return ring.update(rank, detail % 2, detail % 4 / 2);
    default:
      return ring.read(rank, detail % 2 ? rank : Ring::below(rank));
  }
}

void compare(Place place, Route route, bool zero_init) {
  Ring ring(place, route, zero_init), host(Place::kHost, Route::kShared, zero_init);
  std::mt19937 random(7), same(7);
  for (int i = 0; i < 300; ++i) {
    step(ring, random);
    step(host, same);
    for (int rank = 0; rank < kRanks; ++rank) {
      ASSERT_EQ(ring.state(rank), host.state(rank)) << "rank " << rank << " after call " << i;
    }
  }
}

TEST(WindowDeviceTest, InMemoryThatDevicesShare) {
  compare(Place::kSymmetric, Route::kShared, /*zero_init=*/true);
  compare(Place::kSymmetric, Route::kShared, /*zero_init=*/false);
}

TEST(WindowDeviceTest, InPinnedMemory) {
  compare(Place::kPinned, Route::kShared, /*zero_init=*/true);
  compare(Place::kPinned, Route::kShared, /*zero_init=*/false);
}

TEST(WindowDeviceTest, InPinnedMemoryAndByMessages) {
  compare(Place::kPinned, Route::kMessages, /*zero_init=*/true);
  compare(Place::kPinned, Route::kMessages, /*zero_init=*/false);
}

TEST(WindowDeviceTest, CarriedFromDeviceToDevice) {
  compare(Place::kCarried, Route::kMessages, /*zero_init=*/true);
  compare(Place::kCarried, Route::kMessages, /*zero_init=*/false);
}

TEST(WindowDeviceTest, WhatWasCarriedUnderAMutexIsThereWhenThatIsGivenBack) {
  Ring ring(Place::kCarried, Route::kMessages, /*zero_init=*/true);
  for (std::uint64_t puts = 1; puts <= 20; ++puts) {
    ring.put_with_mutex(0);
    ASSERT_EQ(ring.version_with_mutex(1), puts);
  }
}

TEST(WindowDeviceTest, ACarrierThatFailsIsNotWaitedForForever) {
  Ring ring(Place::kCarried, Route::kMessages, /*zero_init=*/true);
  ring.network().cut_off(1);
  ring.put_with_mutex(0);
  const Caught late = catch_error([&] { ring[0].flush(Deadline::in(kShort)); });
  EXPECT_EQ(late.code, ErrorCode::kTimeout) << late.what;
  EXPECT_NE(late.what.find("rank 1"), std::string::npos) << late.what;
  EXPECT_EQ(ring[1].versions()[0].second, 0u);
  for (int rank = 0; rank < kRanks; ++rank) ring[rank].close();
}

TEST(WindowDeviceTest, ClosingEndsAWaitForWhatTheCarrierWasToBring) {
  Ring ring(Place::kCarried, Route::kMessages, /*zero_init=*/true);
  ring.network().lose_puts(true);
  ring.put_with_mutex(0);
  for (int rank = 0; rank < kRanks; ++rank) ring[rank].close();
}

}  // namespace
}  // namespace bluefog::test
