#include "window/segment.h"

#include <algorithm>
#include <new>
#include <utility>

#include "base/error.h"

namespace bluefog::window {
namespace {

constexpr std::uint64_t kMagic = 0x626c756577696e01;  // last byte: version of the layout
constexpr std::size_t kLine = 64;
constexpr std::size_t kPage = 4096;

constexpr std::size_t round_up(std::size_t value, std::size_t unit) {
  return (value + unit - 1) / unit * unit;
}

// Large values begin at a page, so that each takes room of its own only.
constexpr std::size_t stride_of(std::size_t nbytes) {
  return round_up(nbytes, nbytes < kPage ? kLine : kPage);
}

constexpr std::size_t own_values(const Shape& shape) {
  return shape.readable ? OwnValueControl::kBuffers : 0;
}

}  // namespace

std::size_t Segment::slots_at(int size) { return sizeof(Control) + size * sizeof(PairMutex); }

std::size_t Segment::mailboxes_at(int size) {
  return round_up(slots_at(size) + size * sizeof(std::int32_t), kLine);
}

std::size_t Segment::values_at(int size, std::size_t in_degree) {
  return round_up(mailboxes_at(size) + in_degree * sizeof(MailboxControl), kPage);
}

std::size_t Segment::value_bytes(const Shape& shape, std::size_t in_degree) {
  return (own_values(shape) + in_degree * MailboxControl::kBuffers) * stride_of(shape.nbytes);
}

std::size_t Segment::total(const Shape& shape, std::size_t in_degree) {
  return values_at(shape.size, in_degree) + (shape.apart ? 0 : value_bytes(shape, in_degree));
}

Segment Segment::create(int rank, const Shape& shape, const std::vector<int>& in_neighbors,
                        bool shared) {
  const std::size_t nbytes = total(shape, in_neighbors.size());
  Segment segment(
      shared ? shm::Memory::create("bluefog window", nbytes) : shm::Memory::create_private(nbytes),
      shape);
  auto* control = new (segment.memory_.data()) Control{};
  control->rank = static_cast<std::uint32_t>(rank);
  control->size = static_cast<std::uint32_t>(shape.size);
  control->in_degree = static_cast<std::uint32_t>(in_neighbors.size());
  control->dtype = static_cast<std::uint32_t>(shape.dtype);
  control->nbytes = shape.nbytes;
  std::fill_n(segment.slots(), shape.size, -1);
  for (std::size_t k = 0; k < in_neighbors.size(); ++k) {
    segment.slots()[in_neighbors[k]] = static_cast<std::int32_t>(k);
    new (segment.mailboxes() + k) MailboxControl();
  }
  control->magic = kMagic;
  return segment;
}

Segment Segment::map(UniqueFd fd, int rank, const Shape& shape) {
  Segment segment(shm::Memory::map(std::move(fd), values_at(shape.size, 0), rank), shape);
  const Control& control = segment.control();
  if (control.magic != kMagic || control.rank != static_cast<std::uint32_t>(rank) ||
      control.size != static_cast<std::uint32_t>(shape.size) || control.nbytes != shape.nbytes ||
      control.dtype != static_cast<std::uint32_t>(shape.dtype) ||
      segment.memory_.nbytes() != total(shape, control.in_degree)) {
    fail(ErrorCode::kSystem, "rank ", rank, " sent a part of rank ", control.rank, " of ",
         control.size, " in a window of ", control.nbytes, " bytes, expected rank ", rank, " of ",
         shape.size, " and ", shape.nbytes,
         " bytes; do all ranks run the same version of "
         "bluefog_pg?");
  }
  return segment;
}

void Segment::use(const Arithmetic* arithmetic, Bytes values) {
  arithmetic_ = arithmetic;
  values_ = std::move(values);
  if (!shape_.apart) reached_ = arithmetic->reach(memory_.data(), memory_.nbytes());
}

std::size_t Segment::nbytes() const {
  return memory_.nbytes() + (shape_.apart ? value_bytes(shape_, control().in_degree) : 0);
}

OwnValue Segment::own() const {
  return {&control().own, value(0), stride_of(shape_.nbytes), shape_.nbytes, arithmetic_};
}

Mailbox Segment::mailbox_of(int writer) const {
  const std::size_t first = own_values(shape_) + slots()[writer] * MailboxControl::kBuffers;
  return {mailboxes() + slots()[writer],
          value(first),
          stride_of(shape_.nbytes),
          shape_.dtype,
          shape_.nbytes,
          arithmetic_};
}

PairMutex& Segment::mutex_of(int writer) const {
  return reinterpret_cast<PairMutex*>(memory_.data() + sizeof(Control))[writer];
}

std::int32_t* Segment::slots() const {
  return reinterpret_cast<std::int32_t*>(memory_.data() + slots_at(shape_.size));
}

MailboxControl* Segment::mailboxes() const {
  return reinterpret_cast<MailboxControl*>(memory_.data() + mailboxes_at(shape_.size));
}

std::byte* Segment::value(std::size_t index) const {
  std::byte* const first =
      shape_.apart ? values_.get() : memory_.data() + values_at(shape_.size, control().in_degree);
  return first + index * stride_of(shape_.nbytes);
}

}  // namespace bluefog::window
