#include "compute/memory_attention.h"

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "tests/compute/kept_keys.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

struct Shape {
  int64_t n_queries;
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t head_dim;
  int top_k;
  std::vector<int64_t> n_tokens;  // of each part
  bool in_bf16;
  bool filtered;
};

std::string ShapeName(const Shape& s) {
  std::string tokens;
  for (const int64_t n : s.n_tokens) tokens += StrCat(tokens.empty() ? "" : "+", n);
  return StrCat(s.n_queries, " x ", s.n_heads, "/", s.n_kv_heads, " x ", s.head_dim, ", top ",
                s.top_k, " of ", tokens, s.in_bf16 ? ", bfloat16" : "",
                s.filtered ? ", filtered" : "");
}

struct PartData {
  int64_t n_tokens;
  std::vector<float> keys, values;  // [n_kv_heads, n_tokens, head_dim], as they are stored
  std::vector<uint64_t> allowed;    // empty: all
  bool Allows(int64_t p) const {
    return allowed.empty() || (allowed[static_cast<size_t>(p / 64)] >> (p % 64) & 1) != 0;
  }
};

struct Data {
  std::vector<float> queries;
  std::vector<PartData> parts;
};

// `integers`: keys and queries of small whole numbers, whose scores are exact and often equal.
Data MakeData(const Shape& s, bool integers, uint32_t seed) {
  std::mt19937 generator(seed);
  const auto whole = [&](std::vector<float> numbers) {
    for (float& x : numbers) x = integers ? std::round(x) : x;
    return numbers;
  };
  Data data;
  data.queries =
      whole(RandomFloats(static_cast<size_t>(s.n_queries * s.n_heads * s.head_dim), seed));
  for (const int64_t n : s.n_tokens) {
    PartData& part = data.parts.emplace_back();
    part.n_tokens = n;
    const auto size = static_cast<size_t>(s.n_kv_heads * n * s.head_dim);
    part.keys = whole(RandomFloats(size, ++seed));
    part.values = RandomFloats(size, ++seed);
    if (s.in_bf16) {
      for (float& x : part.keys) x = static_cast<float>(BFloat16(x));
      for (float& x : part.values) x = static_cast<float>(BFloat16(x));
    }
    if (!s.filtered) continue;
    part.allowed.resize(static_cast<size_t>((n + 63) / 64));
    for (uint64_t& word : part.allowed) {
      word = generator() | uint64_t{generator()} << 32;
      if (generator() % 3 == 0) word = 0;
    }
  }
  return data;
}

struct Result {
  std::vector<float> output, lse, scores;
  std::vector<int64_t> positions;
};

Buffer ToStored(Device& device, const std::vector<float>& numbers, bool in_bf16) {
  if (!in_bf16) return ToDevice(device, numbers);
  std::vector<BFloat16> stored(numbers.size());
  FloatToBFloat16(numbers.data(), stored.data(), stored.size());
  return ToDevice(device, stored);
}

Result Compute(Device& device, const Shape& s, const Data& data) {
  std::deque<Buffer> buffers;
  std::vector<MemoryPart> parts;
  for (const PartData& part : data.parts) {
    const auto view = [&](const std::vector<float>& numbers) {
      buffers.push_back(ToStored(device, numbers, s.in_bf16));
      return ConstView(s.in_bf16 ? DType::kBF16 : DType::kF32, buffers.back().data<void>(),
                       {s.n_kv_heads, part.n_tokens, s.head_dim});
    };
    MemoryPart& on_device = parts.emplace_back();
    on_device.keys = view(part.keys);
    on_device.values = view(part.values);
    if (!part.allowed.empty()) {
      buffers.push_back(ToDevice(device, part.allowed));
      on_device.allowed = buffers.back().data<uint64_t>();
    }
  }
  const auto n_rows = static_cast<size_t>(s.n_queries * s.n_heads);
  const size_t n_kept = n_rows * static_cast<size_t>(s.top_k);
  const size_t n_out = n_rows * static_cast<size_t>(s.head_dim);
  const Buffer queries = ToDevice(device, data.queries);
  // Outputs hold nonsense before.
  const Buffer output = ToDevice(device, std::vector<float>(n_out, NAN));
  const Buffer lse = ToDevice(device, std::vector<float>(n_rows, NAN));
  const Buffer scores = ToDevice(device, std::vector<float>(n_kept, NAN));
  const Buffer positions = ToDevice(device, std::vector<int64_t>(n_kept, -7));
  const absl::Status status = MemoryAttention(
      device, {.queries = {queries.data<float>(), {s.n_queries, s.n_heads, s.head_dim}},
               .parts = parts,
               .top_k = s.top_k,
               .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
               .output = {output.data<float>(), {s.n_queries, s.n_heads, s.head_dim}},
               .lse = {lse.data<float>(), {s.n_queries, s.n_heads}},
               .positions = positions.data<int64_t>(),
               .scores = scores.data<float>()});
  EXPECT_TRUE(status.ok()) << status;
  Result result{ToHost(device, output, n_out), ToHost(device, lse, n_rows),
                ToHost(device, scores, n_kept), std::vector<int64_t>(n_kept)};
  EXPECT_TRUE(
      device.CopyToHost(positions.data<void>(), n_kept * sizeof(int64_t), result.positions.data())
          .ok());
  return result;
}

// Against scores in double precision. Which of two keys is kept whose scores differ by less than
// sums in float err is not checked, unless all sums are exact: then of equal scores the smaller
// position is.
void ExpectBestKeys(const Shape& s, const Data& data, const Result& result, bool is_exact) {
  const int64_t group = s.n_heads / s.n_kv_heads;
  const auto d = static_cast<size_t>(s.head_dim);
  const double scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  for (int64_t row = 0; row < s.n_queries * s.n_heads; ++row) {
    SCOPED_TRACE(StrCat("row ", row));
    const int64_t kv_head = row % s.n_heads / group;
    const float* const query = data.queries.data() + static_cast<size_t>(row) * d;
    using Key = KeptKey;
    std::vector<Key> all;
    double magnitude = 1.0;
    int64_t position = 0;
    for (const PartData& part : data.parts) {
      for (int64_t p = 0; p < part.n_tokens; ++p, ++position) {
        if (!part.Allows(p)) continue;
        const size_t at = static_cast<size_t>(kv_head * part.n_tokens + p) * d;
        double score = 0.0, terms = 0.0;
        for (size_t i = 0; i < d; ++i) {
          const double term = static_cast<double>(query[i]) * part.keys[at + i];
          score += term;
          terms += std::abs(term);
        }
        magnitude = std::max(magnitude, terms);
        all.push_back({score, position, part.values.data() + at});
      }
    }
    std::map<int64_t, Key> by_position;
    for (const Key& key : all) by_position[key.position] = key;
    std::sort(all.begin(), all.end(), [](const Key& a, const Key& b) {
      return a.score != b.score ? a.score > b.score : a.position < b.position;
    });
    const size_t n_want = std::min(all.size(), static_cast<size_t>(s.top_k));
    const double tolerance = is_exact ? 0.0 : 4.0 * kEpsilon * magnitude;
    const int64_t* const positions = result.positions.data() + row * s.top_k;
    const float* const scores = result.scores.data() + row * s.top_k;
    std::set<int64_t> seen;
    std::vector<Key> kept;
    for (size_t j = 0; j < static_cast<size_t>(s.top_k); ++j) {
      if (j >= n_want) {
        ASSERT_EQ(positions[j], -1);
        continue;
      }
      ASSERT_TRUE(by_position.contains(positions[j])) << positions[j] << " may not be selected";
      ASSERT_TRUE(seen.insert(positions[j]).second) << positions[j] << " is kept twice";
      const Key& key = by_position[positions[j]];
      ASSERT_NEAR(scores[j], key.score, tolerance);
      ASSERT_GE(key.score, all[n_want - 1].score - 2.0 * tolerance);
      if (j > 0) {
        ASSERT_GE(scores[j - 1], scores[j]);
      }
      if (is_exact) {
        ASSERT_EQ(positions[j], all[j].position) << "place " << j;
      }
      kept.push_back(key);
    }
    ExpectAttention(kept, scale, 4.0 * kEpsilon * magnitude,
                    result.output.data() + static_cast<size_t>(row) * d, d,
                    result.lse[static_cast<size_t>(row)]);
  }
}

class MemoryAttentionTest : public testing::TestWithParam<std::string> {};

std::vector<Shape> Shapes() {
  std::vector<Shape> shapes;
  for (const bool in_bf16 : {false, true}) {
    for (const bool filtered : {false, true}) {
      shapes.push_back({1, 9, 3, 64, 16, {5000}, in_bf16, filtered});
      shapes.push_back({2, 6, 2, 64, 1, {257, 1, 4000}, in_bf16, filtered});
      shapes.push_back({3, 4, 4, 128, 40, {3000, 700}, in_bf16, filtered});
      shapes.push_back({1, 3, 1, 100, 16, {3001}, in_bf16, filtered});
      shapes.push_back({1, 8, 2, 80, 1024, {2500, 500}, in_bf16, filtered});
      shapes.push_back({5, 3, 1, 20, 7, {900}, in_bf16, filtered});
      shapes.push_back({1, 2, 1, 33, 5, {100, 31}, in_bf16, filtered});
      shapes.push_back({1, 2, 2, 96, 100, {40}, in_bf16, filtered});
      shapes.push_back({1, 2, 1, 256, 3, {600}, in_bf16, filtered});
    }
  }
  return shapes;
}

TEST_P(MemoryAttentionTest, KeepsTheBestKeysAndAttendsToThem) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  uint32_t seed = 1;
  for (const Shape& s : Shapes()) {
    SCOPED_TRACE(ShapeName(s));
    const Data data = MakeData(s, false, seed += 100);
    ExpectBestKeys(s, data, Compute(*device, s, data), false);
  }
}

TEST_P(MemoryAttentionTest, OfEqualScoresTheSmallerPositionIsKept) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  uint32_t seed = 7;
  for (Shape s : Shapes()) {
    // Scores of few dimensions have few values.
    s.head_dim = s.head_dim % 8 == 0 ? 8 : 5;
    SCOPED_TRACE(ShapeName(s));
    const Data data = MakeData(s, true, seed += 100);
    ExpectBestKeys(s, data, Compute(*device, s, data), true);
  }
}

TEST_P(MemoryAttentionTest, KeysThatAreAllAlikeAreKeptInOrder) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  for (const int top_k : {3, 100}) {
    const Shape s{1, 3, 1, 64, top_k, {20000, 300}, true, false};
    Data data = MakeData(s, true, 3);
    for (PartData& part : data.parts) std::fill(part.keys.begin(), part.keys.end(), 1.0f);
    const Result result = Compute(*device, s, data);
    ExpectBestKeys(s, data, result, true);
  }
}

TEST_P(MemoryAttentionTest, NothingThatMayBeSelectedIsNoAttention) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  Shape s{2, 6, 3, 64, 16, {500, 0}, true, false};
  Data data = MakeData(s, false, 1);
  data.parts[0].allowed.assign(8, 0);
  ExpectBestKeys(s, data, Compute(*device, s, data), false);
  s.n_tokens = {0};
  data = MakeData(s, false, 1);
  ExpectBestKeys(s, data, Compute(*device, s, data), false);
}

TEST_P(MemoryAttentionTest, NotANumberIsNeverKept) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Shape s{1, 3, 1, 64, 16, {1000}, true, false};
  Data data = MakeData(s, false, 1);
  for (const int64_t bad : {0, 31, 500, 999})
    data.parts[0].keys[static_cast<size_t>(bad * 64)] = NAN;
  const Result result = Compute(*device, s, data);
  for (const int64_t position : result.positions) {
    EXPECT_GE(position, 0);
    for (const int64_t bad : {0, 31, 500, 999}) EXPECT_NE(position, bad);
  }
  for (const float x : result.output) EXPECT_TRUE(std::isfinite(x));
}

TEST_P(MemoryAttentionTest, IsTheSameEveryTime) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  const Shape s{4, 9, 3, 64, 64, {30000}, true, false};
  const Data data = MakeData(s, false, 5);
  const Result first = Compute(*device, s, data);
  for (int i = 0; i < 3; ++i) {
    const Result again = Compute(*device, s, data);
    EXPECT_EQ(again.positions, first.positions);
    EXPECT_EQ(again.output, first.output);
    EXPECT_EQ(again.lse, first.lse);
  }
}

// Queries that share a read of the keys, of one question or of several, get what each alone gets,
// bit for bit; more of them than share one read, too.
TEST_P(MemoryAttentionTest, ManyQueriesAreAsOneByOne) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  uint32_t seed = 11;
  for (const bool in_bf16 : {false, true}) {
    for (const bool filtered : {false, true}) {
      for (const Shape& all : {Shape{23, 9, 3, 64, 16, {9001, 300}, in_bf16, filtered},
                               Shape{5, 9, 3, 64, 100, {5000}, in_bf16, filtered},
                               Shape{13, 4, 1, 128, 5, {3100, 31}, in_bf16, filtered},
                               Shape{17, 2, 2, 40, 16, {2000}, in_bf16, filtered},
                               Shape{9, 3, 1, 96, 16, {2000}, in_bf16, filtered},
                               Shape{12, 2, 2, 100, 16, {1500}, in_bf16, filtered},
                               Shape{11, 2, 1, 256, 16, {700}, in_bf16, filtered}}) {
        SCOPED_TRACE(ShapeName(all));
        const Data data = MakeData(all, false, seed += 100);
        const Result together = Compute(*device, all, data);
        ExpectBestKeys(all, data, together, false);
        Shape one = all;
        one.n_queries = 1;
        const auto d = static_cast<size_t>(all.n_heads * all.head_dim);
        for (int64_t q = 0; q < all.n_queries; ++q) {
          SCOPED_TRACE(StrCat("query ", q));
          const auto piece = [q](const auto& numbers, int64_t n) {
            return std::vector(numbers.begin() + q * n, numbers.begin() + (q + 1) * n);
          };
          Data alone = data;
          alone.queries = piece(data.queries, static_cast<int64_t>(d));
          const Result result = Compute(*device, one, alone);
          EXPECT_EQ(result.positions, piece(together.positions, all.n_heads * all.top_k));
          EXPECT_EQ(result.output, piece(together.output, static_cast<int64_t>(d)));
          EXPECT_EQ(result.lse, piece(together.lse, all.n_heads));
          // Of those that were kept: scores of others are nobody's.
          for (size_t i = 0; i < result.positions.size(); ++i) {
            if (result.positions[i] < 0) continue;
            ASSERT_EQ(result.scores[i],
                      together.scores[static_cast<size_t>(q) * result.scores.size() + i]);
          }
        }
      }
    }
  }
}

TEST_P(MemoryAttentionTest, NamesTheArgumentThatDoesNotFit) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer memory = ToDevice(*device, std::vector<float>(4000));
  auto* const floats = memory.data<float>();
  const MemoryPart part{.keys = {floats, {2, 5, 8}}, .values = {floats, {2, 5, 8}}};
  const MemoryAttentionArgs fitting{.queries = {floats, {1, 4, 8}},
                                    .parts = {&part, 1},
                                    .top_k = 3,
                                    .output = {floats + 1000, {1, 4, 8}},
                                    .lse = {floats + 2000, {1, 4}}};
  ASSERT_TRUE(MemoryAttention(*device, fitting).ok());
  const auto expect = [&](auto change, const std::string& text) {
    MemoryAttentionArgs args = fitting;
    MemoryPart changed = part;
    args.parts = {&changed, 1};
    change(args, changed);
    const absl::Status status = MemoryAttention(*device, args);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(text));
  };
  expect([](auto& a, auto&) { a.top_k = 0; }, "top_k 0");
  expect([](auto& a, auto&) { a.top_k = kMaxMemoryTopK + 1; }, "top_k 1025");
  expect([](auto& a, auto&) { a.parts = {}; }, "0 parts");
  expect([&](auto&, auto& p) { p.keys = {floats, {3, 5, 8}}; }, "[3,5,8]");
  expect([&](auto&, auto& p) { p.values = {floats, {2, 6, 8}}; }, "[2,5,8]");
  expect([&](auto&, auto& p) { p.keys = p.keys.WithStrides({80, 16, 1}); }, "16 elements apart");
  expect([&](auto& a, auto&) { a.lse = {floats, {4, 1}}; }, "lse");
}

INSTANTIATE_TEST_SUITE_P(Devices, MemoryAttentionTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
