#include "documents/file_kind.h"

#include "tests/documents/document_files.h"
#include "tests/documents/make_pdf.h"

namespace fovea::documents {
namespace {

using namespace std::string_view_literals;

class FileKindTest : public DocumentFilesTest {};

TEST_F(FileKindTest, NamesWhatIsNoTextByItsFirstBytesWhateverItsName) {
  const std::pair<std::string_view, std::string_view> kFiles[] = {
      {"\x89PNG\r\n\x1A\n\0\0\0\rIHDR"sv, "PNG image"},
      {"\xFF\xD8\xFF\xE0\0\x10JFIF"sv, "JPEG image"},
      {"GIF89a\1\0\1\0"sv, "GIF image"},
      {"RIFF\x24\0\0\0WEBPVP8 "sv, "WebP image"},
      {"RIFF\x24\0\0\0WAVEfmt "sv, "WAV audio"},
      {"\x1F\x8B\x08\0\0\0"sv, "gzip file"},
      {"BZh9\x17rE8P\x90\0\0\0\0"sv, "bzip2 file"},
      {"\xFD"
       "7zXZ\0\0"sv,
       "xz file"},
      {"\x7F"
       "ELF\2\1\1\0"sv,
       "ELF program"},
      {"MZ\x90\0\3\0"sv, "Windows program"},
      {"SQLite format 3\0\x10\0"sv, "SQLite database"},
      {"\xD0\xCF\x11\xE0\xA1\xB1\x1A\xE1\0"sv, "Office file of before 2007, or an encrypted one"},
      {"\0\0\0\x18"
       "ftypmp42"sv,
       "MP4 audio, video or image"},
      {"{\\rtf1\\ansi hello}"sv, "RTF document"},
      {"{\\rtf1\r\n{\\fonttbl}}"sv, "RTF document"},
      {"\x40\0\0\0\0\0\0\0{\"a\":{}}"sv, "safetensors file"},
      {"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\n"sv, "Git LFS pointer"},
  };
  for (const auto& [bytes, kind] : kFiles) {
    EXPECT_EQ(KindOf(bytes), kind);
    for (const char* name : {"file", "file.txt", "file.md", "file.pdf", "file.jsonl"}) {
      const absl::Status status = OpenError(Write(name, bytes));
      EXPECT_THAT(status, IsStatus(absl::StatusCode::kInvalidArgument, kind)) << name;
      EXPECT_EQ(KindOfError(status), kind) << name;
    }
  }
}

// Only what cannot be a text is refused for how it begins.
TEST_F(FileKindTest, ATextMayBeginWithWhatOtherFilesBeginWith) {
  constexpr std::string_view kBeginnings[] = {"%PDF-",
                                              "%PDF-1.4",
                                              "%PDF-1.4\n",
                                              "%PDF-1.4 %",
                                              "{\\rtf",
                                              "{\\rtf1",
                                              "{\\rtf1 ",
                                              "{\\rtf1}",
                                              "version https://git-lfs.github.com/spec/v1",
                                              "PNG",
                                              "JFIF",
                                              "GIF8",
                                              "GIF87a",
                                              "GIF89a",
                                              "II*",
                                              "MM",
                                              "BM",
                                              "8BPS",
                                              "AT&TFORM",
                                              "PK",
                                              "BZh",
                                              "BZh9",
                                              "7zXZ",
                                              "7z",
                                              "Rar!",
                                              "!<arch>\n",
                                              "MSCF",
                                              "ELF",
                                              "MZ",
                                              "asm",
                                              "BC",
                                              "SQLite format 3",
                                              "ID3",
                                              "OggS",
                                              "fLaC",
                                              "FLV",
                                              "wOFF",
                                              "wOF2",
                                              "OTTO",
                                              "GGUF",
                                              "NUMPY",
                                              "HDF\r\n",
                                              "PAR1",
                                              "ARROW1",
                                              "%!PS",
                                              "RIFF",
                                              "RIFF    WAVE",
                                              "RIFF    AVI ",
                                              "RIFF    WEBP",
                                              "    ftyp",
                                              "    {\"",
                                              "        {\"",
                                              "<html",
                                              "<?xml",
                                              "<!doctype",
                                              "#!"};
  for (const std::string_view beginning : kBeginnings) {
    for (const std::string_view prose :
         {" is how files of a kind begin.\n", "is a version, says caf\u00E9.\n", "\n\nProse.\n"}) {
      const std::string text = std::string(beginning) + std::string(prose);
      EXPECT_EQ(KindOf(text), "") << text;
      for (const char* name : {"notes", "notes.txt", "notes.md", "notes.log"}) {
        EXPECT_EQ(TextOf(Write(name, text)), text) << name;
      }
      const std::string old = text + "caf\xE9\n";
      EXPECT_EQ(KindOfError(OpenError(Write("notes.log", old))),
                ".log file, text of another encoding than UTF-8")
          << text;
    }
  }
  EXPECT_EQ(TextOf(Write("ustar.txt", std::string(257, 'a') + "ustar")),
            std::string(257, 'a') + "ustar");
}

TEST_F(FileKindTest, NamesATarArchiveByWhatStandsFarFromItsBeginning) {
  std::string tar(1024, '\0');
  tar.replace(0, 5, "a.txt");
  EXPECT_EQ(KindOf(tar), "");
  tar.replace(257, 5, "ustar");
  EXPECT_EQ(KindOf(tar), "tar archive");
}

TEST_F(FileKindTest, SaysOfWhatItDoesNotKnowThatItIsNoText) {
  const auto kind_of = [&](const char* name, std::string_view bytes) {
    return KindOfError(OpenError(Write(name, bytes)));
  };
  EXPECT_EQ(kind_of("core.BIN", "a\0b"sv), ".bin file, not text");
  EXPECT_EQ(kind_of("core", "a\0b"sv), "file without an extension, not text");
  EXPECT_EQ(kind_of("a.an extension of many words", "a\0b"sv),
            "file without an extension, not text");
  EXPECT_EQ(kind_of("old.c", "/* caf\xE9 */"), ".c file, text of another encoding than UTF-8");
  EXPECT_EQ(kind_of("logo.php", "<!DOCTYPE html><img src='a.png'>"), "HTML page without text");
  EXPECT_EQ(kind_of("empty.py", "\n"), "empty file");
  EXPECT_EQ(kind_of("empty.txt", ""), "empty file");
  EXPECT_EQ(kind_of("empty.html", "<p hidden>x</p>"), "HTML page without text");
  // These are errors wherever they lie: their names say that they are documents.
  EXPECT_EQ(kind_of("old.txt", "caf\xE9"), "");
  EXPECT_EQ(kind_of("zeros.md", "a\0b"sv), "");
  EXPECT_EQ(kind_of("page.html", "a\0b"sv), "");
  EXPECT_EQ(kind_of("records.jsonl", "no record"), "");
}

TEST_F(FileKindTest, SaysWhatToDo) {
  EXPECT_THAT(OpenError(Write("a.gz", "\x1F\x8B\x08\0"sv)),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "a.gz: no text, but a file of this kind: gzip file: unpack it first"));
  EXPECT_THAT(OpenError(Write("a.db", "SQLite format 3\0"sv)),
              IsStatus(absl::StatusCode::kInvalidArgument, "SQLite database: want UTF-8 text"));
}

#ifdef FOVEA_PDF
TEST_F(FileKindTest, ReadsAPdfOfAnyName) {
  const std::string pdf = MakePdf({PdfPage({"A page."})}, "");
  for (const char* front : {"", "\n\n", "\r\n \t"}) {
    EXPECT_EQ(TextOf(Write("paper", front + pdf)), "A page.");
  }
}
#endif

TEST_F(FileKindTest, ReadsAPageOfHtmlOfAnyName) {
  for (const char* page : {"<!DOCTYPE html><title>A page</title><p>One<p>Two",
                           "\n<HTML><head><title>A page</title></head><p>One</p><p>Two</p></html>",
                           "<?xml version=\"1.0\"?>\n<html xmlns=\"x\"><head><title>A page</title>"
                           "</head><body><p>One</p><p>Two</p></body></html>"}) {
    for (const char* name : {"page", "page.php", "page.xhtml"}) {
      EXPECT_EQ(TextOf(Write(name, page)), "One\n\nTwo") << page;
      EXPECT_EQ(Open(folder_ / name)->title, "A page");
    }
    EXPECT_EQ(TextOf(Write("page.txt", page)), page);
  }
  const std::string page = "<html><head><title>A page</title></head><p>One</p><p>Two</p></html>";
  const std::string comment = "<!-- " + std::string(3000, '-') + " <html> -->";
  for (const std::string& front : {std::string("\xEF\xBB\xBF"), std::string("\f\n\xEF\xBB\xBF \t"),
                                   comment, "\xEF\xBB\xBF" + comment + "\n<!-- another -->\r\n"}) {
    EXPECT_EQ(TextOf(Write("page", front + page)), "One\n\nTwo") << front;
    EXPECT_EQ(TextOf(Write("page", front + "<!DOCTYPE html>" + page)), "One\n\nTwo") << front;
  }
  std::string utf16 = "\xFF\xFE";
  for (const char c : page) utf16 += {c, '\0'};
  EXPECT_EQ(TextOf(Write("page", utf16)), "One\n\nTwo");
  for (const char* text : {"<!-- a comment -->\n# Notes\n", "<!-- <html><head> not closed"}) {
    EXPECT_EQ(TextOf(Write("notes", text)), text);
  }
  EXPECT_EQ(TextOf(Write("data.xml", "<?xml version=\"1.0\"?><a>x</a>")),
            "<?xml version=\"1.0\"?><a>x</a>");
}

}  // namespace
}  // namespace fovea::documents
