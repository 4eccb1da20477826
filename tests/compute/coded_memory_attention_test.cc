#include "compute/coded_memory_attention.h"

#include <algorithm>
#include <cstring>
#include <deque>
#include <limits>
#include <set>

#include "tests/compute/kept_keys.h"
#include "tests/compute/op_test.h"
#include "tests/compute/stored_codes.h"

namespace fovea::compute {
namespace {

struct Shape {
  int64_t n_queries, n_heads, n_kv_heads, head_dim;
  int n_candidates, top_k;
  std::vector<int64_t> n_tokens;  // of each part
  std::vector<int> bits;          // of each part
  bool in_bf16 = true;
  bool filtered = false;
  bool pinned = false;            // keys and values
  std::vector<int> n_found = {};  // by an index of each part; 0: it has none
};

std::string ShapeName(const Shape& s) {
  std::string parts;
  for (size_t p = 0; p < s.bits.size(); ++p) {
    parts += StrCat(p > 0 ? " + " : "", s.n_tokens[p], " of ", s.bits[p], " bits");
  }
  return StrCat(s.n_queries, " x ", s.n_heads, "/", s.n_kv_heads, " x ", s.head_dim, ", top ",
                s.top_k, " of ", s.n_candidates, " of ", parts, s.in_bf16 ? ", bfloat16" : "",
                s.filtered ? ", filtered" : "", s.pinned ? ", pinned" : "",
                s.n_found.empty() ? "" : ", with indexes");
}

struct PartData {
  int64_t n_tokens;
  std::vector<float> keys, values;  // [n_kv_heads, n_tokens, head_dim], as they are stored
  std::vector<uint64_t> allowed;    // empty: all
  StoredCodes codes;                // of no keys: none
  std::vector<int64_t> found;       // [n_kv_heads, n_queries, group, n_found]: of what an index has
  std::vector<int32_t> tokens;      // of the keys of the index
};

struct Result {
  std::vector<float> output, lse, scores;
  std::vector<int64_t> positions;
};

// A memory on a device, and all of it on the host.
class Memory {
 public:
  Memory(Device& device, const Shape& shape, uint32_t seed) : device_(device), s_(shape) {
    std::mt19937 generator(seed);
    const auto d = static_cast<size_t>(s_.head_dim);
    queries = RandomFloats(static_cast<size_t>(s_.n_queries * s_.n_heads) * d, seed);
    for (size_t p = 0; p < s_.n_tokens.size(); ++p) {
      const int64_t n = s_.n_tokens[p];
      const auto size = static_cast<size_t>(s_.n_kv_heads * n) * d;
      parts.push_back({.n_tokens = n,
                       .keys = RandomFloats(size, ++seed),
                       .values = RandomFloats(size, ++seed),
                       .allowed = {},
                       .codes = {},
                       .found = {},
                       .tokens = {}});
      PartData& part = parts.back();
      // Means differ from part to part.
      for (size_t i = 0; i < size; ++i) part.keys[i] += 0.5f * static_cast<float>((i % d + p) % 3);
      if (s_.in_bf16) {
        for (float& x : part.keys) x = static_cast<float>(BFloat16(x));
        for (float& x : part.values) x = static_cast<float>(BFloat16(x));
      }
      if (NumFound(p) > 0) MakeFound(&part, NumFound(p), &generator);
      if (!s_.filtered) continue;
      part.allowed.resize(static_cast<size_t>((n + 63) / 64));
      for (uint64_t& word : part.allowed) {
        word = generator() | uint64_t{generator()} << 32;
        if (generator() % 3 == 0) word = 0;
      }
    }
  }

  bool Allows(const PartData& part, int64_t key) const {
    return part.allowed.empty() ||
           (part.allowed[static_cast<size_t>(key / 64)] >> (key % 64) & 1) != 0;
  }

  int NumFound(size_t p) const { return s_.n_found.empty() ? 0 : s_.n_found[p]; }
  // Some keys of an index for each query head, each once, in any order. The index has keys of
  // tokens that are not here any more, and counts in another order.
  void MakeFound(PartData* part, int n_found, std::mt19937* generator) const {
    for (int64_t t = 0; t < part->n_tokens; ++t) {
      part->tokens.push_back(static_cast<int32_t>(part->n_tokens - 1 - t));
      if (t % 5 == 2) part->tokens.push_back(-1);
    }
    std::vector<int64_t> keys(part->tokens.size());
    for (size_t i = 0; i < keys.size(); ++i) keys[i] = static_cast<int64_t>(i);
    for (int64_t list = 0; list < s_.n_queries * s_.n_heads; ++list) {
      std::shuffle(keys.begin(), keys.end(), *generator);
      for (size_t j = 0; j < static_cast<size_t>(n_found); ++j) {
        // Fewer were found, now and then.
        const bool is_there = j < keys.size() && (list % 3 != 1 || j % 4 != 3);
        part->found.push_back(is_there ? keys[j] : -1);
      }
    }
  }
  bool Found(const PartData& part, int n_found, int64_t row, int64_t token) const {
    const int64_t group = s_.n_heads / s_.n_kv_heads;
    const int64_t head = row % s_.n_heads;
    const int64_t list = (head / group * s_.n_queries + row / s_.n_heads) * group + head % group;
    for (int64_t j = list * n_found; j < (list + 1) * n_found; ++j) {
      const int64_t key = part.found[static_cast<size_t>(j)];
      if (key >= 0 && part.tokens[static_cast<size_t>(key)] == token) return true;
    }
    return false;
  }

  void Upload() {
    on_device_.clear();
    for (size_t p = 0; p < parts.size(); ++p) {
      PartData& part = parts[p];
      CodedMemoryPart& to = on_device_.emplace_back();
      to.entries.keys = Put(part, part.keys);
      to.entries.values = Put(part, part.values);
      if (!part.allowed.empty()) {
        buffers_.push_back(ToDevice(device_, part.allowed));
        to.entries.allowed = buffers_.back().data<uint64_t>();
      }
      if (NumFound(p) > 0) {
        buffers_.push_back(ToDevice(device_, part.found));
        to.found = {.keys = buffers_.back().data<int64_t>(), .n_found = NumFound(p)};
        buffers_.push_back(ToDevice(device_, part.tokens));
        to.found.tokens = buffers_.back().data<int32_t>();
      }
      if (s_.bits[p] == 0) continue;
      part.codes = Encode(device_, s_.bits[p], to.entries.keys);
      to.codes = part.codes.view();
    }
  }

  Result Attend() {
    const auto n_rows = static_cast<size_t>(s_.n_queries * s_.n_heads);
    const size_t n_kept = n_rows * static_cast<size_t>(s_.top_k);
    const size_t n_out = n_rows * static_cast<size_t>(s_.head_dim);
    const Buffer on_device = ToDevice(device_, queries);
    // Outputs hold nonsense before.
    const Buffer output = ToDevice(device_, std::vector<float>(n_out, NAN));
    const Buffer lse = ToDevice(device_, std::vector<float>(n_rows, NAN));
    const Buffer scores = ToDevice(device_, std::vector<float>(n_kept, NAN));
    const Buffer positions = ToDevice(device_, std::vector<int64_t>(n_kept, -7));
    const absl::Status status = CodedMemoryAttention(
        device_, {.queries = {on_device.data<float>(), {s_.n_queries, s_.n_heads, s_.head_dim}},
                  .parts = on_device_,
                  .n_candidates = s_.n_candidates,
                  .top_k = s_.top_k,
                  .scale = Scale(),
                  .output = {output.data<float>(), {s_.n_queries, s_.n_heads, s_.head_dim}},
                  .lse = {lse.data<float>(), {s_.n_queries, s_.n_heads}},
                  .positions = positions.data<int64_t>(),
                  .scores = scores.data<float>()});
    EXPECT_TRUE(status.ok()) << status;
    Result result{ToHost(device_, output, n_out), ToHost(device_, lse, n_rows),
                  ToHost(device_, scores, n_kept), std::vector<int64_t>(n_kept)};
    EXPECT_TRUE(
        device_
            .CopyToHost(positions.data<void>(), n_kept * sizeof(int64_t), result.positions.data())
            .ok());
    return result;
  }

  // Every key is kept that is among the best estimates and has one of the best scores.
  void ExpectBest(const Result& result) const {
    const int64_t group = s_.n_heads / s_.n_kv_heads;
    const auto d = static_cast<size_t>(s_.head_dim);
    for (int64_t row = 0; row < s_.n_queries * s_.n_heads; ++row) {
      SCOPED_TRACE(StrCat("row ", row));
      const int64_t kv_head = row % s_.n_heads / group;
      const float* const query = queries.data() + static_cast<size_t>(row) * d;
      struct Key {
        KeptKey key;
        double estimate;
      };
      std::vector<Key> all;
      double magnitude = 1.0, largest_estimate = 0.0;
      int64_t position = 0;
      size_t n_found = 0;
      for (size_t p = 0; p < parts.size(); ++p) {
        const PartData& part = parts[p];
        const std::vector<double> digits =
            s_.bits[p] == 0 ? std::vector<double>() : Digits(part, query);
        for (int64_t k = 0; k < part.n_tokens; ++k, ++position) {
          if (!Allows(part, k)) continue;
          const bool has_index = NumFound(p) > 0;
          if (has_index && !Found(part, NumFound(p), row, k)) continue;
          const size_t at = static_cast<size_t>(kv_head * part.n_tokens + k) * d;
          double score = 0.0, terms = 0.0;
          for (size_t i = 0; i < d; ++i) {
            const double term = static_cast<double>(query[i]) * part.keys[at + i];
            score += term;
            terms += std::abs(term);
          }
          magnitude = std::max(magnitude, terms);
          double estimate = score;
          if (s_.bits[p] > 0) {
            const std::vector<double> code = part.codes.Centred(kv_head, k);
            estimate = 0.0;
            for (size_t i = 0; i < code.size(); ++i) estimate += code[i] * digits[i];
            estimate *= part.codes.Factor(kv_head, k);
            for (size_t i = 0; i < d; ++i) estimate += query[i] * part.codes.MeanOf(kv_head)[i];
          }
          largest_estimate = std::max(largest_estimate, std::abs(estimate));
          if (has_index) {
            ++n_found;
            estimate = std::numeric_limits<double>::infinity();  // it is scored whatever it is
          }
          all.push_back({{score, position, part.values.data() + at}, estimate});
        }
      }
      const size_t n_want = std::min(all.size(), static_cast<size_t>(s_.top_k));
      std::sort(all.begin(), all.end(),
                [](const Key& a, const Key& b) { return a.estimate > b.estimate; });
      const size_t n_sure = std::min(all.size(), n_found + static_cast<size_t>(s_.n_candidates));
      const double sure = n_sure == 0 ? 0.0 : all[n_sure - 1].estimate + 1e-5 * largest_estimate;
      const double tolerance = 4.0 * kEpsilon * magnitude;
      const int64_t* const positions = result.positions.data() + row * s_.top_k;
      const float* const scores = result.scores.data() + row * s_.top_k;
      std::vector<KeptKey> kept;
      std::set<int64_t> seen;
      for (size_t j = 0; j < static_cast<size_t>(s_.top_k); ++j) {
        if (j >= n_want) {
          ASSERT_EQ(positions[j], -1);
          continue;
        }
        const auto at = std::find_if(all.begin(), all.end(), [&](const Key& key) {
          return key.key.position == positions[j];
        });
        ASSERT_TRUE(at != all.end()) << positions[j] << " may not be selected";
        ASSERT_TRUE(seen.insert(positions[j]).second) << positions[j] << " is kept twice";
        ASSERT_NEAR(scores[j], at->key.score, tolerance);
        if (j > 0) {
          ASSERT_GE(scores[j - 1], scores[j]);
        }
        kept.push_back(at->key);
      }
      for (const Key& key : all) {
        if (key.estimate <= sure || seen.contains(key.key.position)) continue;
        ASSERT_LE(key.key.score, kept.back().score + 2.0 * tolerance)
            << key.key.position << " is left out";
      }
      ExpectAttention(kept, Scale(), tolerance, result.output.data() + static_cast<size_t>(row) * d,
                      d, result.lse[static_cast<size_t>(row)]);
    }
  }

  std::vector<float> queries;
  std::deque<PartData> parts;

 private:
  float Scale() const { return 1.0f / std::sqrt(static_cast<float>(s_.head_dim)); }

  // A query as a scan takes it, in its own units.
  std::vector<double> Digits(const PartData& part, const float* query) const {
    std::vector<double> digits = part.codes.Rotate({query, query + s_.head_dim});
    double largest = 0.0;
    for (const double x : digits) largest = std::max(largest, std::abs(x));
    const double unit = largest / (part.codes.coder->bits() == 8 ? 63.0 : 127.0);
    for (double& x : digits) x = std::nearbyint(x / unit) * unit;
    return digits;
  }

  ConstView Put(const PartData& part, const std::vector<float>& numbers) {
    std::vector<BFloat16> rounded(numbers.size());
    FloatToBFloat16(numbers.data(), rounded.data(), numbers.size());
    if (s_.pinned) {
      const size_t n = numbers.size() * (s_.in_bf16 ? sizeof(BFloat16) : sizeof(float));
      absl::StatusOr<Buffer> buffer = device_.AllocatePinned(n);
      EXPECT_TRUE(buffer.ok()) << buffer.status();
      if (n > 0) {
        std::memcpy(buffer->data<void>(),
                    s_.in_bf16 ? static_cast<const void*>(rounded.data()) : numbers.data(), n);
      }
      buffers_.push_back(*std::move(buffer));
    } else {
      buffers_.push_back(s_.in_bf16 ? ToDevice(device_, rounded) : ToDevice(device_, numbers));
    }
    return {s_.in_bf16 ? DType::kBF16 : DType::kF32,
            buffers_.back().data<void>(),
            {s_.n_kv_heads, part.n_tokens, s_.head_dim}};
  }

  Device& device_;
  const Shape s_;
  std::deque<Buffer> buffers_;
  std::vector<CodedMemoryPart> on_device_;
};

class CodedMemoryAttentionTest : public testing::TestWithParam<std::string> {};

TEST_P(CodedMemoryAttentionTest, KeepsTheBestOfTheBestEstimates) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  std::vector<Shape> shapes;
  for (const bool filtered : {false, true}) {
    shapes.push_back({1, 9, 3, 64, 40, 16, {9000}, {4}, true, filtered});
    shapes.push_back({1, 9, 3, 64, 40, 16, {9001}, {2}, true, filtered});
    shapes.push_back({1, 9, 3, 64, 40, 16, {5003}, {8}, true, filtered});
    shapes.push_back({2, 4, 2, 128, 20, 7, {3000, 1, 700}, {4, 4, 4}, true, filtered});
    shapes.push_back({1, 4, 1, 128, 64, 3, {3000, 900}, {2, 2}, false, filtered});
    shapes.push_back({1, 2, 1, 128, 30, 5, {2000}, {8}, true, filtered});
    // Parts of all kinds, some in another order than they are scanned in.
    shapes.push_back(
        {1, 6, 2, 64, 50, 16, {700, 2000, 300, 1500, 64}, {0, 4, 2, 4, 8}, true, filtered});
    shapes.push_back({3, 6, 1, 20, 30, 10, {500, 40}, {4, 0}, false, filtered});
    shapes.push_back({1, 3, 1, 100, 25, 16, {2049, 500}, {4, 2}, true, filtered});
    shapes.push_back({1, 3, 1, 33, 25, 16, {700}, {8}, false, filtered});
    shapes.push_back({1, 2, 1, 256, 20, 4, {600, 333}, {4, 8}, true, filtered});
    shapes.push_back({5, 8, 2, 80, 128, 100, {1200}, {4}, true, filtered});
    shapes.push_back({1, 2, 2, 96, 200, 120, {40}, {4}, true, filtered});
    shapes.push_back({1, 9, 3, 64, 40, 16, {4000}, {4}, true, filtered, true});
    shapes.push_back({1, 3, 3, 24, 40, 9, {900, 100}, {2, 0}, false, filtered, true});
  }
  uint32_t seed = 1;
  for (const Shape& s : shapes) {
    SCOPED_TRACE(ShapeName(s));
    Memory memory(*device, s, seed += 100);
    memory.Upload();
    memory.ExpectBest(memory.Attend());
    if (HasFatalFailure()) return;
  }
}

TEST_P(CodedMemoryAttentionTest, WhatIndexesFoundIsScoredInThePlaceOfAScan) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  std::vector<Shape> shapes;
  for (const bool filtered : {false, true}) {
    shapes.push_back({1, 9, 3, 64, 40, 16, {9000}, {0}, true, filtered, false, {100}});
    // Odd numbers of heads and of keys: what lies behind them in a workspace is aligned.
    shapes.push_back({1, 9, 3, 64, 40, 16, {9000}, {0}, true, filtered, false, {129}});
    shapes.push_back(
        {3, 6, 2, 64, 50, 16, {700, 2000, 1500}, {0, 4, 0}, true, filtered, false, {64, 0, 333}});
    shapes.push_back({5, 4, 1, 33, 20, 7, {300, 90}, {0, 0}, false, filtered, false, {20, 0}});
    shapes.push_back({2, 8, 2, 80, 20, 15, {90, 3000}, {0, 2}, true, filtered, true, {30, 0}});
    // Codes of a part whose index was searched are not looked at.
    shapes.push_back({1, 2, 1, 128, 30, 5, {2000}, {8}, true, filtered, false, {70}});
    // More than are sorted in one place.
    shapes.push_back(
        {1, 3, 1, 16, 20, 500, {4000, 4000}, {0, 0}, true, filtered, false, {2048, 1000}});
  }
  uint32_t seed = 9000;
  for (const Shape& s : shapes) {
    SCOPED_TRACE(ShapeName(s));
    Memory memory(*device, s, seed += 100);
    memory.Upload();
    memory.ExpectBest(memory.Attend());
    if (HasFatalFailure()) return;
  }
}

TEST_P(CodedMemoryAttentionTest, ManyCandidatesOfManyKeys) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  // More tiles than candidates, more candidates than are sorted in one place.
  const Shape s{1, 3, 1, 16, 1024, 300, {130'000}, {2}};
  Memory memory(*device, s, 5);
  memory.Upload();
  memory.ExpectBest(memory.Attend());
}

TEST_P(CodedMemoryAttentionTest, NothingThatMayBeSelectedIsNoAttention) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Shape s{2, 6, 3, 64, 20, 16, {500, 0, 70}, {4, 4, 0}};
  Memory memory(*device, s, 1);
  for (PartData& part : memory.parts) {
    part.allowed.assign(static_cast<size_t>((part.n_tokens + 63) / 64), 0);
  }
  memory.Upload();
  memory.ExpectBest(memory.Attend());
}

TEST_P(CodedMemoryAttentionTest, NotANumberIsNeverKept) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Shape s{1, 3, 1, 64, 100, 16, {1000}, {4}};
  Memory memory(*device, s, 1);
  for (const int64_t bad : {0, 31, 500, 999}) {
    memory.parts[0].keys[static_cast<size_t>(bad * 64)] = NAN;
  }
  memory.Upload();
  const Result result = memory.Attend();
  for (const int64_t position : result.positions) {
    EXPECT_GE(position, 0);
    for (const int64_t bad : {0, 31, 500, 999}) EXPECT_NE(position, bad);
  }
  for (const float x : result.output) EXPECT_TRUE(std::isfinite(x));
}

TEST_P(CodedMemoryAttentionTest, OddQueriesAreAnswered) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Shape s{1, 3, 1, 64, 30, 16, {5000}, {4}};
  Memory memory(*device, s, 1);
  memory.Upload();
  memory.queries.assign(memory.queries.size(), 0.0f);
  const Result zeros = memory.Attend();
  EXPECT_EQ(std::set<int64_t>(zeros.positions.begin(), zeros.positions.begin() + 16).size(), 16u);
  for (const float x : zeros.output) EXPECT_TRUE(std::isfinite(x));
  memory.queries.assign(memory.queries.size(), NAN);
  for (const int64_t position : memory.Attend().positions) EXPECT_EQ(position, -1);
}

TEST_P(CodedMemoryAttentionTest, IsTheSameEveryTime) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  const Shape s{4, 9, 3, 64, 200, 64, {30'000, 500}, {4, 0}};
  Memory memory(*device, s, 5);
  memory.Upload();
  const Result first = memory.Attend();
  for (int i = 0; i < 3; ++i) {
    const Result again = memory.Attend();
    EXPECT_EQ(again.positions, first.positions);
    EXPECT_EQ(again.output, first.output);
    EXPECT_EQ(again.lse, first.lse);
  }
}

TEST_P(CodedMemoryAttentionTest, NamesTheArgumentThatDoesNotFit) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer memory = ToDevice(*device, std::vector<float>(4000));
  auto* const floats = memory.data<float>();
  const CodedMemoryPart part{
      .entries = {.keys = {floats, {2, 5, 8}}, .values = {floats, {2, 5, 8}}}, .codes = {}};
  const CodedMemoryAttentionArgs fitting{.queries = {floats, {1, 4, 8}},
                                         .parts = {&part, 1},
                                         .n_candidates = 4,
                                         .top_k = 3,
                                         .output = {floats + 1000, {1, 4, 8}},
                                         .lse = {floats + 2000, {1, 4}}};
  ASSERT_TRUE(CodedMemoryAttention(*device, fitting).ok());
  const auto expect = [&](auto change, const std::string& text) {
    CodedMemoryAttentionArgs args = fitting;
    CodedMemoryPart changed = part;
    args.parts = {&changed, 1};
    change(args, changed);
    const absl::Status status = CodedMemoryAttention(*device, args);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(text));
  };
  expect([](auto& a, auto&) { a.n_candidates = 0; }, "0 candidates");
  expect([](auto& a, auto&) { a.n_candidates = kMaxCandidates + 1; }, "1025 candidates");
  expect([](auto& a, auto&) { a.top_k = 0; }, "top_k 0");
  expect([](auto& a, auto&) { a.parts = {}; }, "0 parts");
  expect([](auto&, auto& p) { p.codes.bits = 3; }, "3 bits");
  expect([](auto&, auto& p) { p.codes.bits = 4; }, "codes are not given");
  expect([&](auto&, auto& p) { p.entries.values = {floats, {2, 6, 8}}; }, "[2,5,8]");
}

INSTANTIATE_TEST_SUITE_P(Devices, CodedMemoryAttentionTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
