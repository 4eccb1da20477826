#include "documents/titles.h"

#include "gtest/gtest.h"

namespace fovea::documents {
namespace {

TEST(PlainTextTitleTest, TakesTheTitleLineOfTheFirstForty) {
  EXPECT_EQ(PlainTextTitle("A header.\r\n\r\nTitle:  The Time  Machine \r\nAuthor: H. G. Wells"),
            "The Time Machine");
  EXPECT_EQ(PlainTextTitle("Titles: none\nThe title: none"), "");
  EXPECT_EQ(PlainTextTitle(std::string(40, '\n') + "Title: too late"), "");
  EXPECT_EQ(PlainTextTitle(""), "");
}

TEST(MarkdownTitleTest, TakesTheFirstHeading) {
  EXPECT_EQ(MarkdownTitle("text\n\n## The *first* one ##\n# Second"), "The *first* one");
  EXPECT_EQ(MarkdownTitle("# C#\n"), "C#");
  EXPECT_EQ(MarkdownTitle("#hashtag\n\n#\n\nreal\r\n====\r\n"), "real");
  EXPECT_EQ(MarkdownTitle("Under dashes\n---\n"), "Under dashes");
  EXPECT_EQ(MarkdownTitle("####### seven\n\n---\n\nno heading"), "");
}

TEST(MarkdownTitleTest, SkipsCode) {
  EXPECT_EQ(MarkdownTitle("```sh\n# a comment\n```\n    # indented\n# Title"), "Title");
  EXPECT_EQ(MarkdownTitle("~~~\n# never closed"), "");
}

TEST(MarkdownTitleTest, PrefersTheFrontMatter) {
  EXPECT_EQ(MarkdownTitle("---\nauthor: x\ntitle: \"Quoted: yes\"\n---\n# Heading"), "Quoted: yes");
  EXPECT_EQ(MarkdownTitle("---\nauthor: x\n---\n# Heading"), "Heading");
}

TEST(FileTitleTest, IsTheNameWithoutItsExtension) {
  EXPECT_EQ(FileTitle("/x/a study.in scarlet.txt"), "a study.in scarlet");
  EXPECT_EQ(FileTitle("/x/caf\xE9\n.md"), "caf\uFFFD");
}

}  // namespace
}  // namespace fovea::documents
