// fovea ingest --sync: what of a folder is removed, and what is not.
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/command_fixture.h"

namespace fovea::cli {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class SyncTest : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    fs::create_directories(files_);
  }

  // Each a file of this folder, with a text of its own.
  void WriteFiles(const std::set<std::string>& names) const {
    for (const std::string& name : names) {
      fs::create_directories((files_ / name).parent_path());
      Write("files/" + name, "The text of " + name + ".\n");
    }
  }
  // What the memory has of the folder.
  std::set<std::string> Sources() const {
    std::set<std::string> names;
    for (const std::string& line : Lines(Command({"docs", "list", "--json"}).out)) {
      const Json json = Json::parse(line);
      for (const Json& source : json["sources"]) {
        names.insert(fs::path(source["source"].get<std::string>()).lexically_relative(files_));
      }
    }
    return names;
  }

  const fs::path files_ = folder_ / "files";
};

TEST_F(SyncTest, WhatIsNoFileAnyMoreIsRemoved) {
  const std::set<std::string> names = {"keep.txt", "#1.txt", "a#2.txt", "folder",
                                       "broken",   "fifo",   "linked",  "sub/n.txt"};
  WriteFiles(names);
  ASSERT_EQ(Ingest({"--sync", files_.string()}).code, 0);
  EXPECT_EQ(Sources(), names);
  for (const std::string& name : names) {
    if (name != "keep.txt") fs::remove_all(files_ / name);
  }
  fs::remove_all(files_ / "sub");
  fs::create_directories(folder_ / "elsewhere");
  Write("elsewhere/n.txt", kOtter);
  fs::create_directory(files_ / "folder");
  fs::create_symlink(folder_ / "none", files_ / "broken");
  ASSERT_EQ(mkfifo((files_ / "fifo").c_str(), 0600), 0);
  for (const char* link : {"linked", "sub"}) {
    fs::create_directory_symlink(folder_ / "elsewhere", files_ / link);
  }
  const ProgramResult dry = Ingest({"--dry-run", "--sync", files_.string()});
  EXPECT_EQ(Sources(), names);
  const ProgramResult result = Ingest({"--sync", files_.string()});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(Sources(), std::set<std::string>{"keep.txt"});
  EXPECT_EQ(dry.json()["documents"].size(), result.json()["documents"].size());
  EXPECT_EQ(Ingest({"--sync", files_.string()}).json()["documents"].size(), 1u);
}

TEST_F(SyncTest, AHiddenFileThatWasNamedItselfStays) {
  WriteFiles({"keep.txt", ".hidden.txt"});
  ASSERT_EQ(Ingest({(files_ / ".hidden.txt").string()}).code, 0);
  ASSERT_EQ(Ingest({"--sync", files_.string()}).code, 0);
  EXPECT_EQ(Sources(), (std::set<std::string>{"keep.txt", ".hidden.txt"}));
}

TEST_F(SyncTest, APathThatIsNotThereKeepsItsTextAndSaysSo) {
  WriteFiles({"a.txt", "b.txt"});
  ASSERT_EQ(Ingest({"--sync", files_.string()}).code, 0);
  fs::remove(files_ / "a.txt");
  for (const fs::path& path : {files_ / "a.txt", folder_ / "unmounted"}) {
    const ProgramResult result = Ingest({"--sync", path.string()});
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr(path.string() + ": there is no such file or folder, and what "
                                                      "is stored of it stays: --sync removes"));
  }
  EXPECT_EQ(Sources(), (std::set<std::string>{"a.txt", "b.txt"}));
  ASSERT_EQ(Ingest({"--sync", files_.string()}).code, 0);
  EXPECT_EQ(Sources(), std::set<std::string>{"b.txt"});
}

TEST_F(SyncTest, AWatchedFolderNamesAFileThatMoved) {
  WriteFiles({"1.txt", "2.txt"});
  ASSERT_EQ(Ingest({"--sync", files_.string()}).code, 0);
  const int stdin_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  const fs::path out = folder_ / "watch-out";
  const fs::path err = folder_ / "watch-err";
  Program watching({"ingest", "--memory", memory_, "--sync", "--watch", files_}, environment_,
                   stdin_fd, out, err);
  close(stdin_fd);
  const auto wait_for = [&](const fs::path& file, const std::string& words) {
    for (int i = 0; i < 600 && watching.IsRunning(); ++i) {
      if (Slurp(file).find(words) != std::string::npos) return true;
      usleep(100'000);
    }
    return false;
  };
  ASSERT_TRUE(wait_for(err, "watching for changes")) << Slurp(err);
  fs::rename(files_ / "1.txt", files_ / "3.txt");
  EXPECT_TRUE(wait_for(out, "1.txt is gone")) << Slurp(out) << Slurp(err);
  EXPECT_TRUE(wait_for(out, "; stored before; now also " + (files_ / "3.txt").string()))
      << Slurp(out);
  EXPECT_TRUE(wait_for(out, "; 1 moved")) << Slurp(out);
  watching.Signal(SIGINT);
  EXPECT_EQ(watching.Wait().code, 0);
  EXPECT_EQ(Sources(), (std::set<std::string>{"2.txt", "3.txt"}));
}

TEST_F(SyncTest, TheSummaryCountsATextOnceAndItsSources) {
  Write("files/a.txt", "The same text.\n");
  Write("files/b.txt", "The same text.\n");
  Write("files/c.txt", "Another text.\n");
  ASSERT_EQ(Ingest({otter_}).code, 0);
  ASSERT_EQ(Command({"docs", "delete", "--collection", "default"}).code, 0);
  const ProgramResult result = Command({"ingest", "--sync", files_});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, HasSubstr("\n3 sources of 2 documents, 29 tokens, 29 encoded in "));
  const Json stats = Json::parse(Command({"stats", "--json"}).out);
  EXPECT_EQ(stats["tokens"], 29);
  const Json again = Json::parse(Command({"ingest", "--sync", "--json", files_}).out);
  EXPECT_EQ(again["tokens"], 29);
  EXPECT_EQ(again["documents"].size(), 3u);
}

TEST_F(SyncTest, WhatIsSkippedIsNamedByItsWholePath) {
  WriteFiles({"a.txt", "empty.txt"});
  Write("files/empty.txt", "");
  fs::create_symlink("none", files_ / "broken");
  ASSERT_EQ(mkfifo((files_ / "fifo").c_str(), 0600), 0);
  const ProgramResult result = Ingest({"--recursive", fs::relative(files_).string()});
  ASSERT_EQ(result.code, 0) << result.err;
  std::set<std::string> first;
  const Json json = result.json();
  for (const Json& skipped : json["skipped"]) first.insert(skipped["first"]);
  EXPECT_THAT(first, ElementsAre((files_ / "broken").string(), (files_ / "empty.txt").string(),
                                 (files_ / "fifo").string()));
}

}  // namespace
}  // namespace fovea::cli
