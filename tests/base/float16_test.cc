#include "base/float16.h"

#include <cmath>
#include <limits>
#include <vector>

#include "gtest/gtest.h"

namespace fovea {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// What the standard says a half is, in double.
double HalfValue(uint16_t half) {
  const int exponent = half >> 10 & 31;
  const int mantissa = half & 1023;
  const double sign = half & 0x8000 ? -1.0 : 1.0;
  if (exponent == 31) return mantissa == 0 ? sign * kInfinity : NAN;
  if (exponent == 0) return sign * std::ldexp(mantissa, -24);
  return sign * std::ldexp(1024 + mantissa, exponent - 25);
}

TEST(HalfTest, All65536BecomeTheirExactFloat) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const double expected = HalfValue(half);
    const float actual = HalfToFloat(half);
    if (std::isnan(expected)) {
      ASSERT_TRUE(std::isnan(actual)) << bits;
    } else {
      ASSERT_EQ(actual, expected) << bits;
      ASSERT_EQ(std::signbit(actual), std::signbit(expected)) << bits;
    }
  }
}

TEST(HalfTest, All65536ComeBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto half = static_cast<uint16_t>(bits);
    const float value = HalfToFloat(half);
    if (std::isnan(value)) {
      ASSERT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value)))) << bits;
      ASSERT_EQ(FloatToHalf(value) & 0x8000, half & 0x8000) << bits;
    } else {
      ASSERT_EQ(FloatToHalf(value), half);
    }
  }
}

TEST(HalfTest, BetweenTwoHalvesTheNearerIsTakenAndTheEvenOneOfTwoEquallyNear) {
  for (uint32_t bits = 0; bits < 0x7bff; ++bits) {  // finite, and so is the next
    const auto half = static_cast<uint16_t>(bits);
    const auto next = static_cast<uint16_t>(bits + 1);
    const float middle = (HalfToFloat(half) + HalfToFloat(next)) / 2.0f;  // exact
    const uint16_t even = bits % 2 == 0 ? half : next;
    ASSERT_EQ(FloatToHalf(middle), even) << bits;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), half) << bits;
    ASSERT_EQ(FloatToHalf(std::nextafter(middle, kInfinity)), next) << bits;
    ASSERT_EQ(FloatToHalf(-middle), even | 0x8000) << bits;
  }
}

TEST(HalfTest, WhatIsTooLargeBecomesInfinity) {
  EXPECT_EQ(FloatToHalf(65504.0f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65519.996f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(-1e30f), 0xfc00);
  EXPECT_EQ(FloatToHalf(kInfinity), 0x7c00);
  EXPECT_EQ(FloatToHalf(1e-30f), 0);
  EXPECT_EQ(FloatToHalf(-1e-30f), 0x8000);
}

TEST(BFloat16Test, All65536ComeBack) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    BFloat16 value;
    value.bits = static_cast<uint16_t>(bits);
    const auto wide = static_cast<float>(value);
    const BFloat16 back(wide);
    if (std::isnan(wide)) {
      ASSERT_TRUE(std::isnan(static_cast<float>(back))) << bits;
      ASSERT_EQ(back.bits & 0x8000, value.bits & 0x8000) << bits;
    } else {
      ASSERT_EQ(back.bits, value.bits);
    }
  }
}

TEST(BFloat16Test, RoundsToNearestEven) {
  for (uint32_t bits = 0; bits < 0x7f7f; ++bits) {
    const auto at = [](uint32_t b) { return std::bit_cast<float>(b << 16); };
    const float middle = std::bit_cast<float>((bits << 16) + 0x8000u);
    ASSERT_EQ(BFloat16(middle).bits, bits % 2 == 0 ? bits : bits + 1);
    ASSERT_EQ(BFloat16(std::nextafter(middle, at(bits))).bits, bits);
    ASSERT_EQ(BFloat16(std::nextafter(middle, kInfinity)).bits, bits + 1);
  }
}

TEST(BFloat16Test, ANanWithLowBitsOnlyDoesNotBecomeInfinity) {
  for (const uint32_t bits : {0x7f800001u, 0xff800001u, 0x7fffffffu}) {
    EXPECT_TRUE(std::isnan(static_cast<float>(BFloat16(std::bit_cast<float>(bits)))));
  }
  EXPECT_EQ(static_cast<float>(BFloat16(std::numeric_limits<float>::max())), kInfinity);
}

TEST(BFloat16Test, ArraysConvertLikeSingleValues) {
  std::vector<float> values;
  for (int i = 0; i < 1000; ++i) values.push_back(std::sin(static_cast<float>(i)) * 1e3f);
  std::vector<BFloat16> narrow(values.size());
  FloatToBFloat16(values.data(), narrow.data(), values.size());
  std::vector<float> wide(values.size());
  BFloat16ToFloat(narrow.data(), wide.data(), values.size());
  for (size_t i = 0; i < values.size(); ++i) {
    EXPECT_EQ(narrow[i].bits, BFloat16(values[i]).bits);
    EXPECT_EQ(wide[i], static_cast<float>(narrow[i]));
  }
}

}  // namespace
}  // namespace fovea
