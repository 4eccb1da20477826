#include "cli/streams.h"

#include <unistd.h>

#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::cli {
namespace {

using ::testing::ElementsAre;

// All lines of `text`, read through a pipe.
std::vector<std::string> ReadLines(const std::string& text) {
  int ends[2];
  FOVEA_CHECK(pipe(ends) == 0);
  std::thread writer([&] {
    size_t begin = 0;
    while (begin < text.size()) {
      const ssize_t n = write(ends[1], text.data() + begin, text.size() - begin);
      FOVEA_CHECK(n > 0);
      begin += static_cast<size_t>(n);
    }
    close(ends[1]);
  });
  LineReader reader(ends[0]);
  std::vector<std::string> lines;
  std::string line;
  while (true) {
    const absl::StatusOr<bool> more = reader.Next(&line);
    FOVEA_CHECK(more.ok());
    if (!*more) break;
    lines.push_back(line);
  }
  writer.join();
  close(ends[0]);
  return lines;
}

TEST(LineReaderTest, SplitsAtNewlinesOnly) {
  EXPECT_THAT(ReadLines("a\n\nb\r\nc"), ElementsAre("a", "", "b\r", "c"));
  EXPECT_THAT(ReadLines(""), ElementsAre());
  EXPECT_THAT(ReadLines("\n"), ElementsAre(""));
}

TEST(LineReaderTest, ReadsLinesLongerThanItsBuffer) {
  const std::string line(300'000, 'x');
  EXPECT_THAT(ReadLines(line + "\n" + line), ElementsAre(line, line));
}

TEST(LineReaderTest, KeepsBytesAsTheyAre) {
  EXPECT_THAT(ReadLines(std::string("a\0\xFF\n", 4)), ElementsAre(std::string("a\0\xFF", 3)));
}

}  // namespace
}  // namespace fovea::cli
