// Mailboxes and values in memory that forked processes share.
#pragma once

#include <sys/mman.h>

#include <new>
#include <vector>

#include "window/mailbox.h"
#include "window/own_value.h"

namespace bluefog::test {

/// Zeroed pages, shared with the children of this process.
class SharedPages {
 public:
  explicit SharedPages(std::size_t nbytes) : nbytes_(nbytes) {
    data_ = ::mmap(nullptr, nbytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  }
  SharedPages(const SharedPages&) = delete;
  SharedPages& operator=(const SharedPages&) = delete;
  ~SharedPages() { ::munmap(data_, nbytes_); }
  std::byte* data() const { return static_cast<std::byte*>(data_); }

 private:
  std::size_t nbytes_;
  void* data_;
};

/// A mailbox of `count` elements.
class SharedMailbox {
 public:
  explicit SharedMailbox(std::size_t count, DType dtype = DType::kFloat64)
      : pages_(sizeof(window::MailboxControl) + 4 * count * 8) {
    auto* control = new (pages_.data()) window::MailboxControl();
    const std::size_t nbytes = count * size_of(dtype);
    box = {control, pages_.data() + sizeof(*control), nbytes, dtype, nbytes};
  }
  window::Mailbox box;

 private:
  SharedPages pages_;
};

/// A value of `count` doubles.
class SharedValue {
 public:
  explicit SharedValue(std::size_t count)
      : pages_(sizeof(window::OwnValueControl) + 3 * count * 8) {
    auto* control = new (pages_.data()) window::OwnValueControl();
    value = {control, pages_.data() + sizeof(*control), count * 8, count * 8};
  }
  window::OwnValue value;

 private:
  SharedPages pages_;
};

template <typename T>
const std::byte* bytes_of(const std::vector<T>& values) {
  return reinterpret_cast<const std::byte*>(values.data());
}
template <typename T>
std::byte* bytes_of(std::vector<T>& values) {
  return reinterpret_cast<std::byte*>(values.data());
}

/// plus - minus, element by element.
template <typename T>
std::vector<T> values_of(const window::MailboxReader::Value& value, std::size_t count) {
  std::vector<T> values(count);
  for (std::size_t i = 0; i < count; ++i) {
    if (value.plus) values[i] += reinterpret_cast<const T*>(value.plus)[i];
    if (value.minus) values[i] -= reinterpret_cast<const T*>(value.minus)[i];
  }
  return values;
}

}  // namespace bluefog::test
