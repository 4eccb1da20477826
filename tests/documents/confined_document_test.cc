#include "documents/confined_document.h"

#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

class ConfinedDocumentTest : public DocumentFilesTest {
 protected:
  // A document of these pieces; each process that reads it writes a byte into a file.
  std::unique_ptr<TextDocument> OpenPieces(const std::vector<std::string>& pieces) {
    auto file = InputFile::Open(Write("file", "x"), "file");
    EXPECT_TRUE(file.ok()) << file.status();
    auto document = OpenConfined(*std::move(file), {.format = "test",
                                                    .advice = "none",
                                                    .limits = {size_t{1} << 30, 60},
                                                    .max_text_bytes = 1 << 20,
                                                    .read = [this, pieces](TextSender& sender) {
                                                      std::ofstream(folder_ / "runs", std::ios::app)
                                                          << 'x';
                                                      for (const std::string& piece : pieces) {
                                                        if (!sender.SendText(piece)) return;
                                                      }
                                                      sender.SendWarning("a warning");
                                                    }});
    EXPECT_TRUE(document.ok()) << document.status();
    return *std::move(document);
  }
  uintmax_t NumRuns() const { return std::filesystem::file_size(folder_ / "runs"); }
};

TEST_F(ConfinedDocumentTest, OneThatComesAtOnceIsReadOnce) {
  const auto document = OpenPieces({"all of it"});
  for (int i = 0; i < 3; ++i) {
    EXPECT_EQ(*ReadText(*document), "all of it");
    EXPECT_EQ(document->warning, "a warning");
    ASSERT_TRUE(document->Rewind().ok());
  }
  EXPECT_EQ(NumRuns(), 1u);
}

TEST_F(ConfinedDocumentTest, OpeningReadsNothingTwice) {
  const auto document = OpenPieces({"one ", "two"});
  EXPECT_EQ(*ReadText(*document, 4), "one two");
  EXPECT_EQ(NumRuns(), 1u);
  ASSERT_TRUE(document->Rewind().ok());
  EXPECT_EQ(*ReadText(*document), "one two");
  EXPECT_EQ(NumRuns(), 2u);
}

}  // namespace
}  // namespace fovea::documents
