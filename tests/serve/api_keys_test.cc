#include "serve/api_keys.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::serve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr char kWhole[] = "whole-0123456789abcdef";
constexpr char kPart[] = "part-0123456789abcdef";

ApiKeys TwoKeys() {
  return *ApiKeys::Parse(StrCat("# whole\n", kWhole, "\r\n\n  ", kPart, "\tletters,minutes\n"),
                         "keys");
}

TEST(ApiKeysTest, WithoutKeysEverybodyMayDoEverything) {
  const ApiKeys none;
  ASSERT_TRUE(none.Find("").has_value());
  EXPECT_FALSE(none.Find("Bearer anything")->is_limited());
}

TEST(ApiKeysTest, FindsAKeyAndItsCollections) {
  const ApiKeys keys = TwoKeys();
  EXPECT_TRUE(keys.has_limited_keys());
  const auto whole = keys.Find(StrCat("Bearer ", kWhole));
  ASSERT_TRUE(whole.has_value());
  EXPECT_FALSE(whole->is_limited());
  EXPECT_TRUE(whole->Allows("anything"));
  const auto part = keys.Find(StrCat("Bearer ", kPart));
  ASSERT_TRUE(part.has_value());
  EXPECT_THAT(*part->collections, ElementsAre("letters", "minutes"));
  EXPECT_TRUE(part->Allows("minutes"));
  EXPECT_FALSE(part->Allows("minute"));
  EXPECT_FALSE(part->Allows(""));
}

TEST(ApiKeysTest, RefusesEverythingElse) {
  const ApiKeys keys = TwoKeys();
  const std::string whole = kWhole;
  for (const std::string& header :
       {std::string(), std::string("Bearer "), whole, "Basic " + whole, "Bearer " + whole + "0",
        "Bearer " + whole.substr(0, whole.size() - 1), "Bearer  " + whole, "bearer " + whole,
        "Bearer " + whole + " letters", std::string("Bearer #")}) {
    EXPECT_FALSE(keys.Find(header).has_value()) << header;
  }
}

TEST(ApiKeysTest, AKeyWithItsCollectionsBehindACommaIsNotOneWithoutLimits) {
  for (const std::string& line :
       {StrCat(kPart, ",letters"), StrCat("\"", kPart, "\" letters"), StrCat("'", kPart, "'")}) {
    const auto keys = ApiKeys::Parse(line, "keys");
    ASSERT_FALSE(keys.ok()) << line;
    EXPECT_THAT(keys.status().message(), HasSubstr("line 1: a key has no commas and quotes"));
  }
}

TEST(ApiKeysTest, AByteOrderMarkIsNoPartOfAKey) {
  const auto keys = ApiKeys::Parse(StrCat("\xef\xbb\xbf", kWhole, "\n"), "keys");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_TRUE(keys->Find(StrCat("Bearer ", kWhole)).has_value());
}

TEST(ApiKeysTest, NamesWithBlanksAndCommasAreQuoted) {
  const std::string text = StrCat(kPart, R"(  "my letters",minutes,"a, \"b\"","caf\u00e9",5"disk )",
                                  "\t\r\n", kWhole, R"( "letters")", "\n");
  const auto keys = ApiKeys::Parse(text, "keys");
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_THAT(*keys->Find(StrCat("Bearer ", kPart))->collections,
              ElementsAre("my letters", "minutes", "a, \"b\"", "café", "5\"disk"));
  EXPECT_THAT(*keys->Find(StrCat("Bearer ", kWhole))->collections, ElementsAre("letters"));
}

TEST(ApiKeysTest, SaysWhatIsWrongWithACollectionAndNotWhatStandsThere) {
  for (const auto& [list, what] : std::vector<std::pair<std::string, std::string>>{
           {"secret,another name", "line 2: collection 2 of the key: behind it want"},
           {"secret, another", "collection 1 of the key: behind it want"},
           {"secret,", "collection 1 of the key: behind it want"},
           {R"("secret"another)", "names with spaces or commas are quoted"},
           {R"("secret)", "a quote that does not end"},
           {R"("secret\")", "a quote that does not end"},
           {R"("secret\")"
            "\\",
            "a quote that does not end"},
           {R"("secret\q")", "no string of JSON"},
           {R"("secret\ud800")", "no string of JSON"},
           {R"("secret\u0000")", "without control characters"},
           {R"("secret\\")", "backslashes"},
           {R"("")", "collection 1 of the key: the name of a collection is empty"},
           {R"("secret\u202e")", "characters that cannot be seen"},
           {"0123456789secret\\", "backslashes"},  // another key, say
           {std::string(1001, 's'), "at most 1000 bytes; this one has 1001"}}) {
    const auto keys = ApiKeys::Parse(StrCat("# keys\n0123456789abcdef ", list, "\n"), "the-file");
    ASSERT_EQ(keys.status().code(), absl::StatusCode::kInvalidArgument) << list;
    const std::string message(keys.status().message());
    EXPECT_THAT(message, HasSubstr("the-file, line 2: "));
    EXPECT_THAT(message, HasSubstr(what)) << list;
    EXPECT_THAT(message, Not(HasSubstr("secret")));
    EXPECT_THAT(message, Not(HasSubstr("0123456789")));
  }
}

TEST(ApiKeysTest, RefusesFilesThatAreNone) {
  for (const auto& [text, what] : std::vector<std::pair<std::string, std::string>>{
           {"", "no key"},
           {"# nothing\n", "no key"},
           {"short\n", "line 1"},
           {"# fine\nwith-a-control-char\x01\n", "line 2"},
           {"0123456789abcdef a, b\n", "commas"},
           {"0123456789abcdef a,,b\n", "empty"},
           {"0123456789abcdef a,b\\c\n", "backslashes"},
           {"0123456789abcdef a\n0123456789abcdef b\n", "twice"}}) {
    const auto keys = ApiKeys::Parse(text, "the-file");
    ASSERT_EQ(keys.status().code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(keys.status().message()), HasSubstr(what));
    EXPECT_THAT(std::string(keys.status().message()), HasSubstr("the-file"));
    // A message may end in a log.
    EXPECT_THAT(std::string(keys.status().message()), Not(HasSubstr("0123456789abcdef")));
  }
}

}  // namespace
}  // namespace fovea::serve
