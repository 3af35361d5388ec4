// c10d::Window, where torch has it: tensors of one host that all ranks of a group can write into.
//
// Registering a tensor moves its storage into memory that the others map; a put is a copy into
// theirs, and a signal a counter there. Unlike window/window.h it has no mailboxes: two ranks that
// put into the same place at the same time, or one that reads meanwhile, have to agree by signals.
#include <torch/csrc/distributed/c10d/Backend.hpp>

#ifdef C10D_BACKEND_HAS_WINDOW

#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <climits>
#include <cstring>
#include <ctime>
#include <utility>

#include "backend/bluefog_backend.h"
#include "backend/gil.h"
#include "backend/schema.h"
#include "backend/windows.h"
#include "base/error.h"
#include "transport/shm/handshake.h"
#include "transport/shm/memory.h"

namespace bluefog {
namespace {

constexpr std::uint64_t kMagic = 0x626c756577696e81;  // last byte: version of the layout
constexpr std::size_t kPage = 4096;

// At the beginning of a rank's memory; its tensor's storage follows at the next page.
struct Control {
  std::uint64_t magic;
  std::int32_t rank;
  std::int32_t dtype;
  std::int64_t numel;
  std::uint64_t storage_offset;  // of the tensor, in bytes
  std::uint64_t storage_nbytes;
};

// A count of signals for each sender follows it.
using Signals = std::atomic<std::uint32_t>;  // futex words

std::size_t data_at(int size) {
  return (sizeof(Control) + size * sizeof(Signals) + kPage - 1) / kPage * kPage;
}

// One rank's memory, of this process or mapped.
class Part {
 public:
  Part(shm::Memory memory, int size) : memory_(std::move(memory)), size_(size) {}

  Control& control() const { return *reinterpret_cast<Control*>(memory_.data()); }
  Signals& signals_of(int rank) const {
    return reinterpret_cast<Signals*>(memory_.data() + sizeof(Control))[rank];
  }
  std::byte* storage() const { return memory_.data() + data_at(size_); }
  std::byte* data() const { return storage() + control().storage_offset; }
  int fd() const { return memory_.fd(); }

  void check(int rank) const {
    const Control& has = control();
    const std::size_t end = has.storage_offset + has.numel * elementSize(dtype());
    if (has.magic != kMagic || has.rank != rank || end > has.storage_nbytes ||
        data_at(size_) + has.storage_nbytes > memory_.nbytes()) {
      fail(ErrorCode::kSystem, "rank ", rank, " sent what is no part of this window");
    }
  }
  at::ScalarType dtype() const { return static_cast<at::ScalarType>(control().dtype); }

 private:
  const shm::Memory memory_;
  const int size_;
};

using SharedPart = std::shared_ptr<const Part>;

std::chrono::milliseconds given(std::chrono::milliseconds timeout,
                                std::chrono::milliseconds otherwise) {
  return timeout == c10d::kUnsetTimeout || timeout == kNoTimeout ? otherwise : timeout;
}

/// Is over when it is made, or waits in wait().
class WindowWork : public c10d::Work {
 public:
  using Wait = std::function<void(std::chrono::milliseconds)>;

  explicit WindowWork(int rank, Wait rest = {})
      : Work(rank, c10d::OpType::UNKNOWN), rest_(std::move(rest)) {
    if (!rest_) finish();
  }
  bool wait(std::chrono::milliseconds timeout) override {
    if (auto rest = std::exchange(rest_, {})) {
      rest(timeout);
      finish();
    }
    return true;
  }

 private:
  Wait rest_;
};

/// What a window needs of its group, which may go before it.
struct Group {
  c10::weak_intrusive_ptr<BluefogBackend> backend;
  int rank;
  int size;
};

class HostWindow : public c10d::Window {
 public:
  HostWindow(Group group, std::uint64_t number)
      : group_(std::move(group)), number_(number), taken_(group_.size), parts_(group_.size) {}

  void tensor_register(const at::Tensor& tensor, bool owning) override {
    const GilReleased released;
    TORCH_CHECK_VALUE(!parts_[group_.rank], "rank ", group_.rank,
                      "'s window has a tensor already: call tensor_deregister first");
    check(tensor);
    SharedPart own;
    std::optional<Error> refused;
    try {
      own = make_part(tensor);
    } catch (const Error& error) {
      refused = error;  // the others wait for this rank to take part
    }
    std::vector<SharedPart> parts(group_.size);
    const auto accept = [&](int rank, UniqueFd fd) {
      auto part = std::make_shared<const Part>(
          shm::Memory::map(std::move(fd), data_at(group_.size), rank), group_.size);
      part->check(rank);
      parts[rank] = std::move(part);
    };
    backend("tensor_register")
        ->meetForWindow(number_, registrations_++, own ? own->fd() : -1, accept);
    if (refused) throw *refused;
    parts[group_.rank] = own;
    check_all(parts);
    move(tensor, own);
    parts_ = std::move(parts);
    sizes_ = tensor.sizes().vec();
    for (Signals& taken : taken_) taken = 0;
    if (owning) tensor_ = tensor;
  }

  void tensor_deregister() override {
    part_of(group_.rank);
    std::fill(parts_.begin(), parts_.end(), nullptr);
    tensor_.reset();
  }

  c10::intrusive_ptr<c10d::Work> put(const at::Tensor& tensor, int64_t to, int64_t offset, bool,
                                     const c10d::PutOptions&) override {
    const GilReleased released;
    check(tensor);
    const Part& part = part_of(to);
    check_live(to);
    TORCH_CHECK_TYPE(tensor.scalar_type() == part.dtype(), "rank ", to, "'s window has ",
                     dtype_name(part.dtype()), ", got a tensor of ",
                     dtype_name(tensor.scalar_type()));
    const int64_t numel = part.control().numel;
    TORCH_CHECK_VALUE(offset >= 0 && offset <= numel && tensor.numel() <= numel - offset, "rank ",
                      to, "'s window has ", numel, " elements, got ", tensor.numel(), " at ",
                      offset);
    std::memcpy(part.data() + offset * tensor.element_size(), tensor.const_data_ptr(),
                tensor.nbytes());
    return c10::make_intrusive<WindowWork>(group_.rank);
  }

  // A view: of the shape of this rank's tensor if it has as many elements, else flat.
  at::Tensor map_remote_tensor(int64_t rank) override {
    part_of(rank);
    const SharedPart part = parts_[rank];
    const at::Tensor flat = at::from_blob(
        part->data(), {part->control().numel}, [part](void*) {}, at::dtype(part->dtype()));
    return flat.numel() == c10::multiply_integers(sizes_) ? flat.view(sizes_) : flat;
  }

  // What was put before is there when the signal is seen.
  c10::intrusive_ptr<c10d::Work> signal(int64_t peer, bool, const c10d::SignalOptions&) override {
    Signals& count = part_of(peer).signals_of(group_.rank);
    check_live(peer);
    count.fetch_add(1, std::memory_order_release);  // pairs with the load in await()
    ::syscall(SYS_futex, &count, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
    return c10::make_intrusive<WindowWork>(group_.rank);
  }

  c10::intrusive_ptr<c10d::Work> wait_signal(int64_t peer, bool async,
                                             const c10d::WaitSignalOptions& options) override {
    part_of(peer);
    const auto otherwise = backend("wait_signal")->options()->timeout;
    const auto wait = [self = c10::intrusive_ptr<HostWindow>::unsafe_reclaim_from_nonowning(this),
                       part = parts_[group_.rank], peer = static_cast<int>(peer),
                       timeout = given(options.timeout, otherwise)](auto longest) {
      self->await(*part, peer, Deadline::in(given(longest, timeout)));
    };
    auto work = c10::make_intrusive<WindowWork>(group_.rank, wait);
    if (!async) work->wait(kNoTimeout);
    return work;
  }

  c10d::WindowAttr get_attr(int64_t peer) override {
    part_of(peer);
    return {c10d::WindowAccessType::UNIFIED};
  }

 private:
  SharedPart make_part(const at::Tensor& tensor) const {
    const std::size_t nbytes = tensor.storage().nbytes();
    auto part = std::make_shared<const Part>(
        shm::Memory::create("bluefog c10d window", data_at(group_.size) + nbytes), group_.size);
    part->control() = {kMagic,
                       group_.rank,
                       static_cast<std::int32_t>(tensor.scalar_type()),
                       tensor.numel(),
                       static_cast<std::uint64_t>(tensor.storage_offset() * tensor.element_size()),
                       nbytes};
    std::memcpy(part->storage(), tensor.storage().data(), nbytes);  // before others put into it
    return part;
  }

  static void check(const at::Tensor& tensor) {
    TORCH_CHECK_VALUE(tensor.is_cpu(), "a window of torch.distributed on the CPU got a tensor on ",
                      tensor.device(), "; one for a GPU is made by new_window(tensor), with it");
    TensorWindow::check(tensor, "torch.distributed.Window");
  }

  // All that refers to the tensor's storage finds `part` from then on. Who holds a bare
  // pointer keeps the old memory, which goes with the storage.
  static void move(const at::Tensor& tensor, const SharedPart& part) {
    struct Kept {
      SharedPart part;
      at::DataPtr old;
    };
    c10::StorageImpl* storage = tensor.storage().unsafeGetStorageImpl();
    auto kept = std::make_unique<Kept>(Kept{part, {}});
    Kept* const raw = kept.get();
    at::DataPtr data(
        part->storage(), kept.release(), [](void* context) { delete static_cast<Kept*>(context); },
        at::kCPU);
    raw->old = storage->set_data_ptr(std::move(data));
  }

  void check_all(const std::vector<SharedPart>& parts) const {
    std::vector<int> missing;
    for (int rank = 0; rank < group_.size; ++rank) {
      if (!parts[rank]) missing.push_back(rank);
    }
    if (missing.empty()) return;
    fail(ErrorCode::kSystem, "rank ", group_.rank, " shares no memory with ", name_ranks(missing),
         ": windows of torch.distributed are for ranks of one host; bluefog_pg.Window is not");
  }

  c10::intrusive_ptr<BluefogBackend> backend(const char* what) const {
    auto backend = group_.backend.lock();
    if (!backend) {
      fail(ErrorCode::kAborted, what, " on rank ", group_.rank, ": its group has been destroyed");
    }
    return backend;
  }

  const Part& part_of(int64_t rank) const {
    TORCH_CHECK_VALUE(rank >= 0 && rank < group_.size, "rank ", group_.rank,
                      "'s window has ranks 0 to ", group_.size - 1, ", got ", rank);
    TORCH_CHECK_VALUE(parts_[rank], "rank ", group_.rank,
                      "'s window has no tensor: call tensor_register first");
    return *parts_[rank];
  }

  void check_live(int64_t rank) const {
    if (rank == group_.rank) return;
    if (const char* how = backend("a window")->lost(static_cast<int>(rank))) {
      fail(ErrorCode::kPeerLost, "rank ", rank, " was lost: ", how);
    }
  }

  // Takes one signal; a wait that fails has taken none.
  void await(const Part& own, int peer, const Deadline& deadline) {
    const GilReleased released;
    Signals& count = own.signals_of(peer);
    while (true) {
      const std::uint32_t seen = count.load(std::memory_order_acquire);
      std::uint32_t taken = taken_[peer];
      if (seen != taken) {
        if (taken_[peer].compare_exchange_strong(taken, taken + 1)) return;
        continue;  // another thread has taken it
      }
      check_live(peer);
      if (deadline.passed()) {
        fail(ErrorCode::kTimeout, "rank ", group_.rank, " waited ", deadline.timeout_seconds(),
             " s for signal ", taken + 1, " of rank ", peer, ", which has sent ", seen);
      }
      const timespec longest{0, 20'000'000};
      ::syscall(SYS_futex, &count, FUTEX_WAIT, seen, &longest, nullptr, 0);
    }
  }

  const Group group_;
  const std::uint64_t number_;
  int registrations_ = 0;
  std::vector<Signals> taken_;     // signals that waits have taken, by sender
  std::vector<SharedPart> parts_;  // by rank; null where no tensor is registered
  std::vector<int64_t> sizes_;
  at::Tensor tensor_;
};

}  // namespace

c10::intrusive_ptr<c10d::Window> BluefogBackend::new_window(
    const std::optional<at::Tensor>& tensor) {
  if (tensor && tensor->is_cuda()) return inner(tensor->device()).new_window(tensor);
  std::uint64_t number;
  {
    const std::lock_guard lock(windows_->mutex);
    number = ++windows_->made;
  }
  const auto self = c10::intrusive_ptr<BluefogBackend>::unsafe_reclaim_from_nonowning(this);
  auto window = c10::make_intrusive<HostWindow>(
      Group{c10::weak_intrusive_ptr<BluefogBackend>(self), getRank(), getSize()}, number);
  if (tensor) window->tensor_register(*tensor, /*owning=*/true);
  return window;
}

void BluefogBackend::meetForWindow(std::uint64_t number, int registration, int own,
                                   const std::function<void(int, UniqueFd)>& accept) {
  executor();  // connects the group
  shm::exchange_memory(
      rendezvous_at(concat("c10d_window/", number, "/", registration, "/"), "a window"), getRank(),
      getSize(), own, accept, Deadline::in(options_->timeout));
}

const char* BluefogBackend::lost(int rank) {
  executor();
  return transport_->lost(rank);
}

}  // namespace bluefog

#endif
