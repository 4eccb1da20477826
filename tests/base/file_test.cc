#include "base/file.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea {
namespace {

namespace fs = std::filesystem;

class FileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "fovea_file_test.XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override {
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
  }
  std::set<std::string> Names() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(folder_)) {
      names.insert(entry.path().filename().string());
    }
    return names;
  }

  fs::path folder_;
};

TEST_F(FileTest, WhatIsWrittenIsRead) {
  const fs::path path = folder_ / "a";
  std::string content(300000, 'x');
  content[5] = '\0';
  for (const std::string& bytes : {content, std::string("short"), std::string()}) {
    ASSERT_TRUE(WriteFileAtomic(path, bytes).ok());
    const auto read = ReadFile(path);
    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(*read, bytes);
    const auto mapped = MappedFile::Open(path);
    ASSERT_TRUE(mapped.ok()) << mapped.status();
    EXPECT_EQ((*mapped)->bytes(), bytes);
    EXPECT_EQ((*mapped)->path(), path);
  }
  EXPECT_THAT(Names(), testing::ElementsAre("a"));  // no temporary file left
}

TEST_F(FileTest, ReplacingKeepsWhatIsMapped) {
  const fs::path path = folder_ / "a";
  ASSERT_TRUE(WriteFileAtomic(path, "old content").ok());
  const auto mapped = MappedFile::Open(path);
  ASSERT_TRUE(mapped.ok());
  ASSERT_TRUE(WriteFileAtomic(path, "new").ok());
  EXPECT_EQ((*mapped)->bytes(), "old content");
  EXPECT_EQ(*ReadFile(path), "new");
}

TEST_F(FileTest, AFailedReplacementLeavesTheOldContentAndNoTemporaryFile) {
  // A folder cannot be replaced by a file: the rename fails after everything was written.
  const fs::path path = folder_ / "folder";
  ASSERT_TRUE(CreateDirectories(path / "inner").ok());
  EXPECT_FALSE(WriteFileAtomic(path, "bytes").ok());
  EXPECT_TRUE(fs::is_directory(path / "inner"));
  EXPECT_THAT(Names(), testing::ElementsAre("folder"));
}

TEST_F(FileTest, MissingFilesAreNotFoundByName) {
  const fs::path path = folder_ / "missing" / "a";
  for (const absl::Status& status : {ReadFile(path).status(), MappedFile::Open(path).status(),
                                     WriteFileAtomic(path, "x"), SyncPath(path)}) {
    EXPECT_TRUE(absl::IsNotFound(status)) << status;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(path.string()));
  }
}

TEST_F(FileTest, ReadRefusesMoreThanTheLimit) {
  const fs::path path = folder_ / "a";
  ASSERT_TRUE(WriteFileAtomic(path, std::string(1000, 'x')).ok());
  EXPECT_TRUE(ReadFile(path, 1000).ok());
  const auto read = ReadFile(path, 999);
  EXPECT_TRUE(absl::IsResourceExhausted(read.status()));
  EXPECT_THAT(std::string(read.status().message()), testing::HasSubstr("999"));
}

TEST_F(FileTest, OnlyRegularFilesAreMapped) {
  EXPECT_TRUE(absl::IsInvalidArgument(MappedFile::Open(folder_).status()));
  EXPECT_FALSE(ReadFile(folder_).ok());
}

TEST_F(FileTest, CreateDirectoriesMakesParentsAndAcceptsExistingOnes) {
  EXPECT_TRUE(CreateDirectories(folder_ / "a" / "b" / "c").ok());
  EXPECT_TRUE(CreateDirectories(folder_ / "a" / "b" / "c").ok());
  EXPECT_TRUE(fs::is_directory(folder_ / "a" / "b" / "c"));
  ASSERT_TRUE(WriteFileAtomic(folder_ / "file", "x").ok());
  EXPECT_FALSE(CreateDirectories(folder_ / "file" / "d").ok());
}

TEST_F(FileTest, SyncsFilesAndFolders) {
  ASSERT_TRUE(WriteFileAtomic(folder_ / "a", "x").ok());
  EXPECT_TRUE(SyncPath(folder_ / "a").ok());
  EXPECT_TRUE(SyncPath(folder_).ok());
}

TEST_F(FileTest, ErrnosBecomeTheirCodes) {
  EXPECT_TRUE(absl::IsNotFound(ErrnoToStatus(ENOENT, "open", "p")));
  EXPECT_TRUE(absl::IsPermissionDenied(ErrnoToStatus(EACCES, "open", "p")));
  EXPECT_TRUE(absl::IsPermissionDenied(ErrnoToStatus(EROFS, "open", "p")));
  EXPECT_TRUE(absl::IsResourceExhausted(ErrnoToStatus(ENOSPC, "write", "p")));
  EXPECT_TRUE(absl::IsResourceExhausted(ErrnoToStatus(EDQUOT, "write", "p")));
  EXPECT_TRUE(absl::IsInternal(ErrnoToStatus(EIO, "write", "p")));
  const absl::Status status = ErrnoToStatus(EIO, "write", "/some/file");
  EXPECT_THAT(std::string(status.message()),
              testing::AllOf(testing::HasSubstr("/some/file"), testing::HasSubstr("write")));
}

}  // namespace
}  // namespace fovea
