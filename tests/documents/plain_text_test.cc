#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "documents/file_kind.h"
#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

using ::testing::EndsWith;

class PlainTextTest : public DocumentFilesTest {};

TEST_F(PlainTextTest, GivesTheTextAsItIs) {
  const std::string text = "First line.\r\nSecond: é € 😀\n\n\tThird\x01.";
  const auto path = Write("story.txt", text);
  EXPECT_EQ(TextOf(path), text);
  const auto document = Open(path);
  EXPECT_EQ(document->title, "story");
  EXPECT_EQ(document->source, path.native());
  EXPECT_TRUE(document->replaceable);
  EXPECT_EQ(document->collection, "");
  EXPECT_EQ(document->size_bytes(), text.size());
}

TEST_F(PlainTextTest, CutsPiecesBetweenCharactersWhateverTheirSize) {
  std::string text;
  for (int i = 0; i < 30000; ++i) text += i % 3 == 0 ? "€" : i % 3 == 1 ? "😀" : "é";
  const auto path = Write("a.txt", text);
  for (const size_t piece_bytes : {4u, 5u, 7u, 4096u, 65537u}) {
    const auto document = Open(path);
    const auto read = ReadText(*document, piece_bytes);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, text);
  }
}

TEST_F(PlainTextTest, DropsTheByteOrderMarkAtTheStartOnly) {
  EXPECT_EQ(TextOf(Write("a.txt", "\xEF\xBB\xBFone \xEF\xBB\xBFtwo")), "one \xEF\xBB\xBFtwo");
}

TEST_F(PlainTextTest, TakesUnknownExtensionsAsText) {
  EXPECT_EQ(TextOf(Write("Makefile", "all:\n")), "all:\n");
  EXPECT_EQ(TextOf(Write("code.py", "pass\n")), "pass\n");
  EXPECT_EQ(Open(Write("code.py", "pass\n"))->title, "code.py");
  EXPECT_EQ(TextOf(Write("table.csv", "\xEF\xBB\xBFname,age\nAda,36\n")), "name,age\nAda,36\n");
  EXPECT_EQ(TextOf(Write("notes", std::string("\xFF\xFEh\0i\0", 6))), "hi");
  EXPECT_EQ(TextOf(Write("image.png", "Named wrongly.")), "Named wrongly.");
  EXPECT_EQ(TextOf(Write("MZ.log", "BM, MZ and GIF8 begin this text")),
            "BM, MZ and GIF8 begin this text");
}

TEST_F(PlainTextTest, TakesTheTitleOfMarkdownFromItsHeading) {
  const auto path = Write("notes.MD", "intro\n\n# Field Notes\n\n* one\n");
  EXPECT_EQ(Open(path)->title, "Field Notes");
  EXPECT_EQ(TextOf(path), "intro\n\n# Field Notes\n\n* one\n");
}

TEST_F(PlainTextTest, NamesTheByteThatIsNoText) {
  EXPECT_THAT(
      OpenError(Write("nul.txt", std::string_view("abc\0def", 7))),
      IsStatus(absl::StatusCode::kInvalidArgument, "nul.txt: not text: NUL byte at byte offset 3"));
  EXPECT_THAT(OpenError(Write("latin.txt", "caf\xE9 au lait")),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "latin.txt: not UTF-8: byte 0xE9 at byte offset 3"));
  EXPECT_THAT(OpenError(Write("elf", std::string_view("\x7F"
                                                      "ELF\x02\x01\x01\0",
                                                      8))),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "elf: no text, but a file of this kind: ELF program: want UTF-8 text"));
}

TEST_F(PlainTextTest, SaysOfUtf16WithoutAMarkWhatItSeemsToBe) {
  std::string little, big, other;
  for (const char c : std::string("Some words.\n")) {
    little += {c, '\0'};
    big += {'\0', c};
    other += {c, '\0', '\0', c};
  }
  for (const std::string& text : {little, big}) {
    EXPECT_THAT(OpenError(Write("a.txt", text)),
                IsStatus(absl::StatusCode::kInvalidArgument,
                         ": it seems to be UTF-16 without a byte-order mark: convert it"));
    EXPECT_THAT(OpenError(Write("a.jsonl", text)),
                IsStatus(absl::StatusCode::kInvalidArgument, "a.jsonl: UTF-16"));
    EXPECT_EQ(KindOfError(OpenError(Write("a.log", text))),
              ".log file, text of another encoding than UTF-8");
  }
  EXPECT_THAT(OpenError(Write("a.txt", other)),
              IsStatus(absl::StatusCode::kInvalidArgument, "offset 1: want UTF-8 text, Markdown"));
  EXPECT_THAT(OpenError(Write("a.txt", std::string(100, '\0'))),
              IsStatus(absl::StatusCode::kInvalidArgument, "offset 0: want UTF-8 text, Markdown"));
}

TEST_F(PlainTextTest, FindsABadByteFarIntoTheFileAndStaysBroken) {
  std::string text(200000, 'a');
  text[150001] = '\xFF';
  const auto document = Open(Write("late.txt", text));
  const auto read = ReadText(*document, 1000);
  EXPECT_THAT(read.status(), IsStatus(absl::StatusCode::kInvalidArgument, "at byte offset 150001"));
  std::string more;
  EXPECT_FALSE(document->Read(1000, &more).ok());
  EXPECT_EQ(more, "");
}

TEST_F(PlainTextTest, RefusesACharacterCutOffAtTheEnd) {
  EXPECT_THAT(OpenError(Write("cut.txt", "text \xE2\x82")),
              IsStatus(absl::StatusCode::kInvalidArgument, "byte 0xE2 at byte offset 5"));
  EXPECT_THAT(OpenError(Write("half.txt", "\xE2\x82")),
              IsStatus(absl::StatusCode::kInvalidArgument, "byte 0xE2 at byte offset 0"));
}

TEST_F(PlainTextTest, RefusesEmptyFiles) {
  for (const std::string_view bytes : {"", "\xEF\xBB\xBF", " \r\n\t\n"}) {
    const absl::Status status = OpenError(Write("empty.txt", bytes));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), EndsWith("empty.txt: empty: nothing to store"));
  }
  EXPECT_THAT(OpenError(Write("spaces.txt", std::string(3 << 20, '\n'))),
              IsStatus(absl::StatusCode::kInvalidArgument, "empty: nothing to store"));
  EXPECT_EQ(TextOf(Write("late.txt", std::string(3 << 20, '\n') + "a")).size(), (3u << 20) + 1);
}

TEST_F(PlainTextTest, NoticesAFileThatChangesBetweenTwoReadings) {
  const std::string text(100000, 'a');
  const auto path = Write("a.txt", text);
  const auto document = Open(path);
  ASSERT_TRUE(ReadText(*document).ok());
  Write("a.txt", text + "b");
  EXPECT_THAT(document->Rewind(),
              IsStatus(absl::StatusCode::kAborted, "changed while it was read"));
}

TEST_F(PlainTextTest, NoticesAFileThatChangesDuringAReading) {
  for (const size_t new_size : {0u, 50000u, 100001u}) {
    const auto path = Write("a.txt", std::string(100000, 'a'));
    const auto document = Open(path);
    std::string piece;
    ASSERT_TRUE(document->Read(60000, &piece).ok());
    std::filesystem::resize_file(path, new_size);
    EXPECT_THAT(ReadText(*document).status(),
                IsStatus(absl::StatusCode::kAborted, "changed while it was read"));
  }
}

TEST_F(PlainTextTest, NoticesOtherContentOfTheSameSizeAndTime) {
  const auto path = Write("a.txt", std::string(1000, 'a'));
  struct stat before;
  ASSERT_EQ(stat(path.c_str(), &before), 0);
  const auto document = Open(path);
  ASSERT_TRUE(ReadText(*document).ok());
  Write("a.txt", std::string(1000, 'b'));
  const timespec times[2] = {before.st_atim, before.st_mtim};
  ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
  ASSERT_TRUE(document->Rewind().ok());
  EXPECT_THAT(ReadText(*document).status(),
              IsStatus(absl::StatusCode::kAborted, "changed while it was read"));
}

TEST_F(PlainTextTest, RefusesWhatIsNoFileWithoutWaiting) {
  EXPECT_THAT(OpenError(folder_),
              IsStatus(absl::StatusCode::kInvalidArgument, "a folder, want a file"));
  const auto fifo = folder_ / "fifo.txt";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  EXPECT_THAT(OpenError(fifo), IsStatus(absl::StatusCode::kInvalidArgument, "a FIFO, want a"));
  EXPECT_THAT(OpenError("/dev/zero"), IsStatus(absl::StatusCode::kInvalidArgument, "a device"));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  const auto socket_path = folder_ / "socket.txt";
  ASSERT_LT(socket_path.native().size(), sizeof(address.sun_path));
  std::copy_n(socket_path.c_str(), socket_path.native().size() + 1, address.sun_path);
  const int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
  ASSERT_EQ(bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof(address)), 0);
  EXPECT_THAT(OpenError(socket_path), IsStatus(absl::StatusCode::kInvalidArgument, "a socket"));
  close(descriptor);
  EXPECT_THAT(OpenError(folder_ / "none.txt"), IsStatus(absl::StatusCode::kNotFound, "none.txt"));
}

TEST_F(PlainTextTest, ReportsAFileThatMayNotBeRead) {
  const auto path = Write("secret.txt", "x");
  ASSERT_EQ(chmod(path.c_str(), 0), 0);
  const Unprivileged unprivileged;
  if (!unprivileged.ok()) GTEST_SKIP() << "this user may read every file, and not become another";
  EXPECT_THAT(OpenError(path), IsStatus(absl::StatusCode::kPermissionDenied, "secret.txt"));
}

TEST_F(PlainTextTest, NamesSourcesByAbsoluteNormalisedPaths) {
  Write("sub/a.txt", "text");
  const auto path = folder_ / "sub" / "a.txt";
  EXPECT_EQ(Open(folder_ / "." / "sub" / "" / "a.txt")->source, path.native());
  const auto here = std::filesystem::current_path();
  std::filesystem::current_path(folder_);
  EXPECT_EQ(Open("sub/a.txt")->source, path.native());
  EXPECT_EQ(Open("./sub/../sub/a.txt")->source,
            (std::filesystem::canonical(folder_) / "sub/a.txt").native());
  std::filesystem::current_path(here);
}

TEST_F(PlainTextTest, AsksTheFileSystemWhatADotDotBehindALinkMeans) {
  Write("deep/er/a.txt", "deep");
  Write("deep/b.txt", "deep b");
  Write("b.txt", "b");
  std::filesystem::create_directory_symlink(folder_ / "deep" / "er", folder_ / "link");
  const auto document = Open(folder_ / "link" / ".." / "b.txt");
  EXPECT_EQ(document->source, (std::filesystem::canonical(folder_) / "deep" / "b.txt").native());
  EXPECT_EQ(*ReadText(*document), "deep b");
}

TEST_F(PlainTextTest, ReadsPathsWithOddCharacters) {
  for (const std::string name :
       {"a b.txt", "naïve #1 %20?.txt", "-rf.txt", "'\"$(x)`.txt", "😀.txt"}) {
    const auto path = Write(name, "text");
    EXPECT_EQ(TextOf(path), "text") << name;
    EXPECT_EQ(Open(path)->source, path.native());
  }
  EXPECT_EQ(Open(Write("new\nline\xE9\\.txt", "text"))->source,
            folder_.native() + "/new\\x0Aline\\xE9\\x5C.txt");
}

TEST_F(PlainTextTest, ReturnsTheVisitorsError) {
  const absl::Status status =
      ReadDocuments(Write("a.txt", "text"), ReadLimits(),
                    [](const std::string&, auto) { return absl::CancelledError("enough"); });
  EXPECT_THAT(status, IsStatus(absl::StatusCode::kCancelled, "enough"));
}

TEST(MakeTextDocumentTest, ReadsItsTextInPieces) {
  const auto document = MakeTextDocument("T", "memory", "\xEF\xBB\xBFé€😀 end");
  EXPECT_EQ(document->title, "T");
  EXPECT_EQ(document->source, "memory");
  EXPECT_EQ(*ReadText(*document, 4), "é€😀 end");
  ASSERT_TRUE(document->Rewind().ok());
  EXPECT_EQ(*ReadText(*document), "é€😀 end");
}

TEST(MakeTextDocumentTest, RefusesTextThatIsNone) {
  const auto document = MakeTextDocument("T", "memory", "abc\xFFxyz");
  EXPECT_THAT(ReadText(*document).status(),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "memory: not UTF-8: byte 0xFF at byte offset 3"));
}

}  // namespace
}  // namespace fovea::documents
