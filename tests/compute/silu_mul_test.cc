#include "compute/silu_mul.h"

#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

class SiluMulTest : public testing::TestWithParam<std::string> {};

TEST_P(SiluMulTest, AgreesWithDoublePrecision) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 3);
  for (const int64_t n : {1, 7, 64, 1000, 50001}) {
    std::vector<float> gate = RandomFloats(static_cast<size_t>(n), 1, 5.0f);
    const std::vector<float> up = RandomFloats(static_cast<size_t>(n), 2);
    // Where the exponential over- and underflows.
    const std::vector<float> extremes = {-1000.0f, -105.0f, -88.5f, -30.0f, 0.0f, 88.5f, 1000.0f};
    std::copy_n(extremes.begin(), std::min(extremes.size(), gate.size()), gate.begin());
    std::vector<double> expected(gate.size()), tolerance(gate.size());
    for (size_t i = 0; i < gate.size(); ++i) {
      expected[i] = gate[i] / (1.0 + std::exp(-static_cast<double>(gate[i]))) * up[i];
      // A rounding each for the exponential (of an argument with its own), sum, quotient and
      // product. The constant is for values below the smallest normal float.
      tolerance[i] = 8.0 * kEpsilon * std::abs(expected[i]) + 1e-34;
    }
    const Buffer gate_buffer = ToDevice(*device, gate);
    const Buffer up_buffer = ToDevice(*device, up);
    const absl::Status status = SiluMul(*device, {.gate = {gate_buffer.data<float>(), {1, n}},
                                                  .up = {up_buffer.data<float>(), {1, n}},
                                                  .out = {gate_buffer.data<float>(), {1, n}}});
    ASSERT_TRUE(status.ok()) << status;
    ExpectClose(ToHost(*device, gate_buffer, gate.size()), expected, tolerance, StrCat("n ", n));
  }
}

TEST_P(SiluMulTest, AValueDoesNotDependOnWhereItLies) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  const std::vector<float> gate(1009, 1.2345f);
  const Buffer gate_buffer = ToDevice(*device, gate);
  const Buffer out = ToDevice(*device, gate);
  ASSERT_TRUE(SiluMul(*device, {.gate = {gate_buffer.data<float>(), {1, 1009}},
                                .up = {gate_buffer.data<float>(), {1, 1009}},
                                .out = {out.data<float>(), {1, 1009}}})
                  .ok());
  EXPECT_THAT(ToHost(*device, out, 1009), testing::Each(ToHost(*device, out, 1)[0]));
}

TEST_P(SiluMulTest, RoundsToNearestEven) {
  MAKE_DEVICE_OR_SKIP(device, GetParam(), 2);
  for (const int64_t n : {1, 1009, 6400}) {
    const auto size = static_cast<size_t>(n);
    const Buffer gate = ToDevice(*device, RandomFloats(size, 3, 3.0f));
    const Buffer up = ToDevice(*device, RandomFloats(size, 4));
    const Buffer out = ToDevice(*device, std::vector<float>(size));
    const Buffer rounded = ToDevice(*device, std::vector<BFloat16>(size));
    for (const View& to :
         {View(out.data<float>(), {1, n}), View(rounded.data<BFloat16>(), {1, n})}) {
      const absl::Status status = SiluMul(
          *device,
          {.gate = {gate.data<float>(), {1, n}}, .up = {up.data<float>(), {1, n}}, .out = to});
      ASSERT_TRUE(status.ok()) << status;
    }
    ExpectRounded(*device, rounded, ToHost(*device, out, size));
  }
}

INSTANTIATE_TEST_SUITE_P(Devices, SiluMulTest, testing::Values("cpu", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::compute
