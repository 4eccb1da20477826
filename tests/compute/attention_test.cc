#include "compute/attention.h"

#include <deque>
#include <tuple>

#include "compute/cpu/bf16_product.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

struct Shape {
  int64_t n_queries;
  int64_t n_keys;
  int64_t n_heads;
  int64_t n_kv_heads;
  int64_t head_dim;
  bool causal;
};

std::string ShapeName(const Shape& s) {
  return StrCat(s.n_queries, "x", s.n_keys, " heads ", s.n_heads, "/", s.n_kv_heads, " dim ",
                s.head_dim, s.causal ? " causal" : "");
}

struct Data {
  std::vector<float> queries, keys, values;
};

Data MakeData(const Shape& s, uint32_t seed = 1) {
  return {RandomFloats(static_cast<size_t>(s.n_queries * s.n_heads * s.head_dim), seed),
          RandomFloats(static_cast<size_t>(s.n_keys * s.n_kv_heads * s.head_dim), seed + 1),
          RandomFloats(static_cast<size_t>(s.n_keys * s.n_kv_heads * s.head_dim), seed + 2)};
}

struct Partial {
  std::vector<float> output, lse;
};

Partial Compute(Device& device, const Shape& s, const Data& data,
                const std::vector<int64_t>& sequence_begins = {}) {
  const Buffer queries = ToDevice(device, data.queries);
  const Buffer keys = ToDevice(device, data.keys);
  const Buffer values = ToDevice(device, data.values);
  const auto n_rows = static_cast<size_t>(s.n_queries * s.n_heads);
  const size_t n_out = n_rows * static_cast<size_t>(s.head_dim);
  // Outputs hold nonsense before.
  const Buffer output = ToDevice(device, std::vector<float>(n_out, NAN));
  const Buffer lse = ToDevice(device, std::vector<float>(n_rows, NAN));
  const absl::Status status =
      Attention(device, {.queries = {queries.data<float>(), {s.n_queries, s.n_heads, s.head_dim}},
                         .keys = {keys.data<float>(), {s.n_keys, s.n_kv_heads, s.head_dim}},
                         .values = {values.data<float>(), {s.n_keys, s.n_kv_heads, s.head_dim}},
                         .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
                         .causal = s.causal,
                         .sequence_begins = sequence_begins,
                         .output = {output.data<float>(), {s.n_queries, s.n_heads, s.head_dim}},
                         .lse = {lse.data<float>(), {s.n_queries, s.n_heads}}});
  EXPECT_TRUE(status.ok()) << status;
  return {ToHost(device, output, n_out), ToHost(device, lse, n_rows)};
}

// Softmax over all visible keys in double. A score errs by epsilon·sqrt(head_dim)·|score terms|;
// an error e of the scores changes a weight by the factor 1 ± e, the output by at most 2e times
// the largest value, and the lse by e.
void ExpectSoftmax(const Shape& s, const Data& data, const Partial& partial) {
  const int64_t group = s.n_heads / s.n_kv_heads;
  const double scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim));
  const auto n_rows = static_cast<size_t>(s.n_queries * s.n_heads);
  const auto dim = static_cast<size_t>(s.head_dim);
  std::vector<double> output(n_rows * dim), output_tolerance(n_rows * dim);
  for (int64_t q = 0; q < s.n_queries; ++q) {
    const int64_t n_visible = s.causal ? s.n_keys - s.n_queries + q + 1 : s.n_keys;
    for (int64_t h = 0; h < s.n_heads; ++h) {
      const auto row = static_cast<size_t>(q * s.n_heads + h);
      if (n_visible <= 0) {
        EXPECT_EQ(partial.lse[row], -std::numeric_limits<float>::infinity());
        for (size_t i = 0; i < dim; ++i) {
          EXPECT_EQ(partial.output[row * dim + i], 0.0f);
          output_tolerance[row * dim + i] = kEpsilon;
        }
        continue;
      }
      std::vector<double> scores(static_cast<size_t>(n_visible));
      double magnitude = 1.0;
      double maximum = -std::numeric_limits<double>::infinity();
      for (size_t k = 0; k < scores.size(); ++k) {
        const size_t key =
            (k * static_cast<size_t>(s.n_kv_heads) + static_cast<size_t>(h / group)) * dim;
        double score = 0.0;
        double terms = 0.0;
        for (size_t i = 0; i < dim; ++i) {
          const double term = scale * data.queries[row * dim + i] * data.keys[key + i];
          score += term;
          terms += std::abs(term);
        }
        scores[k] = score;
        magnitude = std::max(magnitude, terms);
        maximum = std::max(maximum, score);
      }
      double sum = 0.0;
      for (const double score : scores) sum += std::exp(score - maximum);
      double largest_value = 0.0;
      for (size_t k = 0; k < scores.size(); ++k) {
        const size_t value =
            (k * static_cast<size_t>(s.n_kv_heads) + static_cast<size_t>(h / group)) * dim;
        const double weight = std::exp(scores[k] - maximum) / sum;
        for (size_t i = 0; i < dim; ++i) {
          output[row * dim + i] += weight * data.values[value + i];
          largest_value = std::max<double>(largest_value, std::abs(data.values[value + i]));
        }
      }
      const double score_error = kEpsilon * std::sqrt(static_cast<double>(dim)) * magnitude;
      const double sum_error = kEpsilon * std::sqrt(static_cast<double>(n_visible));
      EXPECT_NEAR(partial.lse[row], maximum + std::log(sum),
                  score_error + sum_error + 2.0 * kEpsilon * std::abs(maximum + std::log(sum)) +
                      2.0 * kEpsilon);
      for (size_t i = 0; i < dim; ++i) {
        output_tolerance[row * dim + i] =
            largest_value * (2.0 * score_error + 2.0 * sum_error + 4.0 * kEpsilon);
      }
    }
  }
  ExpectClose(partial.output, output, output_tolerance, ShapeName(s));
}

class AttentionTest : public testing::TestWithParam<std::string> {};

TEST_P(AttentionTest, IsTheSoftmaxOverVisibleKeys) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  const std::vector<Shape> shapes = {
      {1, 1, 1, 1, 64, true},       {1, 300, 9, 3, 64, true},   {1, 1000, 3, 1, 128, false},
      {3, 500, 3, 3, 20, true},     {5, 5, 9, 3, 100, true},    {17, 17, 3, 1, 20, true},
      {70, 70, 9, 3, 64, true},     {200, 328, 9, 3, 64, true}, {65, 97, 1, 1, 128, true},
      {100, 193, 4, 2, 100, false}, {193, 193, 1, 1, 64, true}, {40, 96, 8, 1, 20, true},
      {16, 1000, 2, 1, 64, true},   {2, 900, 9, 3, 64, true},   {8, 400, 2, 2, 100, true},
      {4, 390, 2, 1, 20, false},    {13, 2, 3, 1, 64, false},
  };
  for (const Shape& s : shapes) {
    SCOPED_TRACE(ShapeName(s));
    const Data data = MakeData(s);
    ExpectSoftmax(s, data, Compute(*device, s, data));
  }
}

TEST_P(AttentionTest, QueriesWithoutKeysGetZeroAndMinusInfinity) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  // No keys at all; fewer keys than queries, so that the first queries come before all keys.
  for (const Shape& s :
       {Shape{3, 0, 3, 1, 64, true}, Shape{40, 0, 3, 1, 64, false}, Shape{5, 2, 3, 3, 20, true},
        Shape{12, 10, 4, 2, 20, true}, Shape{90, 30, 9, 3, 64, true}}) {
    SCOPED_TRACE(ShapeName(s));
    const Data data = MakeData(s);
    ExpectSoftmax(s, data, Compute(*device, s, data));
  }
}

TEST_P(AttentionTest, LargeScoresDoNotOverflow) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Shape s{20, 150, 3, 1, 64, false};
  Data data = MakeData(s);
  for (float& q : data.queries) q *= 100.0f;  // scores of some hundreds
  ExpectSoftmax(s, data, Compute(*device, s, data));
}

TEST_P(AttentionTest, ResultDoesNotDependOnTheNumberOfThreads) {
  for (const Shape& s : {Shape{1, 2000, 9, 3, 64, true}, Shape{12, 800, 9, 3, 64, true},
                         Shape{150, 300, 9, 3, 64, true}}) {
    const Data data = MakeData(s);
    Partial of_one_thread;
    for (const int n_threads : {1, 2, 5}) {
      MAKE_DEVICE_OR_SKIP(device, GetParam(), n_threads);
      const Partial partial = Compute(*device, s, data);
      if (n_threads == 1) of_one_thread = partial;
      EXPECT_EQ(partial.output, of_one_thread.output) << ShapeName(s) << ", " << n_threads;
      EXPECT_EQ(partial.lse, of_one_thread.lse) << ShapeName(s) << ", " << n_threads;
    }
  }
}

TEST_P(AttentionTest, MergedPartialsAreOneSoftmax) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  const Shape whole{30, 310, 6, 2, 64, false};
  const Data data = MakeData(whole);
  const auto n_rows = whole.n_queries * whole.n_heads;
  const auto output_shape = {whole.n_queries, whole.n_heads, whole.head_dim};
  const auto lse_shape = {whole.n_queries, whole.n_heads};
  // Cut unevenly, one part empty, merged in two orders.
  const std::vector<int64_t> cuts = {0, 7, 7, 110, 310};
  for (const bool reversed : {false, true}) {
    std::vector<Partial> parts;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      Shape s = whole;
      s.n_keys = cuts[i + 1] - cuts[i];
      Data part = data;
      const int64_t row = whole.n_kv_heads * whole.head_dim;
      part.keys.assign(data.keys.begin() + cuts[i] * row, data.keys.begin() + cuts[i + 1] * row);
      part.values.assign(data.values.begin() + cuts[i] * row,
                         data.values.begin() + cuts[i + 1] * row);
      parts.push_back(Compute(*device, s, part));
    }
    if (reversed) std::reverse(parts.begin(), parts.end());
    const Buffer output = ToDevice(*device, parts[0].output);
    const Buffer lse = ToDevice(*device, parts[0].lse);
    for (size_t i = 1; i < parts.size(); ++i) {
      const Buffer other_output = ToDevice(*device, parts[i].output);
      const Buffer other_lse = ToDevice(*device, parts[i].lse);
      const absl::Status status =
          MergePartials(*device, {.output = {output.data<float>(), output_shape},
                                  .lse = {lse.data<float>(), lse_shape},
                                  .other_output = {other_output.data<float>(), output_shape},
                                  .other_lse = {other_lse.data<float>(), lse_shape}});
      ASSERT_TRUE(status.ok()) << status;
    }
    ExpectSoftmax(whole, data,
                  {ToHost(*device, output, static_cast<size_t>(n_rows * whole.head_dim)),
                   ToHost(*device, lse, static_cast<size_t>(n_rows))});
  }
}

TEST_P(AttentionTest, MergingTwoEmptyPartialsIsEmpty) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const float minus_infinity = -std::numeric_limits<float>::infinity();
  const Buffer output = ToDevice(*device, {NAN, NAN, 1.0f, 2.0f, 5.0f, 6.0f});
  const Buffer lse = ToDevice(*device, {minus_infinity, 0.5f, minus_infinity});
  const Buffer other_output = ToDevice(*device, {NAN, NAN, NAN, NAN, 3.0f, 4.0f});
  const Buffer other_lse = ToDevice(*device, {minus_infinity, minus_infinity, 0.25f});
  const absl::Status status =
      MergePartials(*device, {.output = {output.data<float>(), {3, 1, 2}},
                              .lse = {lse.data<float>(), {3, 1}},
                              .other_output = {other_output.data<float>(), {3, 1, 2}},
                              .other_lse = {other_lse.data<float>(), {3, 1}}});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_THAT(ToHost(*device, output, 6), testing::ElementsAre(0, 0, 1, 2, 3, 4));
  EXPECT_THAT(ToHost(*device, lse, 3), testing::ElementsAre(minus_infinity, 0.5f, 0.25f));
}

// Rows of `values` as they lie with heads outermost, in bfloat16.
std::vector<BFloat16> HeadsOutermost(const std::vector<float>& values, const Shape& s) {
  std::vector<BFloat16> stored(values.size());
  for (int64_t t = 0; t < s.n_keys; ++t) {
    for (int64_t h = 0; h < s.n_kv_heads; ++h) {
      FloatToBFloat16(values.data() + (t * s.n_kv_heads + h) * s.head_dim,
                      stored.data() + (h * s.n_keys + t) * s.head_dim,
                      static_cast<size_t>(s.head_dim));
    }
  }
  return stored;
}

// Of keys and values in bfloat16 with heads outermost.
Partial ComputeStored(Device& device, const Shape& s, const Data& data) {
  const Buffer queries = ToDevice(device, data.queries);
  const Buffer keys = ToDevice(device, HeadsOutermost(data.keys, s));
  const Buffer values = ToDevice(device, HeadsOutermost(data.values, s));
  const auto n_rows = static_cast<size_t>(s.n_queries * s.n_heads);
  const size_t n_out = n_rows * static_cast<size_t>(s.head_dim);
  const Buffer output = ToDevice(device, std::vector<float>(n_out, NAN));
  const Buffer lse = ToDevice(device, std::vector<float>(n_rows, NAN));
  const auto view = [&](const Buffer& buffer) {
    return ConstView(buffer.data<BFloat16>(), {s.n_keys, s.n_kv_heads, s.head_dim})
        .WithStrides({s.head_dim, s.n_keys * s.head_dim, 1});
  };
  const auto query_shape = {s.n_queries, s.n_heads, s.head_dim};
  const absl::Status status =
      Attention(device, {.queries = {queries.data<float>(), query_shape},
                         .keys = view(keys),
                         .values = view(values),
                         .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
                         .causal = s.causal,
                         .output = {output.data<float>(), query_shape},
                         .lse = {lse.data<float>(), {s.n_queries, s.n_heads}}});
  EXPECT_TRUE(status.ok()) << status;
  return {ToHost(device, output, n_out), ToHost(device, lse, n_rows)};
}

TEST_P(AttentionTest, TakesStoredEntriesAsTheyLie) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  for (const Shape& s : {Shape{1, 1000, 9, 3, 64, false}, Shape{2, 50, 3, 1, 20, false},
                         Shape{40, 500, 9, 3, 64, false}, Shape{300, 333, 4, 2, 100, true},
                         Shape{3, 97, 6, 6, 33, true}, Shape{200, 1, 3, 3, 128, true},
                         // As many keys as a GPU streams.
                         Shape{1, 20001, 4, 4, 100, false}, Shape{1, 9000, 9, 3, 64, true},
                         Shape{3, 8209, 8, 2, 128, false}, Shape{1, 8193, 2, 2, 80, true}}) {
    SCOPED_TRACE(ShapeName(s));
    Data data = MakeData(s);
    const Partial stored = ComputeStored(*device, s, data);
    // What is stored, widened.
    for (float& key : data.keys) key = static_cast<float>(BFloat16(key));
    for (float& value : data.values) value = static_cast<float>(BFloat16(value));
    const Partial widened = Compute(*device, s, data);
    ExpectSoftmax(s, data, stored);
    // The same products in the same order, where whole vectors are all that there is.
    if (s.head_dim % 16 == 0 && device->kind() == DeviceKind::kCpu) {
      EXPECT_EQ(stored.output, widened.output);
      EXPECT_EQ(stored.lse, widened.lse);
    }
  }
}

TEST_P(AttentionTest, NamesTheArgumentThatDoesNotFit) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer memory = ToDevice(*device, std::vector<float>(1000));
  auto* const floats = memory.data<float>();
  auto* const halves = memory.data<BFloat16>();
  const AttentionArgs fitting{.queries = {floats, {2, 4, 8}},
                              .keys = {floats, {5, 2, 8}},
                              .values = {floats, {5, 2, 8}},
                              .output = {floats, {2, 4, 8}},
                              .lse = {floats, {2, 4}}};
  ASSERT_TRUE(Attention(*device, fitting).ok());
  const auto expect = [&](auto change, const std::vector<std::string>& parts) {
    AttentionArgs args = fitting;
    change(args);
    const absl::Status status = Attention(*device, args);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    for (const std::string& part : parts) {
      EXPECT_THAT(std::string(status.message()), testing::HasSubstr(part));
    }
  };
  expect(
      [&](AttentionArgs& a) {
        a.queries = {halves, {2, 4, 8}};
      },
      {"Attention: queries", "BF16", "F32"});
  expect(
      [&](AttentionArgs& a) {
        a.keys = {floats, {5, 2, 9}};
      },
      {"Attention: keys", "[5,2,9]", "[any,any,8]"});
  expect([&](AttentionArgs& a) { a.keys = {floats, {5, 3, 8}}; }, {"[2,4,8]", "[5,3,8]"});
  expect([&](AttentionArgs& a) { a.values = {halves, {5, 2, 8}}; }, {"values", "BF16", "F32"});
  expect(
      [&](AttentionArgs& a) {
        a.values = {floats, {4, 2, 8}};
      },
      {"values", "[4,2,8]", "[5,2,8]"});
  expect(
      [&](AttentionArgs& a) {
        a.keys = a.keys.WithStrides({32, 16, 2});
      },
      {"keys", "strides [32,16,2]"});
  expect(
      [&](AttentionArgs& a) {
        a.output = a.output.WithStrides({40, 8, 1});
      },
      {"output", "strides [40,8,1]", "no gaps"});
  expect([&](AttentionArgs& a) { a.output = View(); }, {"output", "[]", "[2,4,8]"});
  expect([&](AttentionArgs& a) { a.lse = {floats, {4, 2}}; }, {"lse", "[4,2]", "[2,4]"});
  expect([&](AttentionArgs& a) { a.keys = {DType::kF32, nullptr, {5, 2, 8}}; }, {"keys", "null"});
  const std::vector<int64_t> begins = {0, 2}, past_the_end = {0, 3}, downwards = {0, 2, 1, 2};
  expect([&](AttentionArgs& a) { a.sequence_begins = begins; }, {"2 queries and 5 keys"});
  for (const std::vector<int64_t>* wrong : {&past_the_end, &downwards}) {
    expect(
        [&](AttentionArgs& a) {
          a.keys = a.values = {floats, {2, 2, 8}};
          a.sequence_begins = *wrong;
        },
        {"Attention: sequences", "number of rows, 2"});
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, AttentionTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

// Of each sequence by itself.
Partial ComputeOneByOne(Device& device, const Shape& s, const Data& data,
                        const std::vector<int64_t>& begins) {
  Partial all;
  for (size_t i = 0; i + 1 < begins.size(); ++i) {
    Shape one = s;
    one.n_queries = one.n_keys = begins[i + 1] - begins[i];
    const auto rows = [&](const std::vector<float>& from, int64_t row) {
      return std::vector<float>(from.begin() + begins[i] * row, from.begin() + begins[i + 1] * row);
    };
    const Partial partial = Compute(
        device, one,
        {rows(data.queries, s.n_heads * s.head_dim), rows(data.keys, s.n_kv_heads * s.head_dim),
         rows(data.values, s.n_kv_heads * s.head_dim)});
    all.output.insert(all.output.end(), partial.output.begin(), partial.output.end());
    all.lse.insert(all.lse.end(), partial.lse.begin(), partial.lse.end());
  }
  return all;
}

TEST_P(AttentionTest, SequencesOfOneCallAreAsByThemselves) {
  std::vector<int64_t> many = {0};  // more than a kernel takes at once
  for (int64_t i = 0; i < 300; ++i) many.push_back(many.back() + 10 + i % 13);
  for (const std::string precision : {"float32", GetParam() == "cpu" ? "int8" : "bfloat16"}) {
    MAKE_DEVICE_OR_SKIP(device, GetParam(), 3, precision);
    for (const std::vector<int64_t>& begins :
         {std::vector<int64_t>{0, 50}, {0, 33, 33, 400, 405, 529, 530}, {0, 0, 128, 256}, many}) {
      for (Shape s : {Shape{0, 0, 9, 3, 64, true}, Shape{0, 0, 4, 2, 100, true},
                      Shape{0, 0, 3, 1, 20, false}}) {
        s.n_queries = s.n_keys = begins.back();
        SCOPED_TRACE(StrCat(ShapeName(s), ", ", begins.size() - 1, " sequences, ", precision));
        const Data data = MakeData(s);
        const Partial together = Compute(*device, s, data, begins);
        const Partial expected = ComputeOneByOne(*device, s, data, begins);
        // The same tiles, but where few queries by themselves go another way.
        double error = 0.0;
        for (size_t i = 0; i < expected.output.size(); ++i) {
          error = std::max(error, std::abs(double{together.output[i]} - expected.output[i]));
        }
        for (size_t i = 0; i < expected.lse.size(); ++i) {
          error = std::max(error, std::abs(double{together.lse[i]} - expected.lse[i]));
        }
        EXPECT_LE(error, device->kind() == DeviceKind::kCpu ? 0.0
                         : precision == "float32"           ? 2e-5
                                                            : 0.1);
      }
    }
  }
}

// As steps of several answers are, and a prompt among them: some see more keys than one part has.
TEST_P(AttentionTest, TogetherEachIsAsByItself) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  const std::vector<Shape> shapes = {{1, 5, 9, 3, 64, true},    {1, 1000, 9, 3, 64, true},
                                     {40, 200, 9, 3, 64, true}, {1, 0, 9, 3, 64, false},
                                     {0, 7, 9, 3, 64, false},   {2, 800, 4, 2, 20, false}};
  std::deque<Buffer> buffers;
  const auto upload = [&](const std::vector<float>& values) {
    return buffers.emplace_back(ToDevice(*device, values)).data<float>();
  };
  std::vector<AttentionArgs> attentions;
  std::vector<std::vector<float>> expected;
  for (const Shape& s : shapes) {
    const Data data = MakeData(s, static_cast<uint32_t>(s.n_keys + 1));
    expected.push_back(Compute(*device, s, data).output);
    const auto n_out = static_cast<size_t>(s.n_queries * s.n_heads * s.head_dim);
    attentions.push_back(
        {.queries = {upload(data.queries), {s.n_queries, s.n_heads, s.head_dim}},
         .keys = {upload(data.keys), {s.n_keys, s.n_kv_heads, s.head_dim}},
         .values = {upload(data.values), {s.n_keys, s.n_kv_heads, s.head_dim}},
         .scale = 1.0f / std::sqrt(static_cast<float>(s.head_dim)),
         .causal = s.causal,
         .output = {upload(std::vector<float>(n_out, NAN)), {s.n_queries, s.n_heads, s.head_dim}}});
  }
  ASSERT_TRUE(AttentionTogether(*device, attentions).ok());
  for (size_t i = 0; i < shapes.size(); ++i) {
    std::vector<float> got(expected[i].size());
    ASSERT_TRUE(
        device->CopyToHost(attentions[i].output.data(), got.size() * sizeof(float), got.data())
            .ok());
    EXPECT_EQ(got, expected[i]) << ShapeName(shapes[i]);
  }
}

// bfloat16 rounds each factor by up to 2⁻⁹; errors of sums of many such products average out.
void ExpectRoundedSoftmax(const Shape& s, const Data& data, const Partial& partial) {
  MAKE_DEVICE_OR_SKIP(exact, "cpu", 2, "float32");
  const Partial expected = Compute(*exact, s, data);
  ExpectSoftmax(s, data, expected);
  double error = 0.0, power = 0.0;
  for (size_t i = 0; i < partial.output.size(); ++i) {
    const double difference = static_cast<double>(partial.output[i]) - expected.output[i];
    error += difference * difference;
    power += static_cast<double>(expected.output[i]) * expected.output[i];
  }
  EXPECT_LT(std::sqrt(error / power), 0.01);  // also no NaN
  double lse_error = 0.0;
  for (size_t i = 0; i < partial.lse.size(); ++i) {
    if (std::isinf(expected.lse[i])) {
      EXPECT_EQ(partial.lse[i], expected.lse[i]);
      continue;
    }
    const double difference = std::abs(double{partial.lse[i]} - expected.lse[i]);
    if (!(difference <= lse_error)) lse_error = difference;
  }
  EXPECT_LT(lse_error, 0.02);
}

// Of heads of all widths.
void ExpectCloseOnTensorCores(Device& device, Device& exact, const std::vector<Shape>& shapes) {
  uint32_t seed = 100;
  for (const int64_t head_dim : {64, 80, 96, 100, 128, 20, 33}) {
    for (Shape s : shapes) {
      s.head_dim = head_dim;
      SCOPED_TRACE(ShapeName(s));
      const Data data = MakeData(s, ++seed);
      const Partial rounded = Compute(device, s, data);
      if (s.n_keys == 0) {
        ExpectSoftmax(s, data, rounded);
        continue;
      }
      ExpectRoundedSoftmax(s, data, rounded);
      if (s.n_keys > 1) {
        EXPECT_NE(rounded.output, Compute(exact, s, data).output) << "was not rounded";
      }
    }
  }
}

TEST(AttentionPrecisionTest, OnTensorCoresItIsCloseToFloat64) {
  MAKE_DEVICE_OR_SKIP(device, "cuda", 2, "bfloat16");
  MAKE_DEVICE_OR_SKIP(exact, "cuda", 2, "float32");
  ExpectCloseOnTensorCores(
      *device, *exact,
      {Shape{300, 300, 9, 3, 0, true}, Shape{1024, 1024, 3, 1, 0, true},
       Shape{65, 333, 4, 1, 0, true}, Shape{129, 1000, 6, 6, 0, true},
       Shape{40, 97, 6, 6, 0, false}, Shape{17, 1, 8, 2, 0, false}, Shape{90, 30, 9, 3, 0, true},
       Shape{5, 5, 9, 3, 0, true}, Shape{40, 0, 3, 1, 0, true}, Shape{127, 4097, 2, 1, 0, true}});
}

// Few enough for a tool that follows every access (compute-sanitizer --tool racecheck).
TEST(AttentionPrecisionTest, FewQueriesOnTensorCoresAreCloseToFloat64) {
  MAKE_DEVICE_OR_SKIP(device, "cuda", 2, "bfloat16");
  MAKE_DEVICE_OR_SKIP(exact, "cuda", 2, "float32");
  ExpectCloseOnTensorCores(*device, *exact,
                           {Shape{70, 150, 4, 1, 0, true}, Shape{17, 80, 2, 2, 0, false}});
}

TEST(AttentionPrecisionTest, TensorCoresTakeStoredEntriesAsTheyLie) {
  MAKE_DEVICE_OR_SKIP(device, "cuda", 2, "bfloat16");
  for (const Shape& s : {Shape{400, 500, 9, 3, 64, false}, Shape{300, 333, 4, 2, 100, true},
                         Shape{200, 201, 3, 3, 128, true}, Shape{150, 777, 6, 2, 80, true},
                         Shape{99, 160, 6, 6, 33, true}}) {
    SCOPED_TRACE(ShapeName(s));
    const Data data = MakeData(s);
    Data widened = data;
    for (float& key : widened.keys) key = static_cast<float>(BFloat16(key));
    for (float& value : widened.values) value = static_cast<float>(BFloat16(value));
    ExpectRoundedSoftmax(s, widened, ComputeStored(*device, s, data));
  }
}

TEST(AttentionPrecisionTest, LargeScoresDoNotOverflowOnTensorCores) {
  MAKE_DEVICE_OR_SKIP(device, "cuda", 1, "bfloat16");
  const Shape s{70, 150, 3, 1, 64, true};
  Data data = MakeData(s);
  for (float& q : data.queries) q *= 100.0f;  // scores of some hundreds, that err by some units
  const Partial partial = Compute(*device, s, data);
  for (const float x : partial.output) ASSERT_LE(std::abs(x), 6.0f);  // between the values
  for (const float x : partial.lse) ASSERT_LE(std::abs(x), 5000.0f);
}

TEST(AttentionPrecisionTest, BesideEightBitWeightsItIsCloseToFloat32) {
  MAKE_DEVICE_OR_SKIP(exact, "cpu", 1);
  for (const Shape& s : {Shape{300, 300, 9, 3, 64, true}, Shape{65, 333, 4, 1, 20, true},
                         Shape{40, 97, 6, 6, 100, false}, Shape{17, 1, 8, 2, 128, false}}) {
    SCOPED_TRACE(ShapeName(s));
    const Data data = MakeData(s);
    const Partial expected = Compute(*exact, s, data);
    Partial first;
    for (const int n_threads : {1, 3}) {
      const auto device = *Device::Create("cpu", n_threads, "int8");
      const Partial partial = Compute(*device, s, data);
      double error = 0.0, power = 0.0;
      for (size_t i = 0; i < partial.output.size(); ++i) {
        const double difference = static_cast<double>(partial.output[i]) - expected.output[i];
        error += difference * difference;
        power += static_cast<double>(expected.output[i]) * expected.output[i];
      }
      EXPECT_LT(std::sqrt(error / power), 0.01);
      for (size_t i = 0; i < partial.lse.size(); ++i) {
        EXPECT_NEAR(partial.lse[i], expected.lse[i], 0.02);
      }
      if (first.output.empty()) first = partial;
      EXPECT_EQ(partial.output, first.output) << n_threads << " threads";
    }
    if (cpu::HasBf16Product()) {
      EXPECT_NE(first.output, expected.output) << "was not rounded";
    }
  }
  const Shape odd{40, 97, 6, 6, 33, true};
  const Data data = MakeData(odd);
  const auto device = *Device::Create("cpu", 1, "int8");
  EXPECT_EQ(Compute(*device, odd, data).output, Compute(*exact, odd, data).output);
}

}  // namespace
}  // namespace fovea::compute
