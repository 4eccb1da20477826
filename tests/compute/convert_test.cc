#include "compute/convert.h"

#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class ConvertTest : public testing::TestWithParam<std::string> {};

// Some of the heads of each token, out of and into rows that are longer.
TEST_P(ConvertTest, RoundsScalesAndLaysOut) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  constexpr int64_t kTokens = 700, kHeads = 3, kDim = 20, kFromRow = 77, kToRow = 90;
  const std::vector<float> numbers = RandomFloats(kTokens * kFromRow, 1);
  const std::vector<float> factors = {0.5f, 3.0f, -1.7f};
  const Buffer from = ToDevice(*device, numbers);
  const Buffer factor_buffer = ToDevice(*device, factors);
  for (const bool is_scaled : {false, true}) {
    for (const bool is_half : {false, true}) {
      const Buffer to = ToDevice(*device, std::vector<float>(kTokens * kToRow, 7.0f));
      const View out = is_half ? View(to.data<BFloat16>(), {kTokens, kHeads, kDim})
                               : View(to.data<float>(), {kTokens, kHeads, kDim});
      const absl::Status status = Convert(
          *device,
          {.from = ConstView(from.data<float>(), {kTokens, kHeads, kDim})
                       .WithStrides({kFromRow, kDim + 1, 1}),
           .factors = is_scaled ? ConstView(factor_buffer.data<float>(), {kHeads}) : ConstView(),
           .to = out.WithStrides({kToRow, kDim + 5, 1})});
      ASSERT_TRUE(status.ok()) << status;
      std::vector<float> got(kTokens * kToRow);
      std::vector<BFloat16> got_half(kTokens * kToRow);
      ASSERT_TRUE(device->CopyToHost(to.data<void>(), got.size() * sizeof(float), got.data()).ok());
      ASSERT_TRUE(
          device->CopyToHost(to.data<void>(), got_half.size() * sizeof(BFloat16), got_half.data())
              .ok());
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t h = 0; h < kHeads; ++h) {
          for (int64_t i = 0; i < kDim; ++i) {
            const float scale = is_scaled ? factors[static_cast<size_t>(h)] : 1.0f;
            const float want =
                numbers[static_cast<size_t>(t * kFromRow + h * (kDim + 1) + i)] * scale;
            const auto at = static_cast<size_t>(t * kToRow + h * (kDim + 5) + i);
            if (is_half) {
              ASSERT_EQ(got_half[at].bits, BFloat16(want).bits);
            } else {
              ASSERT_EQ(got[at], want);
            }
          }
        }
      }
      // What lies between is left alone.
      if (!is_half) {
        EXPECT_EQ(got[kDim], 7.0f);
      }
    }
  }
}

TEST_P(ConvertTest, WidensExactly) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  constexpr int64_t kTokens = 3000, kHeads = 3, kDim = 16;
  std::vector<BFloat16> halves;
  for (const float number : RandomFloats(kTokens * kHeads * kDim, 2)) halves.emplace_back(number);
  const Buffer from = ToDevice(*device, halves);
  const Buffer to = ToDevice(*device, std::vector<float>(halves.size()));
  ASSERT_TRUE(Convert(*device, {.from = {from.data<BFloat16>(), {kTokens, kHeads, kDim}},
                                .to = {to.data<float>(), {kTokens, kHeads, kDim}}})
                  .ok());
  const std::vector<float> got = ToHost(*device, to, halves.size());
  for (size_t i = 0; i < halves.size(); ++i) ASSERT_EQ(got[i], static_cast<float>(halves[i]));
}

TEST_P(ConvertTest, TakesTheTokensThatAreNamed) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  constexpr int64_t kTokens = 500, kHeads = 3, kDim = 20, kRow = kHeads * kDim;
  const std::vector<float> numbers = RandomFloats(kTokens * kRow, 3);
  const Buffer from = ToDevice(*device, numbers);
  for (const int64_t n_taken : {1, 4, 255, 256, 600}) {
    std::vector<int64_t> tokens;
    for (int64_t i = 0; i < n_taken; ++i) tokens.push_back((i * 37 + 11) % kTokens);
    const Buffer to = ToDevice(*device, std::vector<float>(static_cast<size_t>(n_taken * kRow)));
    const absl::Status status =
        Convert(*device, {.from = {from.data<float>(), {kTokens, kHeads, kDim}},
                          .tokens = tokens,
                          .to = {to.data<float>(), {n_taken, kHeads, kDim}}});
    ASSERT_TRUE(status.ok()) << status;
    std::vector<float> expected;
    for (const int64_t token : tokens) {
      expected.insert(expected.end(), numbers.begin() + token * kRow,
                      numbers.begin() + (token + 1) * kRow);
    }
    EXPECT_EQ(ToHost(*device, to, expected.size()), expected);
  }
  const std::vector<int64_t> beyond = {0, kTokens};
  const Buffer to = ToDevice(*device, std::vector<float>(2 * kRow));
  const absl::Status status =
      Convert(*device, {.from = {from.data<float>(), {kTokens, kHeads, kDim}},
                        .tokens = beyond,
                        .to = {to.data<float>(), {2, kHeads, kDim}}});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("token 500"));
}

INSTANTIATE_TEST_SUITE_P(Devices, ConvertTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
