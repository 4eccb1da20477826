#include "cli/text_format.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::cli {
namespace {

using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;

TEST(FormatCountTest, GroupsThousands) {
  EXPECT_EQ(FormatCount(0), "0");
  EXPECT_EQ(FormatCount(999), "999");
  EXPECT_EQ(FormatCount(1000), "1,000");
  EXPECT_EQ(FormatCount(1234567), "1,234,567");
  EXPECT_EQ(FormatCount(-123456), "-123,456");
}

TEST(FormatBytesTest, ChoosesTheUnit) {
  EXPECT_EQ(FormatBytes(999), "999 bytes");
  EXPECT_EQ(FormatBytes(1500), "1.5 kB");
  EXPECT_EQ(FormatBytes(98'400'000), "98.4 MB");
}

TEST(PrintableTest, TextStaysAsItIs) {
  const std::string text = "Grüße, 日本語, 🦊\n\tnext";
  EXPECT_EQ(Printable(text), text);
}

TEST(PrintableTest, NothingCommandsTheTerminal) {
  EXPECT_EQ(Printable("\x1B[31mred\a\b\x7F"), "\uFFFD[31mred\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(Printable("\xC2\x9B"
                      "31m"),
            "\uFFFD31m");  // the one-character form of ESC [
  EXPECT_EQ(Printable("a\r\nb"), "a\nb");
}

TEST(PrintableTest, InvalidUtf8BecomesTheReplacementCharacter) {
  EXPECT_EQ(Printable("a\xFF"), "a\uFFFD");
  EXPECT_EQ(Printable("\xE2\x82"), "\uFFFD\uFFFD");            // cut off
  EXPECT_EQ(Printable("\xC0\xAF"), "\uFFFD\uFFFD");            // longer than needed
  EXPECT_EQ(Printable("\xED\xA0\x80"), "\uFFFD\uFFFD\uFFFD");  // a surrogate
}

TEST(ExcerptTest, IsOneLine) { EXPECT_EQ(Excerpt("  a\n\n b\tc  ", 80), "a b c"); }

TEST(ExcerptTest, CutsBetweenCharacters) {
  EXPECT_EQ(Excerpt("äöü", 3), "äöü");
  EXPECT_EQ(Excerpt("äöüß", 3), "äöü…");
  EXPECT_EQ(Excerpt(std::string(10000, 'x'), 5), "xxxxx…");
}

TEST(FormatIngestedTest, AFailureNamesItsReason) {
  memory::IngestedDocument document;
  document.source = "/a/b.pdf";
  document.status = memory::IngestStatus::kFailed;
  document.error = "damaged\x1B[2J";
  const std::string line = FormatIngested(document);
  EXPECT_THAT(line, HasSubstr("/a/b.pdf: damaged"));
  EXPECT_THAT(line, Not(HasSubstr("\x1B")));
}

TEST(FormatIngestedTest, AnErrorThatNamesItsFileIsNotPrefixedAgain) {
  memory::IngestedDocument document;
  document.source = "/a/b.pdf";
  document.status = memory::IngestStatus::kFailed;
  document.error = "/a/b.pdf: not a PDF";
  EXPECT_EQ(FormatIngested(document), "failed     /a/b.pdf: not a PDF\n");
}

TEST(FormatIngestedTest, TokensThatAreNotCountedYetAreNotNamed) {
  memory::IngestedDocument document;
  document.title = "A book";
  for (const auto status : {memory::IngestStatus::kAdded, memory::IngestStatus::kReplaced}) {
    document.status = status;
    document.tokens = 0;
    EXPECT_THAT(FormatIngested(document), EndsWith("A book\n"));
    document.tokens = 5;
    EXPECT_THAT(FormatIngested(document), HasSubstr("A book (5 tokens"));
  }
}

TEST(FormatSummaryTest, SaysHowManyFilesOfFoldersWereSkipped) {
  IngestSummary summary;
  EXPECT_THAT(FormatSummary(summary), Not(HasSubstr("skipped")));
  summary.has_folders = true;
  EXPECT_THAT(FormatSummary(summary), EndsWith("; 0 files skipped\n"));
  summary.AddSkipped("icon", "/a.ico");
  EXPECT_THAT(FormatSummary(summary), EndsWith("; 1 file skipped: 1 × icon\n"));
  summary.AddSkipped(".\x1B[2J file, not text", "/b");
  summary.AddSkipped("PNG image", "/c.png");
  summary.AddSkipped("PNG image", "/d.png");
  EXPECT_THAT(FormatSummary(summary),
              EndsWith("; 4 files skipped: 2 × PNG image; 1 × icon; 1 × .�[2J file, not text\n"));
  for (int i = 0; i < 12; ++i) summary.AddSkipped("kind " + std::to_string(i), "/e");
  EXPECT_THAT(FormatSummary(summary), EndsWith("; and 3 more kinds (--json names all)\n"));
}

TEST(FormatSourcesTest, NoSourcesNoHeading) { EXPECT_EQ(FormatSources(answer::Answer()), ""); }

TEST(FormatSourcesTest, ShowsThePartThatWasChosenElseTheBeginning) {
  answer::Answer answer;
  memory::Passage source;
  source.title = "A book";
  source.start = 100;
  source.text = "One.\nTwo.\nThree.";
  source.end = source.start + source.text.size();
  const auto shown = [&](uint64_t start, uint64_t end) {
    source.excerpt_start = start;
    source.excerpt_end = end;
    answer.sources = {source};
    return FormatSources(answer);
  };
  EXPECT_THAT(shown(105, 109), EndsWith("\n    … Two. …\n"));
  EXPECT_THAT(shown(100, 104), EndsWith("\n    One. …\n"));
  EXPECT_THAT(shown(105, source.end), EndsWith("\n    … Two. Three.\n"));
  EXPECT_THAT(shown(100, source.end), EndsWith("\n    One. Two. Three.\n"));
  EXPECT_THAT(shown(0, 0), EndsWith("\n    One. Two. Three.\n"));  // none was
}

TEST(FormatAnswerLineTest, IsOneLine) {
  answer::Answer answer;
  answer.text = "First.\nSecond.";
  memory::Passage source;
  source.title = "A\tbook";
  source.start = 3;
  source.end = 9;
  answer.sources = {source, source};
  EXPECT_EQ(FormatAnswerLine(answer), "First. Second.\tA book:3-9; A book:3-9\n");
}

}  // namespace
}  // namespace fovea::cli
