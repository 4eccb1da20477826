#include "compute/rms_norm.h"

#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class RmsNormTest : public testing::TestWithParam<std::string> {};

TEST_P(RmsNormTest, AgreesWithDoublePrecision) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 3);
  for (const int64_t hidden_size : {1, 20, 33, 576, 4099}) {
    for (const int64_t n_tokens : {1, 3, 100}) {
      const auto n = static_cast<size_t>(hidden_size);
      const std::vector<float> x = RandomFloats(static_cast<size_t>(n_tokens) * n, 1, 3.0f);
      const std::vector<float> weight = RandomFloats(n, 2);
      const float eps = 1e-5f;
      std::vector<double> expected(x.size()), tolerance(x.size());
      for (size_t t = 0; t < static_cast<size_t>(n_tokens); ++t) {
        double sum = 0.0;
        for (size_t i = 0; i < n; ++i) sum += static_cast<double>(x[t * n + i]) * x[t * n + i];
        const double factor = 1.0 / std::sqrt(sum / static_cast<double>(n) + eps);
        for (size_t i = 0; i < n; ++i) {
          expected[t * n + i] = x[t * n + i] * factor * weight[i];
          // A sum of n positive terms errs by sqrt(n) roundings at most, halved by the root;
          // some more for root, division and products.
          tolerance[t * n + i] = kEpsilon * (std::sqrt(static_cast<double>(n)) / 2.0 + 4.0) *
                                     std::abs(expected[t * n + i]) +
                                 1e-30;
        }
      }
      const Buffer x_buffer = ToDevice(*device, x);
      const Buffer weight_buffer = ToDevice(*device, weight);
      const Buffer out = ToDevice(*device, x);
      for (const bool in_place : {false, true}) {
        float* target = in_place ? x_buffer.data<float>() : out.data<float>();
        const absl::Status status =
            RmsNorm(*device, {.x = {x_buffer.data<float>(), {n_tokens, hidden_size}},
                              .weight = {weight_buffer.data<float>(), {hidden_size}},
                              .out = {target, {n_tokens, hidden_size}},
                              .eps = eps});
        ASSERT_TRUE(status.ok()) << status;
        ExpectClose(ToHost(*device, in_place ? x_buffer : out, x.size()), expected, tolerance,
                    StrCat(n_tokens, "x", hidden_size, in_place ? " in place" : ""));
      }
    }
  }
}

TEST_P(RmsNormTest, RoundsToNearestEven) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  for (const int64_t n_tokens : {1, 50, 1100}) {  // 1,100: more than a GPU computes in one way
    constexpr int64_t kHidden = 75;
    const auto n = static_cast<size_t>(n_tokens * kHidden);
    const Buffer x = ToDevice(*device, RandomFloats(n, 3));
    const Buffer weight = ToDevice(*device, RandomFloats(kHidden, 4));
    const Buffer out = ToDevice(*device, std::vector<float>(n));
    const Buffer rounded = ToDevice(*device, std::vector<BFloat16>(n));
    for (const View& to : {View(out.data<float>(), {n_tokens, kHidden}),
                           View(rounded.data<BFloat16>(), {n_tokens, kHidden})}) {
      const absl::Status status = RmsNorm(*device, {.x = {x.data<float>(), {n_tokens, kHidden}},
                                                    .weight = {weight.data<float>(), {kHidden}},
                                                    .out = to});
      ASSERT_TRUE(status.ok()) << status;
    }
    ExpectRounded(*device, rounded, ToHost(*device, out, n));
  }
}

TEST_P(RmsNormTest, ARowOfZerosStaysZero) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 1);
  const Buffer x = ToDevice(*device, std::vector<float>(40, 0.0f));
  const Buffer weight = ToDevice(*device, std::vector<float>(40, 2.0f));
  const absl::Status status = RmsNorm(*device, {.x = {x.data<float>(), {1, 40}},
                                                .weight = {weight.data<float>(), {40}},
                                                .out = {x.data<float>(), {1, 40}}});
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(ToHost(*device, x, 40), std::vector<float>(40, 0.0f));
}

INSTANTIATE_TEST_SUITE_P(Devices, RmsNormTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
