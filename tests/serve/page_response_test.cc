#include <algorithm>
#include <set>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "serve/page/page.h"

namespace fovea::serve {
namespace {

using testing::HasSubstr;
using testing::Not;
using testing::StartsWith;

std::string Header(const HttpResponse& response, const std::string& name) {
  const auto header = std::find_if(response.headers.begin(), response.headers.end(),
                                   [&](const auto& one) { return one.first == name; });
  return header == response.headers.end() ? "" : header->second;
}

TEST(PageResponseTest, EveryFileComesWithItsTypeItsStateAndThePolicy) {
  std::set<std::string> tags;
  for (const PageFile& file : PageFiles()) {
    const HttpResponse response = PageResponse(file.name, "");
    EXPECT_EQ(response.status, 200) << file.name;
    EXPECT_EQ(response.body, file.text);
    EXPECT_FALSE(response.body.empty());
    const bool is_script = file.name.ends_with(".js");
    EXPECT_EQ(response.content_type.starts_with("text/javascript"), is_script) << file.name;
    EXPECT_THAT(Header(response, "Content-Security-Policy"), StartsWith("default-src 'none'"));
    EXPECT_THAT(Header(response, "Content-Security-Policy"), Not(HasSubstr("unsafe")));
    EXPECT_EQ(Header(response, "Cache-Control"), "no-cache");
    EXPECT_TRUE(tags.insert(Header(response, "ETag")).second) << file.name;
  }
  EXPECT_GT(tags.size(), 8U);
}

// Characters that mean something to CMake or C++ came through.
TEST(PageResponseTest, FilesAreEmbeddedByteForByte) {
  const HttpResponse script = PageResponse("utf8.js", "");
  EXPECT_THAT(script.body, HasSubstr("// What stands before, in and after bytes [start, end) of"));
  EXPECT_THAT(script.body,
              HasSubstr("return [[0, start], [start, end], [end, bytes.length]].map("));
  EXPECT_THAT(PageResponse("api.js", "").body, HasSubstr("text.split(\"\\n\\n\");"));
  EXPECT_THAT(PageResponse("page.css", "").body, HasSubstr("content: \"▍\";"));
}

TEST(PageResponseTest, ABrowserThatHasTheFileGetsNoBody) {
  const std::string tag = Header(PageResponse("app.js", ""), "ETag");
  for (const std::string& sent :
       {tag, "W/" + tag, "\"other\", " + tag, std::string("*"), std::string(" * ")}) {
    const HttpResponse response = PageResponse("app.js", sent);
    EXPECT_EQ(response.status, 304) << sent;
    EXPECT_EQ(response.body, "");
    EXPECT_EQ(Header(response, "ETag"), tag);
  }
  for (const std::string& other :
       {tag, std::string("\"*\""), std::string("*, *"), std::string(" ")}) {
    EXPECT_EQ(PageResponse("index.html", other).status, 200) << other;
  }
}

TEST(PageResponseTest, OtherNamesAreNotFound) {
  for (const char* name : {"", "page.h", "../page.cc", "APP.JS", "app.js/"}) {
    EXPECT_EQ(PageResponse(name, "").status, 404) << name;
  }
}

}  // namespace
}  // namespace fovea::serve
