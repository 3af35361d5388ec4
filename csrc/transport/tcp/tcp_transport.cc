#include "transport/tcp/tcp_transport.h"

#include <sys/eventfd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/error.h"
#include "transport/greeting.h"
#include "transport/tcp/mesh.h"
#include "transport/tcp/tcp_exchange.h"

namespace bluefog::tcp {
namespace {

constexpr std::chrono::milliseconds kFarewell{100};
constexpr std::size_t kPiece = 256 << 10;  // bytes

}  // namespace

std::unique_ptr<TcpTransport> TcpTransport::connect(const Rendezvous& rendezvous, int rank,
                                                    int size, const std::vector<int>& peers,
                                                    const std::string& interface, Pieces pieces,
                                                    const Deadline& deadline) {
  std::unique_ptr<TcpTransport> transport(new TcpTransport(size, pieces));
  for (auto& [peer, fd] : connect_all(rendezvous, rank, size, peers, interface, deadline)) {
    transport->pairs_[peer] = std::make_unique<Pair>(std::move(fd));
  }
  return transport;
}

TcpTransport::TcpTransport(int size, Pieces pieces)
    : piece_(pieces == Pieces::kOne ? SIZE_MAX : kPiece),
      pairs_(size),
      rooms_(size),
      wake_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) {
  if (!wake_) {
    fail(ErrorCode::kSystem, "cannot wait for neighbours: ", std::strerror(errno));
  }
}

TcpTransport::~TcpTransport() {
  if (process_id() != pid_) return;
  for (auto& pair : pairs_) {
    if (pair) pair->hang_up(kFarewell);
  }
}

std::unique_ptr<Exchange> TcpTransport::begin(const Request& request) {
  if (aborted_.load(std::memory_order_acquire)) {
    fail_aborted(request);
  }
  return std::make_unique<TcpExchange>(this, request);
}

void TcpTransport::abort() {
  aborted_.store(true, std::memory_order_release);
  const std::uint64_t one = 1;
  [[maybe_unused]] const ssize_t written = ::write(wake_.get(), &one, sizeof(one));
}

const char* TcpTransport::lost(int peer) const {
  return pairs_[peer] ? pairs_[peer]->lost() : nullptr;
}

}  // namespace bluefog::tcp
