#include "transport/nccl/flight_recorder.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <string_view>

#include "base/error.h"

namespace bluefog::nccl {
namespace {

std::string json_text(std::string_view text) {
  std::string out = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (static_cast<unsigned char>(c) < 0x20) {
      char code[8];
      std::snprintf(code, sizeof code, "\\u%04x", static_cast<unsigned>(c));
      out += code;
    } else {
      out += c;
    }
  }
  return out + '"';
}

}  // namespace

std::string Operation::describe() const {
  std::string out = concat(name, " #", sequence, " (");
  const char* separator = "";
  for (const auto& [source, destination] : edges) {
    out += concat(separator, source, " -> ", destination);
    separator = ", ";
  }
  return out + concat("; ", bytes, " bytes sent)");
}

std::int64_t FlightRecorder::wall_clock() {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

FlightRecorder::FlightRecorder(std::size_t capacity, std::function<std::int64_t()> now)
    : capacity_(std::max<std::size_t>(capacity, 1)), now_(std::move(now)) {}

std::uint64_t FlightRecorder::enqueued(Operation operation) {
  Entry entry{std::move(operation), State::kEnqueued, now_(), 0, ""};
  std::lock_guard lock(mutex_);
  const std::uint64_t ticket = tickets_++;
  if (ring_.size() < capacity_) {
    ring_.push_back(std::move(entry));
  } else {
    ring_[ticket % capacity_] = std::move(entry);
  }
  return ticket;
}

void FlightRecorder::completed(std::uint64_t ticket) { finish(ticket, State::kCompleted, ""); }

void FlightRecorder::failed(std::uint64_t ticket, std::string error) {
  finish(ticket, State::kFailed, std::move(error));
}

void FlightRecorder::captured(std::uint64_t ticket) { finish(ticket, State::kCaptured, ""); }

void FlightRecorder::finish(std::uint64_t ticket, State state, std::string error) {
  const std::int64_t now = now_();
  std::lock_guard lock(mutex_);
  if (ticket >= tickets_ || tickets_ - ticket > capacity_) return;
  Entry& entry = ring_[ticket % capacity_];
  if (entry.state != State::kEnqueued) return;
  entry.state = state;
  entry.finished_ns = now;
  entry.error = std::move(error);
}

std::string FlightRecorder::json() const {
  std::lock_guard lock(mutex_);
  const std::uint64_t oldest = tickets_ - ring_.size();
  std::string out = concat(R"({"version": 1, "forgotten": )", oldest, R"(, "entries": [)");
  for (std::uint64_t ticket = oldest; ticket < tickets_; ++ticket) {
    if (ticket != oldest) out += ", ";
    out += json_of(ring_[ticket % capacity_]);
  }
  return out + "]}";
}

std::string FlightRecorder::json_of(const Entry& entry) {
  static constexpr const char* kNames[] = {"enqueued", "completed", "failed", "captured"};
  std::string edges;
  for (const auto& [source, destination] : entry.operation.edges) {
    edges += concat(edges.empty() ? "[" : ", [", source, ", ", destination, "]");
  }
  const bool finished = entry.state == State::kCompleted || entry.state == State::kFailed;
  return concat(R"({"operation": )", json_text(entry.operation.name), R"(, "sequence": )",
                entry.operation.sequence, R"(, "edges": [)", edges, R"(], "bytes": )",
                entry.operation.bytes, R"(, "state": ")", kNames[static_cast<int>(entry.state)],
                R"(", "enqueued_ns": )", entry.enqueued_ns, R"(, "finished_ns": )",
                finished ? std::to_string(entry.finished_ns) : "null", R"(, "error": )",
                entry.state == State::kFailed ? json_text(entry.error) : "null", "}");
}

}  // namespace bluefog::nccl
