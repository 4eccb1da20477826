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

TEST(LineReaderTest, TellsWhetherALineIsThereWithoutWaitingForIt) {
  int ends[2];
  FOVEA_CHECK(pipe(ends) == 0);
  const auto write_text = [&](std::string_view text) {
    ASSERT_EQ(write(ends[1], text.data(), text.size()), static_cast<ssize_t>(text.size()));
  };
  LineReader reader(ends[0]);
  std::string line;
  EXPECT_FALSE(reader.NextIsReady());
  write_text("first\nsecond\nth");
  EXPECT_TRUE(reader.NextIsReady());
  ASSERT_TRUE(*reader.Next(&line));
  EXPECT_TRUE(reader.NextIsReady());
  ASSERT_TRUE(*reader.Next(&line));
  EXPECT_EQ(line, "second");
  EXPECT_FALSE(reader.NextIsReady());  // the third is not complete
  write_text("ird");
  EXPECT_FALSE(reader.NextIsReady());
  write_text("\n");
  EXPECT_TRUE(reader.NextIsReady());
  ASSERT_TRUE(*reader.Next(&line));
  EXPECT_EQ(line, "third");
  write_text("last");
  close(ends[1]);
  EXPECT_TRUE(reader.NextIsReady());
  ASSERT_TRUE(*reader.Next(&line));
  EXPECT_EQ(line, "last");
  EXPECT_TRUE(reader.NextIsReady());  // the end
  EXPECT_FALSE(*reader.Next(&line));
  close(ends[0]);
}

TEST(LineReaderTest, KeepsBytesAsTheyAre) {
  EXPECT_THAT(ReadLines(std::string("a\0\xFF\n", 4)), ElementsAre(std::string("a\0\xFF", 3)));
}

}  // namespace
}  // namespace fovea::cli
