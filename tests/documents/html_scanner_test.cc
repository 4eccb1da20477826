#include "documents/html_scanner.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::documents {
namespace {

using ::testing::ElementsAre;

// The pieces of a page, tags in brackets.
std::vector<std::string> Pieces(std::string_view page, bool is_foreign = false) {
  std::vector<std::string> pieces;
  HtmlScanner scanner(page);
  for (auto piece = scanner.Next(is_foreign); !piece.text.empty();
       piece = scanner.Next(is_foreign)) {
    const std::string text(piece.text);
    pieces.push_back(piece.tag.has_value() ? "[" + text + "]" : text);
  }
  return pieces;
}

TEST(HtmlScannerTest, CutsAPageIntoTagsAndTheRest) {
  EXPECT_THAT(Pieces("a<b>c</B >d<br/>"),
              ElementsAre("a", "[<b>]", "c", "[</B >]", "d", "[<br/>]"));
  EXPECT_THAT(Pieces("<p a='>' b=\">\" c=d'>x'>"), ElementsAre("[<p a='>' b=\">\" c=d'>]", "x'>"));
  EXPECT_THAT(Pieces("1 < 2 <3 << <i>"), ElementsAre("1 ", "< 2 ", "<3 ", "<", "< ", "[<i>]"));
  EXPECT_THAT(Pieces("<!-- <b> --><i>"), ElementsAre("<!-- <b> -->", "[<i>]"));
  EXPECT_THAT(Pieces("<!--><i><!-- --!><b>"), ElementsAre("<!-->", "[<i>]", "<!-- --!>", "[<b>]"));
  EXPECT_THAT(Pieces("<!DOCTYPE html><?php x?></3>"),
              ElementsAre("<!DOCTYPE html>", "<?php x?>", "</3>"));
  EXPECT_THAT(Pieces("<![CDATA[<b>]]>"), ElementsAre("<![CDATA[<b>", "]]>"));
  EXPECT_THAT(Pieces("<![CDATA[<b>]]>", true), ElementsAre("<![CDATA[<b>]]>"));
  EXPECT_THAT(Pieces("x<a b='c>"), ElementsAre("x", "<a b='c>"));
  EXPECT_THAT(Pieces("<"), ElementsAre("<"));
}

TEST(HtmlScannerTest, ReadsTags) {
  const auto tag = [](std::string_view text) { return *HtmlScanner(text).Next(false).tag; };
  EXPECT_EQ(tag("<DIV\n>").name, "DIV");
  EXPECT_EQ(tag("<my-tag/x>").name, "my-tag");
  EXPECT_FALSE(tag("<a/x>").is_self_closing);
  EXPECT_TRUE(tag("<a x />").is_self_closing);
  EXPECT_FALSE(tag("<a x=b/>").is_self_closing);
  EXPECT_TRUE(tag("</a>").is_end);
  EXPECT_EQ(tag("<a b c=d e = 'f' g>").n_attributes, 4u);
  EXPECT_EQ(tag("<a =b c>").n_attributes, 2u);
  EXPECT_TRUE(tag("<a b Hidden>").is_hidden);
  EXPECT_FALSE(tag("<a b=hidden hidden-x>").is_hidden);
  EXPECT_TRUE(tag("<a b style=display:none>").is_hidden);
  EXPECT_TRUE(tag("<a STYLE='color: red; display: none' b>").is_hidden);
  EXPECT_FALSE(tag("<a style b='display:none' c=\"style\">").is_hidden);
}

TEST(HtmlScannerTest, RawTextEndsWithItsOwnTag) {
  const auto raw = [](std::string_view text, std::string_view name) {
    return HtmlScanner(text).TakeRawText(name);
  };
  EXPECT_EQ(raw("if (a </b) x</scripts></SCRIPT >y", "script"), "if (a </b) x</scripts>");
  EXPECT_EQ(raw("no end </title", "title"), "no end </title");
}

}  // namespace
}  // namespace fovea::documents
