#include "compute/dtype.h"

#include <limits>

#include "base/float16.h"
#include "tests/compute/op_test.h"
#include "tests/compute/quantize.h"

namespace fovea::compute {
namespace {

TEST(DTypeTest, RowBytesAreThoseOfWholeBlocks) {
  EXPECT_EQ(*RowBytes(DType::kF32, 7), 28u);
  EXPECT_EQ(*RowBytes(DType::kF16, 7), 14u);
  EXPECT_EQ(*RowBytes(DType::kBF16, 7), 14u);
  EXPECT_EQ(*RowBytes(DType::kQ4_0, 64), 36u);
  EXPECT_EQ(*RowBytes(DType::kQ4_1, 64), 40u);
  EXPECT_EQ(*RowBytes(DType::kQ8_0, 64), 68u);
  EXPECT_EQ(*RowBytes(DType::kQ8_0, 0), 0u);
  EXPECT_EQ(*RowBytes(DType::kQ5_0, 64), 44u);
  EXPECT_EQ(*RowBytes(DType::kQ5_1, 64), 48u);
  EXPECT_EQ(*RowBytes(DType::kQ4_K, 512), 288u);
  EXPECT_EQ(*RowBytes(DType::kQ5_K, 512), 352u);
  EXPECT_EQ(*RowBytes(DType::kQ6_K, 512), 420u);
}

TEST(DTypeTest, RowBytesRefusesWhatIsNoRow) {
  EXPECT_TRUE(absl::IsInvalidArgument(RowBytes(DType::kQ4_0, 33).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(RowBytes(DType::kQ6_K, 288).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(RowBytes(DType::kF32, -1).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(RowBytes(DType::kQ8_0, -32).status()));
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  EXPECT_TRUE(absl::IsInvalidArgument(RowBytes(DType::kF32, kMax).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(RowBytes(DType::kQ8_0, kMax - 31).status()));
}

TEST(DTypeTest, Q4_0BlockByHand) {
  std::vector<std::byte> row(18, std::byte{0x88});
  const uint16_t d = FloatToHalf(0.5f);
  std::memcpy(row.data(), &d, 2);
  row[2] = std::byte{0xf0};       // values 0 and 16
  row[2 + 15] = std::byte{0x19};  // values 15 and 31
  std::vector<float> expected(32, 0.0f);
  expected[0] = -4.0f;
  expected[16] = 3.5f;
  expected[15] = 0.5f;
  expected[31] = -3.5f;
  std::vector<float> actual(32);
  DequantizeRow(DType::kQ4_0, row.data(), 32, actual.data());
  EXPECT_EQ(actual, expected);
}

TEST(DTypeTest, Q4_1BlockByHand) {
  std::vector<std::byte> row(20);
  const uint16_t d = FloatToHalf(0.5f);
  const uint16_t m = FloatToHalf(-2.0f);
  std::memcpy(row.data(), &d, 2);
  std::memcpy(row.data() + 2, &m, 2);
  row[4 + 3] = std::byte{0xf1};  // values 3 and 19
  std::vector<float> expected(32, -2.0f);
  expected[3] = -1.5f;
  expected[19] = 5.5f;
  std::vector<float> actual(32);
  DequantizeRow(DType::kQ4_1, row.data(), 32, actual.data());
  EXPECT_EQ(actual, expected);
}

TEST(DTypeTest, Q8_0BlockByHand) {
  std::vector<std::byte> row(34);
  const uint16_t d = FloatToHalf(0.25f);
  std::memcpy(row.data(), &d, 2);
  row[2] = std::byte{0x80};
  row[2 + 31] = std::byte{0x7f};
  std::vector<float> expected(32, 0.0f);
  expected[0] = -32.0f;
  expected[31] = 31.75f;
  std::vector<float> actual(32);
  DequantizeRow(DType::kQ8_0, row.data(), 32, actual.data());
  EXPECT_EQ(actual, expected);
}

TEST(DTypeTest, ValuesSurviveStorageWithinTheStepOfTheirType) {
  const std::vector<float> values = RandomFloats(512, 1);
  float largest = 0.0f;
  for (const float value : values) largest = std::max(largest, std::abs(value));
  for (const DType dtype : kAllDTypes) {
    const std::vector<std::byte> row = Quantize(dtype, values);
    ASSERT_EQ(row.size(), *RowBytes(dtype, 512));
    std::vector<float> back(512);
    DequantizeRow(dtype, row.data(), 512, back.data());
    // Half a step of the coarsest possible block, the scale's own rounding included.
    const float step = dtype == DType::kF32    ? 0.0f
                       : dtype == DType::kF16  ? largest * 0x1p-11f
                       : dtype == DType::kBF16 ? largest * 0x1p-8f
                       : dtype == DType::kQ4_0 ? largest / 14.0f * 1.01f
                       : dtype == DType::kQ4_1 ? largest / 15.0f * 1.02f
                       : dtype == DType::kQ5_0 ? largest / 30.0f * 1.02f
                       : dtype == DType::kQ5_1 ? largest / 31.0f * 1.02f
                       // Scales and offsets are themselves rounded to 1/63 of the largest one.
                       : dtype == DType::kQ4_K ? largest * (1.0f / 15.0f + 2.0f / 63.0f)
                       : dtype == DType::kQ5_K ? largest * (1.0f / 31.0f + 2.0f / 63.0f)
                       : dtype == DType::kQ6_K ? largest * (0.5f / 31.0f + 0.5f / 127.0f) * 1.02f
                                               : largest / 254.0f * 1.1f;
    for (size_t i = 0; i < values.size(); ++i) {
      EXPECT_NEAR(back[i], values[i], step) << Traits(dtype).name << " value " << i;
    }
  }
}

TEST(DTypeTest, RowsNeedNoAlignment) {
  for (const DType dtype : kAllDTypes) {
    const std::vector<std::byte> row = Quantize(dtype, RandomFloats(256, 1));
    std::vector<float> expected(256), actual(256);
    DequantizeRow(dtype, row.data(), 256, expected.data());
    std::vector<std::byte> shifted(row.size() + 1);
    std::copy(row.begin(), row.end(), shifted.begin() + 1);
    DequantizeRow(dtype, shifted.data() + 1, 256, actual.data());
    EXPECT_EQ(actual, expected) << Traits(dtype).name;
  }
}

}  // namespace
}  // namespace fovea::compute
