#include "base/entries.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>

namespace fovea {
namespace {

// Neither fits 8 bits of mantissa; the first lies between two bfloat16 numbers and goes to the even
// one.
constexpr float kHalfway = 1.0f + 0x1p-8f;
constexpr float kThird = 1.0f / 3.0f;

TEST(EntriesTest, AVectorIsOfItsTypeAndFullOfZeros) {
  for (const EntryType type : {EntryType::kBFloat16, EntryType::kFloat32}) {
    const EntryVector numbers(type, 5);
    EXPECT_EQ(numbers.type(), type);
    EXPECT_EQ(numbers.data().type(), type);
    EXPECT_EQ(numbers.size(), 5u);
    EXPECT_EQ(numbers.size_bytes(), 5 * EntryBytes(type));
    for (size_t i = 0; i < 5; ++i) EXPECT_EQ(numbers[i], 0.0f);
  }
  EXPECT_TRUE(EntryVector().empty());
  EXPECT_EQ(EntryBytes(EntryType::kBFloat16), 2u);
  EXPECT_EQ(EntryBytes(EntryType::kFloat32), 4u);
  EXPECT_EQ(EntryTypeName(EntryType::kBFloat16), "bfloat16");
  EXPECT_EQ(EntryTypeName(EntryType::kFloat32), "float32");
}

TEST(EntriesTest, SetConvertsWhereTypesDiffer) {
  const EntryVector floats(std::vector<float>{kHalfway, kThird, -2.0f});
  const EntryVector halves(std::vector<BFloat16>{BFloat16(kHalfway), BFloat16(kThird)});
  EntryVector to_floats(EntryType::kFloat32, 4);
  to_floats.Set(1, floats.data(), 3);
  EXPECT_EQ(to_floats[0], 0.0f);
  EXPECT_EQ(to_floats[1], kHalfway);
  EXPECT_EQ(to_floats[2], kThird);
  to_floats.Set(2, halves.data() + 1, 1);
  EXPECT_EQ(to_floats[2], static_cast<float>(BFloat16(kThird)));
  EXPECT_EQ(to_floats[3], -2.0f);

  EntryVector to_halves(EntryType::kBFloat16, 3);
  to_halves.Set(0, floats.data(), 2);
  EXPECT_EQ(to_halves[0], 1.0f);
  EXPECT_EQ(to_halves[1], static_cast<float>(BFloat16(kThird)));
  to_halves.Set(2, halves.data(), 1);
  EXPECT_EQ(to_halves[2], 1.0f);
}

TEST(EntriesTest, PointersMoveByNumbersOfTheirType) {
  const std::vector<float> floats = {1.0f, kThird, kHalfway};
  const std::vector<BFloat16> halves = {BFloat16(1.0f), BFloat16(kThird), BFloat16(kHalfway)};
  EXPECT_EQ((EntryPointer(floats.data()) + 2).As<float>(), floats.data() + 2);
  EXPECT_EQ((EntryPointer(halves.data()) + 2).As<BFloat16>(), halves.data() + 2);
  float out[2] = {};
  EntriesToFloat(EntryPointer(floats.data()) + 1, out, 2);
  EXPECT_EQ(out[0], kThird);
  EXPECT_EQ(out[1], kHalfway);
  EntriesToFloat(EntryPointer(halves.data()) + 1, out, 2);
  EXPECT_EQ(out[0], static_cast<float>(BFloat16(kThird)));
  EXPECT_EQ(out[1], 1.0f);
}

TEST(EntriesTest, BytesAreTheNumbersAsTheyAreStored) {
  EntryVector floats(EntryType::kFloat32, 1);
  const uint32_t bits = std::bit_cast<uint32_t>(kThird);
  std::memcpy(floats.bytes().data(), &bits, sizeof(bits));
  EXPECT_EQ(floats.bytes().size(), sizeof(bits));
  EXPECT_EQ(floats[0], kThird);
}

}  // namespace
}  // namespace fovea
