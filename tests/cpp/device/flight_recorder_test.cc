// The ring of the last rounds, and its JSON.
#include "transport/nccl/flight_recorder.h"

#include <gtest/gtest.h>

#include <thread>

namespace bluefog::nccl {
namespace {

Operation round(std::uint64_t sequence) {
  return {"neighbor_allreduce", sequence, {{0, 1}, {1, 2}}, 4096};
}

/// A clock that goes on by 1 with each look.
std::function<std::int64_t()> ticks() {
  return [now = std::int64_t{0}]() mutable { return ++now; };
}

/// Whether the text is one JSON value: a checker that knows the grammar and nothing else.
class Json {
 public:
  explicit Json(std::string text) : text_(std::move(text)) {}
  bool valid() { return value() && at_ == text_.size(); }

 private:
  void skip() {
    while (at_ < text_.size() && text_[at_] == ' ') ++at_;
  }
  bool take(char c) {
    skip();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    skip();
    return true;
  }
  bool word(const std::string& word) {
    if (text_.compare(at_, word.size(), word) != 0) return false;
    at_ += word.size();
    skip();
    return true;
  }
  bool number() {
    const std::size_t start = at_;
    while (at_ < text_.size() && std::isdigit(static_cast<unsigned char>(text_[at_]))) ++at_;
    skip();
    return at_ > start;
  }
  bool string() {
    if (at_ >= text_.size() || text_[at_] != '"') return false;
    for (++at_; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (static_cast<unsigned char>(text_[at_]) < 0x20) return false;
      if (text_[at_] != '\\') continue;
      ++at_;
      if (text_[at_] == 'u') {
        at_ += 4;
      } else if (std::string("\"\\/bfnrt").find(text_[at_]) == std::string::npos) {
        return false;
      }
    }
    return take('"');
  }
  bool members(char close, const std::function<bool()>& member) {
    if (take(close)) return true;
    do {
      if (!member()) return false;
    } while (take(','));
    return take(close);
  }
  bool value() {
    if (take('{')) return members('}', [this] { return string() && take(':') && value(); });
    if (take('[')) return members(']', [this] { return value(); });
    return string() || number() || word("null");
  }

  const std::string text_;
  std::size_t at_ = 0;
};

TEST(FlightRecorderTest, TheCheckerOfTheseTestsKnowsWhatIsWrong) {
  for (const char* wrong : {"", "{", "{\"a\" 1}", "[1,]", "\"a\nb\"", "\"\\x\"", "[1] 2", "nul"}) {
    EXPECT_FALSE(Json(wrong).valid()) << wrong;
  }
  EXPECT_TRUE(Json("{\"a\": [1, null, \"b\\n\"], \"c\": {}}").valid());
}

TEST(FlightRecorderTest, SaysWhatBecameOfEachRound) {
  FlightRecorder recorder(8, ticks());
  EXPECT_EQ(recorder.json(), R"({"version": 1, "forgotten": 0, "entries": []})");
  const auto first = recorder.enqueued(round(1)), second = recorder.enqueued(round(2));
  recorder.enqueued(round(3));
  recorder.captured(recorder.enqueued(round(4)));
  recorder.completed(first);
  recorder.failed(second, "late");
  EXPECT_EQ(
      recorder.json(),
      R"({"version": 1, "forgotten": 0, "entries": [)"
      R"({"operation": "neighbor_allreduce", "sequence": 1, "edges": [[0, 1], [1, 2]], )"
      R"("bytes": 4096, "state": "completed", "enqueued_ns": 1, "finished_ns": 6, "error": null}, )"
      R"({"operation": "neighbor_allreduce", "sequence": 2, "edges": [[0, 1], [1, 2]], )"
      R"("bytes": 4096, "state": "failed", "enqueued_ns": 2, "finished_ns": 7, "error": "late"}, )"
      R"({"operation": "neighbor_allreduce", "sequence": 3, "edges": [[0, 1], [1, 2]], )"
      R"("bytes": 4096, "state": "enqueued", "enqueued_ns": 3, "finished_ns": null, )"
      R"("error": null}, )"
      R"({"operation": "neighbor_allreduce", "sequence": 4, "edges": [[0, 1], [1, 2]], )"
      R"("bytes": 4096, "state": "captured", "enqueued_ns": 4, "finished_ns": null, )"
      R"("error": null}]})");
  EXPECT_TRUE(Json(recorder.json()).valid());
}

TEST(FlightRecorderTest, TheFirstEndCounts) {
  FlightRecorder recorder(8, ticks());
  const auto ticket = recorder.enqueued(round(1));
  recorder.failed(ticket, "late");
  recorder.completed(ticket);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, R"("state": "failed")", recorder.json());
}

TEST(FlightRecorderTest, KeepsTheLast) {
  FlightRecorder recorder(3, ticks());
  std::vector<std::uint64_t> tickets;
  for (std::uint64_t i = 0; i < 8; ++i) tickets.push_back(recorder.enqueued(round(100 + i)));
  recorder.failed(tickets[4], "of a round that is forgotten");  // has the place of 107
  recorder.completed(tickets[5]);
  recorder.completed(8);  // never given out
  const std::string json = recorder.json();
  EXPECT_PRED_FORMAT2(testing::IsSubstring, R"("forgotten": 5)", json);
  EXPECT_PRED_FORMAT2(testing::IsNotSubstring, "104", json);
  EXPECT_PRED_FORMAT2(testing::IsNotSubstring, "failed", json);
  EXPECT_LT(json.find(R"("sequence": 105)"), json.find(R"("state": "completed")"));
  EXPECT_LT(json.find(R"("state": "completed")"), json.find(R"("sequence": 106)"));
  EXPECT_LT(json.find(R"("sequence": 106)"), json.find(R"("sequence": 107)"));
  EXPECT_LT(json.find(R"("sequence": 107)"), json.size());
}

TEST(FlightRecorderTest, EscapesText) {
  FlightRecorder recorder(1, ticks());
  Operation odd = round(1);
  odd.name = "a \"name\"";
  recorder.failed(recorder.enqueued(odd), "C:\\ \n\t\x01 é");
  const std::string json = recorder.json();
  EXPECT_TRUE(Json(json).valid()) << json;
  EXPECT_PRED_FORMAT2(testing::IsSubstring, R"("a \"name\"")", json);
  EXPECT_PRED_FORMAT2(testing::IsSubstring, R"("C:\\ \u000a\u0009\u0001 é")", json);
}

TEST(FlightRecorderTest, ThreadsMayRecordAtOnce) {
  FlightRecorder recorder(64);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 200; ++i) recorder.completed(recorder.enqueued(round(i)));
    });
  }
  for (int i = 0; i < 20; ++i) EXPECT_TRUE(Json(recorder.json()).valid());
  for (auto& thread : threads) thread.join();
  EXPECT_PRED_FORMAT2(testing::IsSubstring, R"("forgotten": 736)", recorder.json());
  EXPECT_PRED_FORMAT2(testing::IsNotSubstring, "enqueued\"", recorder.json());
}

TEST(FlightRecorderTest, ARoundInWords) {
  EXPECT_EQ(round(12).describe(), "neighbor_allreduce #12 (0 -> 1, 1 -> 2; 4096 bytes sent)");
}

}  // namespace
}  // namespace bluefog::nccl
