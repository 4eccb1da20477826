#include "compute/kept_attention.h"

#include <deque>

#include "compute/coded_memory_attention.h"
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
  std::vector<bool> has_values;   // of each part, for the search whose values are gathered
  bool in_bf16;
  bool in_two_steps_by_codes = false;  // the search is CodedMemoryAttention, of keys
};

class KeptAttentionTest : public testing::TestWithParam<std::string> {};

// A memory, its search with all values, and the search without some of them that goes on with what
// is gathered on the host.
class Memory {
 public:
  Memory(Device& device, const Shape& shape, uint32_t seed) : device_(device), s_(shape) {
    queries_ = ToDevice(
        device, RandomFloats(static_cast<size_t>(s_.n_queries * s_.n_heads * s_.head_dim), seed));
    for (const int64_t n : s_.n_tokens) {
      const auto size = static_cast<size_t>(s_.n_kv_heads * n * s_.head_dim);
      parts_.push_back({.keys = Put(RandomFloats(size, ++seed), n), .values = {}});
      values_.push_back(RandomFloats(size, ++seed));
      parts_.back().values = Put(values_.back(), n);
    }
    const auto n_rows = static_cast<size_t>(s_.n_queries * s_.n_heads);
    output_ = ToDevice(device, std::vector<float>(NumOutputs(), NAN));
    lse_ = ToDevice(device, std::vector<float>(n_rows, NAN));
    scores_ = ToDevice(device, std::vector<float>(n_rows * TopK(), NAN));
    positions_ = ToDevice(device, std::vector<int64_t>(n_rows * TopK(), -7));
  }

  std::vector<float> AtOnce() {
    Search(parts_, output_view());
    return ToHost(device_, output_, NumOutputs());
  }
  std::vector<float> InTwoSteps() {
    std::vector<MemoryPart> parts = parts_;
    for (size_t p = 0; p < parts.size(); ++p) {
      if (!s_.has_values[p]) parts[p].values = {};
    }
    output_ = ToDevice(device_, std::vector<float>(NumOutputs(), NAN));
    Search(parts, View());
    const Buffer gathered = Gather();
    const absl::Status status =
        KeptAttention(device_, {.parts = parts,
                                .positions = positions_.data<int64_t>(),
                                .scores = scores_.data<float>(),
                                .top_k = s_.top_k,
                                .scale = 0.2f,
                                .gathered = {Type(),
                                             gathered.data<void>(),
                                             {s_.n_queries * s_.n_heads, s_.top_k, s_.head_dim}},
                                .output = output_view()});
    EXPECT_TRUE(status.ok()) << status;
    return ToHost(device_, output_, NumOutputs());
  }

 private:
  DType Type() const { return s_.in_bf16 ? DType::kBF16 : DType::kF32; }
  size_t TopK() const { return static_cast<size_t>(s_.top_k); }
  size_t NumOutputs() const { return static_cast<size_t>(s_.n_queries * s_.n_heads * s_.head_dim); }
  View output_view() { return {output_.data<float>(), {s_.n_queries, s_.n_heads, s_.head_dim}}; }
  Buffer Stored(const std::vector<float>& numbers) {
    if (!s_.in_bf16) return ToDevice(device_, numbers);
    std::vector<BFloat16> rounded(numbers.size());
    FloatToBFloat16(numbers.data(), rounded.data(), rounded.size());
    return ToDevice(device_, rounded);
  }
  ConstView Put(const std::vector<float>& numbers, int64_t n) {
    buffers_.push_back(Stored(numbers));
    return {Type(), buffers_.back().data<void>(), {s_.n_kv_heads, n, s_.head_dim}};
  }
  void Search(std::span<const MemoryPart> parts, const View& output) {
    const ConstView queries(queries_.data<float>(), {s_.n_queries, s_.n_heads, s_.head_dim});
    const View lse(lse_.data<float>(), {s_.n_queries, s_.n_heads});
    std::vector<CodedMemoryPart> coded;
    for (const MemoryPart& part : parts) coded.push_back({.entries = part, .codes = {}});
    const absl::Status status =
        s_.in_two_steps_by_codes
            ? CodedMemoryAttention(device_, {.queries = queries,
                                             .parts = coded,
                                             .n_candidates = 64,
                                             .top_k = s_.top_k,
                                             .scale = 0.2f,
                                             .output = output,
                                             .lse = lse,
                                             .positions = positions_.data<int64_t>(),
                                             .scores = scores_.data<float>()})
            : MemoryAttention(device_, {.queries = queries,
                                        .parts = parts,
                                        .top_k = s_.top_k,
                                        .scale = 0.2f,
                                        .output = output,
                                        .lse = lse,
                                        .positions = positions_.data<int64_t>(),
                                        .scores = scores_.data<float>()});
    EXPECT_TRUE(status.ok()) << status;
  }
  // Nonsense wherever no value was asked for.
  Buffer Gather() {
    const auto d = static_cast<size_t>(s_.head_dim);
    const size_t n_kept = static_cast<size_t>(s_.n_queries * s_.n_heads) * TopK();
    std::vector<int64_t> positions(n_kept);
    EXPECT_TRUE(
        device_.CopyToHost(positions_.data<void>(), n_kept * sizeof(int64_t), positions.data())
            .ok());
    std::vector<float> gathered(n_kept * d, NAN);
    for (size_t i = 0; i < n_kept; ++i) {
      if (positions[i] < 0) continue;
      const auto head = static_cast<int64_t>(i / TopK()) % s_.n_heads;
      const int64_t kv_head = head / (s_.n_heads / s_.n_kv_heads);
      int64_t token = positions[i];
      size_t p = 0;
      while (token >= s_.n_tokens[p]) token -= s_.n_tokens[p++];
      if (s_.has_values[p]) continue;
      const size_t at = static_cast<size_t>(kv_head * s_.n_tokens[p] + token) * d;
      std::copy_n(values_[p].begin() + static_cast<ptrdiff_t>(at), d,
                  gathered.begin() + static_cast<ptrdiff_t>(i * d));
    }
    return Stored(gathered);
  }

  Device& device_;
  const Shape s_;
  std::deque<Buffer> buffers_;
  std::vector<MemoryPart> parts_;
  std::vector<std::vector<float>> values_;
  Buffer queries_, output_, lse_, scores_, positions_;
};

TEST_P(KeptAttentionTest, WhatIsGatheredGivesTheBitsOfASearchThatReadsItItself) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  uint32_t seed = 1;
  for (const bool in_bf16 : {false, true}) {
    for (const bool by_codes : {false, true}) {
      for (Shape s : {Shape{1, 9, 3, 64, 16, {3000}, {false}, in_bf16},
                      Shape{3, 6, 2, 64, 40, {700, 300}, {false, true}, in_bf16},
                      Shape{2, 4, 4, 128, 7, {300, 0, 31}, {true, false, false}, in_bf16},
                      Shape{1, 3, 1, 100, 600, {500, 90}, {false, false}, in_bf16},
                      Shape{5, 2, 1, 33, 5, {3}, {false}, in_bf16},
                      Shape{1, 2, 1, 256, 3, {200, 60}, {true, true}, in_bf16}}) {
        s.in_two_steps_by_codes = by_codes;
        SCOPED_TRACE(StrCat(s.n_queries, " x ", s.n_heads, " x ", s.head_dim, ", top ", s.top_k,
                            in_bf16 ? ", bfloat16" : "", by_codes ? ", by codes" : ""));
        Memory memory(*device, s, seed += 100);
        const std::vector<float> want = memory.AtOnce();
        for (const float x : want) ASSERT_TRUE(std::isfinite(x));
        EXPECT_EQ(memory.InTwoSteps(), want);
      }
    }
  }
}

TEST_P(KeptAttentionTest, WhatKeptNothingGetsNothing) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const std::vector<int64_t> none(8, -1);
  const Buffer positions = ToDevice(*device, none);
  const Buffer numbers = ToDevice(*device, std::vector<float>(400, NAN));
  auto* const floats = numbers.data<float>();
  const MemoryPart part{.keys = {floats, {1, 5, 8}}, .values = {}};
  ASSERT_TRUE(KeptAttention(*device, {.parts = {&part, 1},
                                      .positions = positions.data<int64_t>(),
                                      .scores = floats,
                                      .top_k = 4,
                                      .gathered = {floats, {2, 4, 8}},
                                      .output = {floats + 100, {1, 2, 8}}})
                  .ok());
  const std::vector<float> all = ToHost(*device, numbers, 400);
  EXPECT_EQ(std::vector<float>(all.begin() + 100, all.begin() + 116), std::vector<float>(16));
}

TEST_P(KeptAttentionTest, NamesTheArgumentThatDoesNotFit) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer memory = ToDevice(*device, std::vector<float>(4000));
  const Buffer kept = ToDevice(*device, std::vector<int64_t>(12));
  auto* const floats = memory.data<float>();
  const MemoryPart part{.keys = {floats, {2, 5, 8}}, .values = {}};
  const KeptAttentionArgs fitting{.parts = {&part, 1},
                                  .positions = kept.data<int64_t>(),
                                  .scores = floats,
                                  .top_k = 3,
                                  .gathered = {floats, {4, 3, 8}},
                                  .output = {floats + 1000, {1, 4, 8}}};
  ASSERT_TRUE(KeptAttention(*device, fitting).ok());
  const auto expect = [&](auto change, const std::string& text) {
    KeptAttentionArgs args = fitting;
    change(args);
    const absl::Status status = KeptAttention(*device, args);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(text));
  };
  expect([](auto& a) { a.top_k = 0; }, "top_k 0");
  expect([](auto& a) { a.parts = {}; }, "0 parts");
  expect([](auto& a) { a.gathered = {}; }, "gathered values has the shape [], want [4,3,8]");
  expect([](auto& a) { a.scores = nullptr; }, "positions or scores");
  // A search that gives no output gives what was kept.
  const MemoryAttentionArgs search{.queries = {floats, {1, 4, 8}},
                                   .parts = {&part, 1},
                                   .top_k = 3,
                                   .output = {},
                                   .lse = {floats + 2000, {1, 4}}};
  EXPECT_THAT(std::string(MemoryAttention(*device, search).message()),
              testing::HasSubstr("output has the shape []"));
}

INSTANTIATE_TEST_SUITE_P(Devices, KeptAttentionTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
