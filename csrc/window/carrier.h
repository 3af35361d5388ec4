// Moves parcels from device to device, where messages only announce them (remote_peer.h).
#pragma once

#include <cstddef>

namespace bluefog::window {

/// One parcel per edge is under way at a time: the receiver answers for it by a message.
/// Thread-safe. Calls throw what has happened to the devices' connection.
class Carrier {
 public:
  virtual ~Carrier() = default;

  /// Memory of this rank's device: what leaves for `to`, and where what `from` sends arrives.
  virtual std::byte* outgoing(int to) const = 0;
  virtual std::byte* landing(int from) const = 0;

  /// Starts to move what is in outgoing(to), and waits for nothing.
  virtual void put(int to) = 0;

  /// Waits in the calling thread until what `from` has announced is in landing(from).
  virtual void await(int from) = 0;

  /// Makes waits that go on, and later ones, throw Error(kAborted).
  virtual void stop() noexcept = 0;
};

}  // namespace bluefog::window
