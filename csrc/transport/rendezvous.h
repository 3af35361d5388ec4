// How ranks find each other before they can exchange anything: a key-value store that all of them
// reach.
#pragma once

#include <functional>
#include <string>

namespace bluefog {

struct Rendezvous {
  /// Publishes a value under a key of this group.
  std::function<void(const std::string& key, const std::string& value)> set;

  /// Waits for rank `of`'s value. Throws Error(kTimeout) naming the rank that did not come.
  std::function<std::string(int of, const std::string& key)> get;
};

}  // namespace bluefog
