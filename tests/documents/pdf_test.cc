#include <zlib.h>

#include "documents/file_kind.h"
#include "tests/documents/document_files.h"
#include "tests/documents/make_pdf.h"

namespace fovea::documents {
namespace {

class PdfTest : public DocumentFilesTest {};

TEST_F(PdfTest, GivesTheTextOfItsPages) {
  const auto path = Write("paper.pdf", MakePdf({PdfPage({"The first line,", "and caf\\351 two."}),
                                                "", PdfPage({"Page three."})},
                                               "/Title (A  Tiny Paper)"));
  EXPECT_EQ(TextOf(path), "The first line,\nand café two.\n\nPage three.");
  const auto document = Open(path);
  EXPECT_EQ(document->title, "A Tiny Paper");
  EXPECT_EQ(document->source, path.native());
  ASSERT_TRUE(ReadText(*document).ok());
  EXPECT_THAT(document->warning, ::testing::StartsWith("1 of 3 pages have no text"));
  EXPECT_EQ(document->size_bytes(), std::filesystem::file_size(path));
}

TEST_F(PdfTest, APdfWithTextOnEveryPageHasNoWarning) {
  const auto document = Open(Write("a.pdf", MakePdf({PdfPage({"x"}), PdfPage({"y"})}, "")));
  EXPECT_EQ(*ReadText(*document), "x\n\ny");
  EXPECT_EQ(document->warning, "");
}

TEST_F(PdfTest, TakesAMissingTitleFromTheFileName) {
  EXPECT_EQ(Open(Write("paper no 1.PDF", MakePdf({PdfPage({"x"})}, "")))->title, "paper no 1");
}

TEST_F(PdfTest, RefusesPagesWithoutText) {
  EXPECT_THAT(OpenError(Write("scan.pdf", MakePdf({"", "0 0 m 9 9 l S"}, ""))),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "scan.pdf: empty: nothing to store (PDF without text: 2 pages: scanned"));
  EXPECT_THAT(OpenError(Write("none.pdf", "")),
              IsStatus(absl::StatusCode::kInvalidArgument, "none.pdf: empty: nothing to store"));
}

TEST_F(PdfTest, OneWithoutTextIsOfAKindOfItsOwn) {
  EXPECT_EQ(KindOfError(OpenError(Write("scan.pdf", MakePdf({""}, "")))), "PDF without text");
}

TEST_F(PdfTest, OneWithoutPagesIsBroken) {
  const absl::Status status = OpenError(Write("none.pdf", MakePdf({}, "")));
  EXPECT_THAT(status, IsStatus(absl::StatusCode::kDataLoss, "none.pdf: broken PDF"));
  EXPECT_EQ(KindOfError(status), "");
}

TEST_F(PdfTest, GivesTheOtherPagesOfAFileWithOneThatCannotBeRead) {
  // The page tree names an object that is not there: the others move up.
  const auto damaged = [](std::string pdf) {
    const std::string kids = "/Kids [5 0 R ";
    pdf.replace(pdf.find(kids), kids.size(), "/Kids [99 0 R ");
    return pdf;
  };
  const auto document = Open(Write(
      "damaged.pdf",
      damaged(MakePdf({PdfPage({"first"}), PdfPage({"second"}), "", PdfPage({"last"})}, ""))));
  EXPECT_EQ(*ReadText(*document), "second\n\nlast");
  EXPECT_THAT(document->warning,
              ::testing::StartsWith("1 of 4 pages cannot be read, the first: page 4: "));
  EXPECT_THAT(document->warning,
              ::testing::HasSubstr("; 1 of 4 pages have no text, the first: page 2: scanned"));
  // What cannot be read may have had text.
  const absl::Status status = OpenError(Write("one.pdf", damaged(MakePdf({PdfPage({"x"})}, ""))));
  EXPECT_THAT(status, IsStatus(absl::StatusCode::kDataLoss,
                               "one.pdf: broken PDF: 1 of 1 pages cannot be read, the first: "));
  EXPECT_EQ(KindOfError(status), "");
}

TEST_F(PdfTest, NamesPagesWhoseContentIsDamaged) {
  // A deflated page that ends early, one whose bytes are none, one that is no stream at all.
  const std::string content = PdfPage({std::string(200, 'a') + " whole", "text of the page"});
  std::string deflated(compressBound(content.size()), '\0');
  uLongf n_bytes = deflated.size();
  ASSERT_EQ(compress(reinterpret_cast<Bytef*>(deflated.data()), &n_bytes,
                     reinterpret_cast<const Bytef*>(content.data()), content.size()),
            Z_OK);
  deflated.resize(n_bytes);
  const auto page = [](const std::string& bytes) {
    return PdfStream{"/Filter /FlateDecode", bytes};
  };
  std::string flipped = deflated;
  flipped[2] = '\x07';  // a block of a kind that there is not
  const auto whole = Open(Write("whole.pdf", MakePdf({page(deflated)}, "")));
  EXPECT_EQ(whole->warning, "");
  EXPECT_THAT(*ReadText(*whole), ::testing::HasSubstr("text of the page"));
  const auto document = Open(
      Write("damaged.pdf", MakePdf({PdfPage({"first"}), page(flipped), PdfPage({"last"})}, "")));
  EXPECT_EQ(*ReadText(*document), "first\n\nlast");
  EXPECT_THAT(document->warning,
              ::testing::StartsWith(
                  "1 of 3 pages damaged, so that text of theirs is missing, the first: page 2: "));
  const absl::Status status = OpenError(Write("all.pdf", MakePdf({page(flipped)}, "")));
  EXPECT_THAT(status, IsStatus(absl::StatusCode::kDataLoss,
                               "all.pdf: broken PDF: 1 of 1 pages damaged, the first: page 1: "));
}

TEST_F(PdfTest, NamesPagesInEncodingsThatPopplerHasNoDataFor) {
  // The first page's font becomes one with a CMap that no package has.
  const auto with_cmap = [](const std::vector<PdfStream>& pages) {
    const std::string first = std::to_string(5 + 2 * pages.size());
    const std::string second = std::to_string(6 + 2 * pages.size());
    std::string pdf =
        MakePdf(pages, "", "",
                {"<< /Type /Font /Subtype /Type0 /BaseFont /Song /Encoding /Fovea-H "
                 "/DescendantFonts [" +
                     second + " 0 R] >>",
                 "<< /Type /Font /Subtype /CIDFontType0 /BaseFont /Song /DW 1000 /CIDSystemInfo << "
                 "/Registry (Adobe) /Ordering (Identity) /Supplement 0 >> >>"});
    const std::string font = "/F1 3 0 R";
    pdf.replace(pdf.find(font), font.size(), "/F1 " + first + " 0 R");
    return pdf;
  };
  const auto document = Open(Write("some.pdf", with_cmap({PdfPage({"abcd"}), PdfPage({"last"})})));
  EXPECT_EQ(*ReadText(*document), "last");
  EXPECT_THAT(document->warning,
              ::testing::AllOf(
                  ::testing::StartsWith("1 of 2 pages use encodings that poppler has no data for, "
                                        "the first: page 1: "),
                  ::testing::EndsWith("may be missing; install the package poppler-data")));
  EXPECT_THAT(OpenError(Write("all.pdf", with_cmap({PdfPage({"abcd"})}))),
              IsStatus(absl::StatusCode::kFailedPrecondition,
                       "all.pdf: PDF: 1 of 1 pages use encodings that poppler has no data for"));
}

TEST_F(PdfTest, RefusesWhatIsNoPdf) {
  EXPECT_THAT(OpenError(Write("text.pdf", "Just some text that was named wrongly.\n")),
              IsStatus(absl::StatusCode::kDataLoss,
                       "text.pdf: broken PDF, or none: it does not begin with %PDF-: if it is"));
  const std::string pdf = MakePdf({PdfPage({"some text"})}, "");
  EXPECT_THAT(OpenError(Write("cut.pdf", pdf.substr(0, 60))),
              IsStatus(absl::StatusCode::kDataLoss, "cut.pdf: broken PDF"));
}

TEST_F(PdfTest, RefusesEncryptedFiles) {
  // The user's password is not the empty one: 32 bytes that match no key.
  const std::string thirty_two = "<" + std::string(64, 'A') + ">";
  const std::string pdf = MakePdf(
      {PdfPage({"secret"})}, "",
      "/Encrypt 7 0 R /ID [<00112233445566778899AABBCCDDEEFF> <00112233445566778899AABBCCDDEEFF>]",
      {"<< /Filter /Standard /V 1 /R 2 /P -4 /O " + thirty_two + " /U " + thirty_two + " >>"});
  EXPECT_THAT(OpenError(Write("locked.pdf", pdf)),
              IsStatus(absl::StatusCode::kInvalidArgument, "locked.pdf: encrypted PDF"));
}

TEST_F(PdfTest, StopsAtItsLimit) {
  const std::string pdf = MakePdf({PdfPage({"some text"})}, "");
  ReadLimits limits;
  limits.max_pdf_bytes = pdf.size() - 1;
  EXPECT_THAT(OpenError(Write("big.pdf", pdf), limits),
              IsStatus(absl::StatusCode::kResourceExhausted, "a PDF may have at most"));
}

// A page that writes one word over itself again and again, as a small deflated stream can.
std::string Bomb(size_t n_bytes) {
  const std::string line = "BT /F1 12 Tf 72 720 Td (aaaaaaaaaaaaaaaaaaaaaaaa) Tj ET\n";
  std::string content;
  while (content.size() < n_bytes) content += line;
  return content;
}

TEST_F(PdfTest, StopsAtTheLimitsOfItsPages) {
  ReadLimits little_text;
  little_text.max_pdf_text_bytes = 10;
  const std::string two = MakePdf({PdfPage({"one line"}), PdfPage({"another"})}, "");
  const auto document = Open(Write("long.pdf", two), little_text);
  EXPECT_THAT(ReadText(*document).status(),
              IsStatus(absl::StatusCode::kResourceExhausted, "more than 10 bytes of text"));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
  ReadLimits little_memory;
  little_memory.max_pdf_memory_bytes = 8 << 20;
  // poppler gives up in ways of its own where it finds no memory.
  const absl::Status status =
      OpenError(Write("large.pdf", MakePdf({Bomb(4 << 20)}, "")), little_memory);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("bytes of memory"));
#endif
}

TEST_F(PdfTest, StopsAtItsTime) {
  ReadLimits little_time;
  little_time.max_pdf_page_seconds = 1;
  little_time.max_pdf_memory_bytes = size_t{64} << 30;  // the time runs out first
  EXPECT_THAT(OpenError(Write("slow.pdf", MakePdf({Bomb(64 << 20)}, "")), little_time),
              IsStatus(absl::StatusCode::kResourceExhausted, "takes too long"));
}

TEST_F(PdfTest, ManyPagesThatAreNotThereAreNone) {
  std::string pdf = MakePdf({PdfPage({"one"})}, "");
  const size_t count = pdf.find("/Count 1 ");
  ASSERT_NE(count, std::string::npos);
  pdf.replace(count, 9, "/Count 2000000000 ");
  for (const Visited& visited : Visit(Write("many.pdf", pdf))) {
    if (visited.status.ok()) ReadText(*visited.document).IgnoreError();
  }
}

TEST_F(PdfTest, ATitleThatWasGivenStays) {
  const auto document = Open(Write("a.pdf", MakePdf({PdfPage({"x"})}, "/Title (Its own)")));
  document->title = "The user's";
  ASSERT_TRUE(document->Rewind().ok());
  ASSERT_TRUE(ReadText(*document).ok());
  EXPECT_EQ(document->title, "The user's");
}

TEST_F(PdfTest, NoticesAFileThatChangesBetweenTwoReadings) {
  const auto path = Write("a.pdf", MakePdf({PdfPage({"some text"})}, ""));
  const auto document = Open(path);
  ASSERT_TRUE(ReadText(*document).ok());
  std::ofstream(path, std::ios::app) << "% more";
  EXPECT_THAT(document->Rewind(),
              IsStatus(absl::StatusCode::kAborted, "changed while it was read"));
}

// Whatever a damaged file gives, it gives it as a document or as an error.
TEST_F(PdfTest, DamagedFilesNeverEndTheProcess) {
  const std::string pdf = MakePdf({PdfPage({"one"}), PdfPage({"two"})}, "/Title (T)");
  int n_errors = 0;
  for (size_t at = 0; at < pdf.size(); at += 7) {
    std::string damaged = pdf;
    damaged[at] = static_cast<char>(damaged[at] ^ 0x15);
    for (const Visited& visited : Visit(Write("damaged.pdf", damaged))) {
      if (!visited.status.ok()) {
        ++n_errors;
        EXPECT_THAT(std::string(visited.status.message()), ::testing::HasSubstr("damaged.pdf: "));
      } else {
        ReadText(*visited.document).IgnoreError();
      }
    }
  }
  EXPECT_GT(n_errors, 0);
}

}  // namespace
}  // namespace fovea::documents
