// What the tests of all ops share: the devices they run on, reproducible inputs, and comparison
// with references in double precision.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "base/float16.h"
#include "compute/device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::compute {

inline constexpr double kEpsilon = std::numeric_limits<float>::epsilon();

inline std::vector<float> RandomFloats(size_t n, uint32_t seed, float deviation = 1.0f) {
  std::mt19937 generator(seed);
  std::normal_distribution<float> normal(0.0f, deviation);
  std::vector<float> values(n);
  for (float& value : values) value = normal(generator);
  return values;
}

// Fills `device`, or skips the test with the reason where this machine or build has none. A
// precision may follow: float32 where none does.
#define MAKE_DEVICE_OR_SKIP(device, ...)                                              \
  std::unique_ptr<Device> device;                                                     \
  {                                                                                   \
    absl::StatusOr<std::unique_ptr<Device>> made = Device::Create(__VA_ARGS__);       \
    if (absl::IsUnimplemented(made.status()) || absl::IsUnavailable(made.status())) { \
      GTEST_SKIP() << std::string(made.status().message());                           \
    }                                                                                 \
    ASSERT_TRUE(made.ok()) << made.status();                                          \
    device = *std::move(made);                                                        \
  }

// A buffer of `device` that holds `values`.
template <typename T>
Buffer ToDevice(Device& device, const std::vector<T>& values) {
  absl::StatusOr<Buffer> buffer = device.Allocate(values.size() * sizeof(T));
  EXPECT_TRUE(buffer.ok()) << buffer.status();
  EXPECT_TRUE(
      device.CopyFromHost(values.data(), values.size() * sizeof(T), buffer->data<void>()).ok());
  return *std::move(buffer);
}

inline Buffer ToDevice(Device& device, std::initializer_list<float> values) {
  return ToDevice(device, std::vector<float>(values));
}

inline std::vector<float> ToHost(Device& device, const Buffer& buffer, size_t n) {
  std::vector<float> values(n);
  EXPECT_TRUE(device.CopyToHost(buffer.data<void>(), n * sizeof(float), values.data()).ok());
  return values;
}

// `rounded` holds the numbers in bfloat16: to nearest even, or beside it where they were computed
// in another order.
inline void ExpectRounded(Device& device, const Buffer& rounded,
                          const std::vector<float>& numbers) {
  std::vector<BFloat16> got(numbers.size());
  ASSERT_TRUE(
      device.CopyToHost(rounded.data<void>(), got.size() * sizeof(BFloat16), got.data()).ok());
  size_t n_other = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const auto want = static_cast<float>(BFloat16(numbers[i]));
    if (static_cast<float>(got[i]) == want) continue;
    ++n_other;
    ASSERT_NEAR(static_cast<float>(got[i]), numbers[i], std::abs(numbers[i]) / 255.0) << i;
  }
  EXPECT_LE(n_other, device.kind() == DeviceKind::kCpu ? 0 : numbers.size() / 1000);
}

// |actual[i] − expected[i]| ≤ tolerance[i]; reports the worst.
inline void ExpectClose(const std::vector<float>& actual, const std::vector<double>& expected,
                        const std::vector<double>& tolerance, const std::string& what = "") {
  ASSERT_EQ(actual.size(), expected.size());
  ASSERT_EQ(actual.size(), tolerance.size());
  double worst = 0.0;
  size_t at = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double excess = std::abs(actual[i] - expected[i]) / tolerance[i];
    if (!(excess <= worst)) {  // also a NaN
      worst = excess;
      at = i;
      if (std::isnan(excess)) break;
    }
  }
  EXPECT_LE(worst, 1.0) << what << ": element " << at << " of " << actual.size() << " is "
                        << actual[at] << ", want " << expected[at] << " within " << tolerance[at];
}

}  // namespace fovea::compute
