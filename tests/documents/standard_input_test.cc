#include <fcntl.h>
#include <unistd.h>

#include <thread>

#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

// Runs ReadStandardInput on a pipe that `bytes` are written to.
absl::StatusOr<std::unique_ptr<TextDocument>> ReadPiped(const std::string& bytes) {
  int ends[2];
  EXPECT_EQ(pipe(ends), 0);
  const int saved = dup(STDIN_FILENO);
  EXPECT_GE(dup2(ends[0], STDIN_FILENO), 0);
  close(ends[0]);
  std::thread writer([&] {
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t n = write(ends[1], bytes.data() + at, bytes.size() - at);
      if (n <= 0) break;
      at += static_cast<size_t>(n);
    }
    close(ends[1]);
  });
  auto document = ReadStandardInput();
  writer.join();
  if (saved >= 0) {
    dup2(saved, STDIN_FILENO);
    close(saved);
  } else {
    close(STDIN_FILENO);
  }
  return document;
}

TEST(StandardInputTest, IsADocumentThatCanBeReadAgain) {
  std::string text = "Title: Piped\n";
  for (int i = 0; i < 300000; ++i) text += i % 2 == 0 ? "é" : "a";
  const auto document = ReadPiped(text);
  ASSERT_TRUE(document.ok()) << document.status();
  EXPECT_EQ((*document)->source, "-");
  EXPECT_EQ((*document)->title, "Piped");
  EXPECT_FALSE((*document)->replaceable);
  EXPECT_EQ((*document)->size_bytes(), text.size());
  EXPECT_EQ(*ReadText(**document), text);
  ASSERT_TRUE((*document)->Rewind().ok());
  EXPECT_EQ(*ReadText(**document), text);
}

TEST(StandardInputTest, EmptyOrBinaryInputIsAnError) {
  EXPECT_THAT(ReadPiped("").status(), IsStatus(absl::StatusCode::kInvalidArgument,
                                               "standard input: empty: nothing to store"));
  EXPECT_THAT(ReadPiped(std::string("ab\0c", 4)).status(),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "standard input: not text: NUL byte at byte offset 2"));
  EXPECT_THAT(ReadPiped("%PDF-1.4\n1 0 obj\n").status(),
              IsStatus(absl::StatusCode::kInvalidArgument,
                       "standard input: no text, but of this kind: PDF document: pass a file"));
}

}  // namespace
}  // namespace fovea::documents
