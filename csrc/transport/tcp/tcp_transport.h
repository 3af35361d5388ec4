// Neighbours on other hosts are reached over TCP: one connection for each, which fails alone.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "base/deadline.h"
#include "base/process.h"
#include "transport/rendezvous.h"
#include "transport/tcp/pair.h"
#include "transport/transport.h"

namespace bluefog::tcp {

/// Into how many a payload is cut: one where another transport serves the rest of an exchange,
/// which is to begin when this rank is done with what goes this way, see RoutedTransport. Ranks of
/// both kinds go together: one that has a single piece serves all its connections at once.
enum class Pieces { kMany, kOne };

class TcpTransport : public Transport {
 public:
  /// See connect_all().
  static std::unique_ptr<TcpTransport> connect(const Rendezvous& rendezvous, int rank, int size,
                                               const std::vector<int>& peers,
                                               const std::string& interface, Pieces pieces,
                                               const Deadline& deadline);
  ~TcpTransport() override;

  const char* name() const override { return "tcp"; }
  std::unique_ptr<Exchange> begin(const Request& request) override;
  void abort() override;
  const char* lost(int peer) const override;

 private:
  friend class TcpExchange;

  TcpTransport(int size, Pieces pieces);

  const std::size_t piece_;                    // bytes
  std::vector<std::unique_ptr<Pair>> pairs_;   // by rank, null where there is none
  std::vector<std::vector<std::byte>> rooms_;  // by rank: a piece of what it sends
  std::atomic<bool> aborted_{false};
  UniqueFd wake_;                 // can be read once aborted
  const int pid_ = process_id();  // a forked child has copies of the connections
};

}  // namespace bluefog::tcp
