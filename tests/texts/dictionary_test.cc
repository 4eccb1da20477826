#include "texts/dictionary.h"

#include <map>
#include <set>

#include "gtest/gtest.h"

namespace fovea::texts {
namespace {

int64_t Differences(uint32_t a, uint32_t b) {
  const std::string left = WordText(a), right = WordText(b);
  int64_t n = 0;
  for (size_t i = 0; i < left.size(); ++i) n += left[i] != right[i] ? 1 : 0;
  return n;
}

TEST(DictionaryTest, WordsAreFourSymbolsEach) {
  EXPECT_EQ(WordText(0), "AAAA");
  EXPECT_EQ(WordText(1), "AAAB");
  EXPECT_EQ(WordText(kDictionaryWords - 1), "////");
  EXPECT_EQ(WordText(uint32_t{26} << 18), "aAAA");
  std::string text;
  AppendRecord({0, kDictionaryWords - 1}, kDefines, &text);
  AppendRecord({1, 0}, kAsks, &text);
  EXPECT_EQ(text, "AAAA:////\nAAAB?AAAA\n");
  EXPECT_EQ(text.size(), 2u * kRecordSymbols);
}

TEST(DictionaryTest, AnotherSymbolStandsAtItsPlaceAlone) {
  Random random(1, 2);
  for (int64_t place = 0; place < kWordSymbols; ++place) {
    std::set<uint32_t> others;
    for (int i = 0; i < 2000; ++i) {
      const uint32_t other = WithOtherSymbol(0x123456, place, random);
      const std::string before = WordText(0x123456), after = WordText(other);
      for (int64_t at = 0; at < kWordSymbols; ++at) {
        EXPECT_EQ(before[static_cast<size_t>(at)] == after[static_cast<size_t>(at)], at != place);
      }
      others.insert(other);
    }
    EXPECT_EQ(others.size(), kDictionarySymbols.size() - 1);
  }
}

TEST(DictionaryTest, KeysAreAllDifferent) {
  for (const int64_t look_alikes : {0, 3, 63}) {
    Random random(7, 0);
    const std::vector<uint32_t> keys = DrawKeys(20'000, look_alikes, random);
    const std::set<uint32_t> different(keys.begin(), keys.end());
    EXPECT_EQ(different.size(), 20'000u);
    EXPECT_LT(*different.rbegin(), kDictionaryWords);
  }
}

TEST(DictionaryTest, KeysOfFamiliesHaveOthersThatDifferInOneSymbol) {
  constexpr int64_t kAlike = 3;
  Random random(7, 0);
  const std::vector<uint32_t> keys = DrawKeys(400, kAlike, random);
  int64_t n_with_family = 0;
  for (const uint32_t key : keys) {
    int64_t n = 0;
    for (const uint32_t other : keys) n += Differences(key, other) == 1 ? 1 : 0;
    n_with_family += n >= kAlike ? 1 : 0;
  }
  // But for the last family, which the number may cut.
  EXPECT_GE(n_with_family, 400 - kAlike);
  Random same(7, 0);
  EXPECT_EQ(DrawKeys(400, kAlike, same), keys);
}

}  // namespace
}  // namespace fovea::texts
