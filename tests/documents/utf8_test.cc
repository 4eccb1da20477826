#include "documents/utf8.h"

#include "documents/names.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::documents {
namespace {

TEST(Utf8Test, EveryCodePointIsValidAndEveryCutOfItIncomplete) {
  for (uint32_t code = 1; code <= 0x10FFFF; code += code < 0x3000 ? 1 : 37) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string bytes;
    if (code < 0x80) {
      bytes = {static_cast<char>(code)};
    } else if (code < 0x800) {
      bytes = {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 63))};
    } else if (code < 0x10000) {
      bytes = {static_cast<char>(0xE0 | code >> 12), static_cast<char>(0x80 | (code >> 6 & 63)),
               static_cast<char>(0x80 | (code & 63))};
    } else {
      bytes = {static_cast<char>(0xF0 | code >> 18), static_cast<char>(0x80 | (code >> 12 & 63)),
               static_cast<char>(0x80 | (code >> 6 & 63)), static_cast<char>(0x80 | (code & 63))};
    }
    ASSERT_EQ(ScanUtf8(bytes).valid_bytes, bytes.size()) << code;
    for (size_t n = 1; n < bytes.size(); ++n) {
      const Utf8Scan scan = ScanUtf8(std::string_view(bytes).substr(0, n));
      ASSERT_EQ(scan.valid_bytes, 0u) << code;
      ASSERT_TRUE(scan.incomplete) << code;
    }
  }
}

TEST(Utf8Test, IllFormedBytesEndTheValidPrefixAtAnyPosition) {
  for (const std::string_view bad :
       {std::string_view("\0", 1), std::string_view("\x80"), std::string_view("\xC0\x80"),
        std::string_view("\xC1\xBF"), std::string_view("\xE0\x80\x80"),
        std::string_view("\xED\xA0\x80"), std::string_view("\xF0\x80\x80\x80"),
        std::string_view("\xF4\x90\x80\x80"), std::string_view("\xF5\x80\x80\x80"),
        std::string_view("\xFF"), std::string_view("\xC3("), std::string_view("\xE2\x82(")}) {
    for (size_t n_before = 0; n_before < 20; ++n_before) {
      const std::string text = std::string(n_before, 'a') + std::string(bad) + "aaaaaaaaaaaa";
      const Utf8Scan scan = ScanUtf8(text);
      EXPECT_EQ(scan.valid_bytes, n_before);
      EXPECT_FALSE(scan.incomplete);
    }
  }
}

TEST(Utf8Test, PrefixEndsBetweenCharacters) {
  EXPECT_EQ(Utf8Prefix("aé€😀", 10), "aé€😀");
  EXPECT_EQ(Utf8Prefix("aé€😀", 9), "aé€");
  EXPECT_EQ(Utf8Prefix("aé€😀", 5), "aé");
  EXPECT_EQ(Utf8Prefix("aé€😀", 2), "a");
  EXPECT_EQ(Utf8Prefix("é", 1), "");
}

TEST(Utf8Test, OneLineCollapsesSpacesAndReplacesInvalidBytes) {
  EXPECT_EQ(OneLine(" \n a\t\tb\x01 c\n", 100), "a b c");
  EXPECT_EQ(OneLine("caf\xE9 au lait", 100), "caf\uFFFD au lait");
  EXPECT_EQ(OneLine("ééé", 5), "éé");
  EXPECT_EQ(OneLine("\n", 5), "");
}

TEST(Utf8Test, BlankTextHoldsOnlySpaces) {
  EXPECT_TRUE(IsBlank(""));
  EXPECT_TRUE(IsBlank("\xEF\xBB\xBF \t\r\n\f\v\u00A0"));
  EXPECT_FALSE(IsBlank(" \n."));
  EXPECT_FALSE(IsBlank("\u00A1"));
}

TEST(NamesTest, PrintableNamesAreValidUtf8AndDiffer) {
  EXPECT_EQ(PrintableName("/a b/é#?%.txt"), "/a b/é#?%.txt");
  EXPECT_EQ(PrintableName("a\nb"), "a\\x0Ab");
  EXPECT_EQ(PrintableName("a\\x0Ab"), "a\\x5Cx0Ab");
  EXPECT_EQ(PrintableName("caf\xE9"), "caf\\xE9");
  EXPECT_EQ(PrintableName(std::string_view("a\0b", 3)), "a\\x00b");
}

TEST(NamesTest, CollectionsAreNamedByOneLineOfText) {
  for (const std::string& name :
       {std::string("letters"), std::string("Briefe an Zoë, 1912/13"), std::string("Größe 日本 😀"),
        std::string("می\u200Cخواهم"), std::string("a \"b\" 'c'"),
        std::string(kMaxCollectionBytes, 'x')}) {
    EXPECT_TRUE(CheckCollectionName(name).ok()) << name;
  }
  const std::pair<std::string, std::string> refused[] = {
      {"", "empty"},
      {" \u00A0", "empty"},
      {"a\nb", "a\\x0Ab"},
      {std::string("a\0b", 3), "a\\x00b"},
      {"a\tb", "a\\x09b"},
      {"a\x7F", "a\\x7F"},
      {"a\\b", "a\\x5Cb"},
      {"a\u0085b", "cannot be seen"},
      {"a\u2028b", "cannot be seen"},
      {"\u200B", "cannot be seen"},
      {"\u202Eabc", "cannot be seen"},
      {"caf\xE9", "caf\\xE9"},
      {std::string(kMaxCollectionBytes + 1, 'x'), "at most 1000 bytes; this one has 1001"},
  };
  for (const auto& [name, what] : refused) {
    const absl::Status status = CheckCollectionName(name);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << name;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(what));
  }
}

}  // namespace
}  // namespace fovea::documents
