#include "compute/rope.h"

#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class RopeTest : public testing::TestWithParam<std::string> {};

TEST_P(RopeTest, AgreesWithDoublePrecision) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 3);
  for (const int64_t head_dim : {2, 20, 64, 100, 128}) {
    const std::vector<float> frequencies = RopeInverseFrequencies(head_dim, 10000.0f, {});
    // The second run of a device differs from the first in one thing at a time, which a cached
    // table must notice.
    for (const auto& [first_position, n_tokens] :
         std::vector<std::pair<int64_t, int64_t>>{{0, 5}, {7, 5}, {7, 90}, {7, 3}, {2000, 1}}) {
      const int64_t n_heads = 3;
      const std::vector<float> x =
          RandomFloats(static_cast<size_t>(n_tokens * n_heads * head_dim), 1);
      std::vector<double> expected(x.size()), tolerance(x.size());
      for (int64_t t = 0; t < n_tokens; ++t) {
        for (int64_t h = 0; h < n_heads; ++h) {
          for (int64_t i = 0; i < head_dim / 2; ++i) {
            const auto a = static_cast<size_t>((t * n_heads + h) * head_dim + i);
            const size_t b = a + static_cast<size_t>(head_dim / 2);
            const double position = static_cast<double>(first_position + t);
            const double angle = position * frequencies[static_cast<size_t>(i)];
            expected[a] = x[a] * std::cos(angle) - x[b] * std::sin(angle);
            expected[b] = x[b] * std::cos(angle) + x[a] * std::sin(angle);
            // The angle is rounded to float; an error of it moves the vector by as much.
            const double length = std::hypot(x[a], x[b]);
            tolerance[a] = tolerance[b] = kEpsilon * length * (std::abs(angle) + 3.0);
          }
        }
      }
      const Buffer buffer = ToDevice(*device, x);
      const Buffer frequency_buffer = ToDevice(*device, frequencies);
      const absl::Status status =
          Rope(*device, {.x = {buffer.data<float>(), {n_tokens, n_heads, head_dim}},
                         .inverse_frequencies = {frequency_buffer.data<float>(), {head_dim / 2}},
                         .first_position = first_position});
      ASSERT_TRUE(status.ok()) << status;
      ExpectClose(ToHost(*device, buffer, x.size()), expected, tolerance,
                  StrCat("dim ", head_dim, " tokens ", n_tokens, " at ", first_position));
    }
  }
}

TEST_P(RopeTest, ScoresDependOnDistanceAlone) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const int64_t head_dim = 64;
  const Buffer frequencies = ToDevice(*device, RopeInverseFrequencies(head_dim, 10000.0f, {}));
  const std::vector<float> query = RandomFloats(64, 1);
  const std::vector<float> key = RandomFloats(64, 2);
  const auto score = [&](int64_t query_position, int64_t key_position) {
    double sum = 0.0;
    const Buffer q = ToDevice(*device, query);
    const Buffer k = ToDevice(*device, key);
    for (const auto& [buffer, position] : {std::pair(&q, query_position), {&k, key_position}}) {
      EXPECT_TRUE(Rope(*device, {.x = {buffer->data<float>(), {1, 1, head_dim}},
                                 .inverse_frequencies = {frequencies.data<float>(), {head_dim / 2}},
                                 .first_position = position})
                      .ok());
    }
    const std::vector<float> q_rotated = ToHost(*device, q, 64);
    const std::vector<float> k_rotated = ToHost(*device, k, 64);
    for (size_t i = 0; i < 64; ++i) sum += static_cast<double>(q_rotated[i]) * k_rotated[i];
    return sum;
  };
  // Angles up to 500 are rounded by 500·epsilon, 64 products of size about one each.
  EXPECT_NEAR(score(15, 4), score(500, 489), 500 * kEpsilon * 64);
  EXPECT_GT(std::abs(score(15, 4) - score(15, 8)), 0.1);
}

TEST_P(RopeTest, PositionsBeginAnewWithEachSequence) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 3);
  constexpr int64_t kHeads = 3, kDim = 20;
  const Buffer frequencies = ToDevice(*device, RopeInverseFrequencies(kDim, 10000.0f, {}));
  const auto rotate = [&](const std::vector<float>& x, std::span<const int64_t> begins) {
    const auto n_tokens = static_cast<int64_t>(x.size()) / (kHeads * kDim);
    const Buffer buffer = ToDevice(*device, x);
    const absl::Status status =
        Rope(*device, {.x = {buffer.data<float>(), {n_tokens, kHeads, kDim}},
                       .inverse_frequencies = {frequencies.data<float>(), {kDim / 2}},
                       .first_position = 5,
                       .sequence_begins = begins});
    EXPECT_TRUE(status.ok()) << status;
    return ToHost(*device, buffer, x.size());
  };
  std::vector<int64_t> many = {0};  // more than a kernel takes at once
  for (int64_t i = 0; i < 300; ++i) many.push_back(many.back() + i % 7);
  for (const std::vector<int64_t>& begins : {std::vector<int64_t>{0, 9}, {0, 3, 3, 40, 41}, many}) {
    const std::vector<float> x =
        RandomFloats(static_cast<size_t>(begins.back() * kHeads * kDim), 4);
    std::vector<float> expected;
    for (size_t i = 0; i + 1 < begins.size(); ++i) {
      const std::vector<float> one = rotate(
          {x.begin() + begins[i] * kHeads * kDim, x.begin() + begins[i + 1] * kHeads * kDim}, {});
      expected.insert(expected.end(), one.begin(), one.end());
    }
    EXPECT_EQ(rotate(x, begins), expected);
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, RopeTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

TEST(RopeInverseFrequenciesTest, ArePowersOfTheta) {
  const std::vector<float> frequencies = RopeInverseFrequencies(8, 10000.0f, {});
  EXPECT_THAT(frequencies, testing::Pointwise(testing::FloatEq(),
                                              std::vector<float>{1.0f, 0.1f, 0.01f, 0.001f}));
}

TEST(RopeInverseFrequenciesTest, LinearScalingDividesThem) {
  const std::vector<float> frequencies =
      RopeInverseFrequencies(8, 10000.0f, {.linear_factor = 4.0f});
  EXPECT_THAT(
      frequencies,
      testing::Pointwise(testing::FloatEq(), std::vector<float>{0.25f, 0.025f, 0.0025f, 0.00025f}));
}

TEST(RopeInverseFrequenciesTest, Llama3ScalingKeepsShortWavesAndStretchesLongOnes) {
  // Llama 3.2 1B.
  const RopeScaling scaling{.llama3_factor = 32.0f,
                            .low_freq_factor = 1.0f,
                            .high_freq_factor = 4.0f,
                            .original_max_position_embeddings = 8192};
  const std::vector<float> plain = RopeInverseFrequencies(64, 500000.0f, {});
  const std::vector<float> scaled = RopeInverseFrequencies(64, 500000.0f, scaling);
  int n_kept = 0;
  int n_blended = 0;
  int n_stretched = 0;
  for (size_t i = 0; i < plain.size(); ++i) {
    const double wavelength = 2.0 * M_PI / plain[i];
    if (wavelength < 8192.0 / 4.0) {
      ++n_kept;
      EXPECT_EQ(scaled[i], plain[i]);
    } else if (wavelength > 8192.0) {
      ++n_stretched;
      EXPECT_FLOAT_EQ(scaled[i], plain[i] / 32.0f);
    } else {
      ++n_blended;
      const double smooth = (8192.0 / wavelength - 1.0) / 3.0;
      EXPECT_NEAR(scaled[i], (1.0 - smooth) * plain[i] / 32.0 + smooth * plain[i],
                  16 * kEpsilon * plain[i]);
    }
  }
  EXPECT_GT(n_kept, 0);
  EXPECT_GT(n_blended, 0);
  EXPECT_GT(n_stretched, 0);
}

}  // namespace
}  // namespace fovea::compute
