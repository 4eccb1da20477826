#include "documents/json_fault.h"

#include <nlohmann/json.hpp>
#include <string>

#include "documents/utf8.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::documents {
namespace {

using ::testing::AllOf;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

// What is said of `text`, which is no JSON.
std::string FaultOf(const std::string& text) {
  try {
    nlohmann::json::parse(text).at("name").get<std::string>();
  } catch (const nlohmann::json::exception& error) {
    return JsonFault(error.what());
  }
  ADD_FAILURE() << text << " has no fault";
  return "";
}

TEST(JsonFaultTest, SaysWhatIsWrongWithoutTheLibrarysNames) {
  for (const char* text :
       {"", "tru", "{\"a\" 1}", "[1e999]", "{\"a\":\n'}", "{}", "{\"name\": 1}"}) {
    const std::string fault = FaultOf(text);
    EXPECT_THAT(fault, AllOf(Not(HasSubstr("json.exception")), Not(HasSubstr("at line")))) << text;
    EXPECT_NE(fault, "");
  }
  EXPECT_EQ(
      FaultOf("{\"a\" 1}"),
      "syntax error while parsing object separator - unexpected number literal; expected ':'");
  EXPECT_EQ(FaultOf("{\"name\": 1}"), "type must be string, but is number");
}

TEST(JsonFaultTest, ShowsBytesThatAreNoTextByTheirNumbers) {
  EXPECT_THAT(FaultOf("{\"a\": \"b\xFF"),
              EndsWith("invalid string: ill-formed UTF-8 byte; last read: '\"b\\xFF'"));
  EXPECT_THAT(FaultOf("{\"a\": \"\xED\xA0\x80\"}"), EndsWith("last read: '\"\\xED\\xA0'"));
  EXPECT_THAT(FaultOf("\xE2\x82"), EndsWith("last read: '\\xE2'"));
  EXPECT_THAT(FaultOf("{'\x7F"), Not(HasSubstr("\x7F")));
  // What JSON itself has stays.
  EXPECT_THAT(FaultOf("{\"Grüße\\n\\x"), HasSubstr("last read: '\"Grüße\\n\\x'"));
  EXPECT_THAT(FaultOf("{\"'; expected \xFF"), HasSubstr("last read: '\"'; expected \\xFF'"));
}

TEST(JsonFaultTest, NamesHalvesOfSurrogatePairs) {
  for (const char* half : {"\\ud800", "x\\uDC00y", "\\ud83d\\ud83d\\ude00"}) {
    EXPECT_THAT(FaultOf(std::string("{\"a\": \"") + half + "\"}"),
                AllOf(HasSubstr(std::string(kHalfOfPair) + "; last read: '\""), HasSubstr("\\u"),
                      Not(HasSubstr("\\x5C"))))
        << half;
  }
}

TEST(JsonFaultTest, ShowsTheEndOfWhatIsLong) {
  for (const char* unit : {"a", "ä", "鍵", "👍", "\\n"}) {
    std::string text = "{\"a\": \"";
    for (int i = 0; i < 10000; ++i) text += unit;
    const std::string fault = FaultOf(text + "end\xFF\"}");
    EXPECT_LT(fault.size(), 500u);
    EXPECT_EQ(ScanUtf8(fault).valid_bytes, fault.size()) << fault;
    EXPECT_THAT(fault, AllOf(HasSubstr("last read: '…"), HasSubstr("end\\xFF")));
  }
}

}  // namespace
}  // namespace fovea::documents
