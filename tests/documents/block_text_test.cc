#include "documents/block_text.h"

#include "gtest/gtest.h"

namespace fovea::documents {
namespace {

class BlockTextTest : public ::testing::Test {
 protected:
  void Paragraph(std::string_view text, bool is_list_item = false) {
    blocks_.OpenParagraph();
    blocks_.Append(text);
    blocks_.CloseParagraph(is_list_item);
  }
  void Cell(std::string_view text) {
    Paragraph(text);
    blocks_.CloseCell();
  }

  std::string text_;
  BlockText blocks_{[this](std::string_view piece) { text_ += piece; }};
};

TEST_F(BlockTextTest, SetsParagraphsApartAndJoinsListItems) {
  for (const char* text : {" One ", "", "\xC2\xA0", "Two"}) Paragraph(text);
  for (const char* text : {"a", "b"}) Paragraph(text, true);
  Paragraph("Three");
  EXPECT_EQ(text_, "One\n\nTwo\n\na\nb\n\nThree");
}

TEST_F(BlockTextTest, CollapsesWhiteSpaceWhereItIsToldTo) {
  blocks_.OpenParagraph();
  for (const char* piece : {"\n  one", " ", " two\n", "three"}) blocks_.AppendCollapsed(piece);
  blocks_.CloseParagraph(false);
  EXPECT_EQ(text_, "one two three");
}

TEST_F(BlockTextTest, WritesTablesRowByRow) {
  Paragraph("Before");
  blocks_.OpenTable();
  Cell("a");
  Paragraph("b, line one\nline two");
  Paragraph("b, more");
  blocks_.CloseCell();
  blocks_.CloseRow();
  blocks_.CloseRow();  // an empty one
  Cell("");
  blocks_.OpenTable();
  Cell("inner 1");
  Cell("inner 2");
  blocks_.CloseRow();
  blocks_.CloseTable();
  blocks_.CloseCell();
  Cell("");
  blocks_.CloseRow();
  blocks_.CloseTable();
  Paragraph("After");
  EXPECT_EQ(text_, "Before\n\na\tb, line one line two b, more\n\tinner 1 inner 2\n\nAfter");
}

TEST_F(BlockTextTest, PutsNotesBehindTheirParagraphAndBoxesInFrontOfIt) {
  blocks_.OpenParagraph();
  blocks_.Append("Text[1] goes on");
  blocks_.OpenNote("1");
  Paragraph("A note");
  Paragraph("of two paragraphs");
  blocks_.CloseNote();
  Paragraph("A box");
  blocks_.AddNote("2", "Another");
  blocks_.Append(".");
  blocks_.CloseParagraph(false);
  Paragraph("Next");
  EXPECT_EQ(text_,
            "A box\n\n[1] A note of two paragraphs\n\nText[1] goes on.\n\n[2] Another\n\nNext");
}

TEST_F(BlockTextTest, AParagraphOfNothingButANoteGivesTheNote) {
  blocks_.OpenParagraph();
  Paragraph("");
  blocks_.AddNote("1", "Alone");
  blocks_.CloseParagraph(false);
  Paragraph("Next");
  EXPECT_EQ(text_, "[1] Alone\n\nNext");
}

TEST_F(BlockTextTest, TablesAndNotesInHundredsOfOthersAreTextOfThoseAround) {
  constexpr int kDepth = 500;
  std::string want;
  for (int i = 0; i < kDepth; ++i) {
    blocks_.OpenTable();
    Paragraph(std::to_string(i));
    want += (i == 0 ? "" : " ") + std::to_string(i);
  }
  for (int i = 0; i < kDepth; ++i) {
    blocks_.CloseCell();
    blocks_.CloseRow();
    blocks_.CloseTable();
  }
  Paragraph("After");
  EXPECT_EQ(text_, want + "\n\nAfter");
}

TEST_F(BlockTextTest, PassesOverCallsThatDoNotFit) {
  blocks_.CloseParagraph(false);
  blocks_.CloseCell();
  blocks_.CloseRow();
  blocks_.CloseTable();
  blocks_.CloseNote();
  blocks_.Append("nowhere");
  blocks_.OpenNote("1");
  blocks_.CloseTable();
  blocks_.CloseNote();
  Paragraph("Text");
  EXPECT_EQ(text_, "Text");
}

}  // namespace
}  // namespace fovea::documents
