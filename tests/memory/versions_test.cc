// CURRENT lost or damaged: named, put right where the versions tell which was the active one, and
// never the reason for an empty memory beside stored documents.
#include "memory/versions.h"

#include "base/file.h"
#include "tests/memory/synthetic_memory.h"

namespace fovea::memory {
namespace {

using storage::OpenMode;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

class VersionsTest : public testing::Test {
 protected:
  std::filesystem::path Folder() const { return folder_ / "m"; }
  // A memory of two documents in version 0001, not open.
  void SetUp() override {
    ASSERT_OK_AND_ASSIGN(const auto memory, CreateSyntheticMemory(Folder(), "exact"));
    ASSERT_OK(AddDocument(memory->store(), {}).status());
    ASSERT_OK(AddDocument(memory->store(), {}).status());
    ASSERT_OK(memory->Publish());
  }
  // The same documents and one more in the next version.
  void CopyVersion(const std::string& from, const std::string& to) {
    std::filesystem::copy(Folder() / from, Folder() / to, std::filesystem::copy_options::recursive);
    MemoryOptions options;
    options.mode = OpenMode::kWrite;
    options.version = to;
    ASSERT_OK_AND_ASSIGN(const auto memory, Memory::Open(Folder(), options));
    ASSERT_OK(AddDocument(memory->store(), {}).status());
  }
  void WriteCurrent(const std::string& content) {
    ASSERT_OK(WriteFileAtomic(Folder() / "CURRENT", content));
  }
  void WriteState(const std::string& version, const std::string& content) {
    ASSERT_OK(WriteFileAtomic(Folder() / version / "STATE", content));
  }
  void LoseCurrent() { std::filesystem::remove(Folder() / "CURRENT"); }
  std::string State(const std::string& version) const {
    return ReadFile(Folder() / version / "STATE").value_or("");
  }
  size_t CountDocuments(OpenMode mode = OpenMode::kRead) {
    const auto memory = OpenMemory(Folder(), mode);
    EXPECT_OK(memory.status());
    return memory.ok() ? (*memory)->Current()->documents.size() : 0;
  }
  // Names the damage in every mode, changes nothing, and is put right to `version`.
  void ExpectRestored(const std::string& words, const std::string& version) {
    const std::vector<std::string> before = FilesIn(Folder());
    for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite}) {
      const absl::Status status = OpenMemory(Folder(), mode).status();
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      EXPECT_THAT(std::string(status.message()),
                  AllOf(HasSubstr(words), HasSubstr("fovea verify --repair")));
    }
    EXPECT_EQ(FilesIn(Folder()), before);
    const absl::StatusOr<std::string> restored = RestoreCurrent(Folder());
    ASSERT_OK(restored.status());
    EXPECT_THAT(*restored, AllOf(HasSubstr(words), HasSubstr("now it names " + version)));
    const absl::StatusOr<std::string> current = CurrentVersion(Folder());
    ASSERT_OK(current.status());
    EXPECT_EQ(*current, version);
  }
  // Cannot be told: named, nothing changed.
  void ExpectRefused(const std::vector<std::string>& words) {
    const auto current = ReadFile(Folder() / "CURRENT");
    const absl::Status status = RestoreCurrent(Folder()).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("cannot be told"));
    for (const std::string& word : words) {
      EXPECT_THAT(std::string(status.message()), HasSubstr(word));
    }
    EXPECT_EQ(ReadFile(Folder() / "CURRENT"), current);
    // Nor does an ingest begin an empty memory.
    const std::vector<std::string> files = FilesIn(Folder());
    const absl::Status created = OpenMemory(Folder(), OpenMode::kCreate).status();
    EXPECT_TRUE(absl::IsDataLoss(created)) << created;
    EXPECT_EQ(FilesIn(Folder()), files);
  }

  TemporaryFolder folder_;
};

TEST_F(VersionsTest, ASoundCurrentIsLeftAlone) {
  ASSERT_OK_AND_ASSIGN(const std::string restored, RestoreCurrent(Folder()));
  EXPECT_EQ(restored, "");
  EXPECT_TRUE(absl::IsNotFound(RestoreCurrent(folder_ / "nothing").status()));
  EXPECT_EQ(State("0001"), "");
}

TEST_F(VersionsTest, DamagedContentIsPutRight) {
  for (const std::string& content : {std::string(), std::string("000\n"),
                                     std::string("0\0"
                                                 "001",
                                                 5),
                                     std::string("000\xb1\n"), std::string(100, '0')}) {
    SCOPED_TRACE(content);
    WriteCurrent(content);
    ExpectRestored("want the name of a version folder such as 0001", "0001");
    EXPECT_EQ(CountDocuments(), 2u);
  }
}

TEST_F(VersionsTest, AVersionThatIsNotThereIsPutRight) {
  WriteCurrent("0201\n");
  ExpectRestored("no such version of the memory, only: 0001", "0001");
  EXPECT_EQ(CountDocuments(OpenMode::kCreate), 2u);
}

TEST_F(VersionsTest, AMissingCurrentIsPutRight) {
  LoseCurrent();
  EXPECT_TRUE(Memory::Exists(Folder()));
  ExpectRestored("is missing, but there are versions of the memory: 0001", "0001");
  EXPECT_EQ(CountDocuments(), 2u);
}

// The only version there is may be what an interrupted first creation left: an ingest goes on with
// it, whatever it holds.
TEST_F(VersionsTest, AnIngestWithoutCurrentGoesOnWithTheOnlyVersion) {
  LoseCurrent();
  EXPECT_EQ(CountDocuments(OpenMode::kCreate), 2u);
  EXPECT_EQ(CountDocuments(), 2u);
}

TEST_F(VersionsTest, AnIngestWithoutCurrentDoesNotBeginAnewBesideAnotherVersion) {
  std::filesystem::rename(Folder() / "0001", Folder() / "0002");
  for (const char* state : {"", "active\n"}) {
    LoseCurrent();
    if (*state != '\0') WriteState("0002", state);
    const absl::Status status = OpenMemory(Folder(), OpenMode::kCreate).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(FilesIn(Folder()), ElementsAre("0002"));
    ExpectRestored("versions of the memory: 0002", "0002");
    EXPECT_EQ(CountDocuments(OpenMode::kCreate), 2u);
  }
}

// RocksDB's own CURRENT: without it a store is none for RocksDB, which would begin a new one and
// remove the files of the old.
TEST_F(VersionsTest, AnIngestDoesNotBeginAnewWhereTheStoreLostItsCurrent) {
  std::filesystem::remove(Folder() / "0001" / "store" / "CURRENT");
  const std::vector<std::string> files = FilesIn(Folder() / "0001" / "store");
  for (const bool is_lost : {false, true}) {
    if (is_lost) LoseCurrent();
    const absl::Status status = OpenMemory(Folder(), OpenMode::kCreate).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("list of files"));
    EXPECT_EQ(FilesIn(Folder() / "0001" / "store"), files);
  }
}

TEST_F(VersionsTest, AVersionThatIsBeingFilledNeverWins) {
  ASSERT_OK(MarkFilling(Folder(), "0002"));
  EXPECT_EQ(CountDocuments(), 2u);  // not even a store in it yet
  std::filesystem::remove_all(Folder() / "0002");
  CopyVersion("0001", "0002");
  ASSERT_OK(MarkFilling(Folder(), "0002"));
  for (const char* content : {"0002\n", "0003\n", "?"}) {
    WriteCurrent(content);
    const bool names_it = content == std::string_view("0002\n");
    ExpectRestored(names_it ? "that version is not whole" : "CURRENT", "0001");
    EXPECT_EQ(CountDocuments(), 2u);
  }
  LoseCurrent();
  ExpectRestored("versions of the memory: 0001 0002", "0001");
  // Nor when it is all that is left.
  std::filesystem::remove_all(Folder() / "0001");
  ExpectRefused({"0002 (STATE filling)"});
}

TEST_F(VersionsTest, TheVersionThatWasMadeCurrentLastWins) {
  CopyVersion("0001", "0002");
  ASSERT_OK(MakeCurrent(Folder(), "0002"));
  EXPECT_EQ(State("0002"), "active\n");
  EXPECT_EQ(CountDocuments(), 3u);
  // Not the old one, which an interrupted removal left, whatever CURRENT says.
  WriteCurrent("0001\n");
  ExpectRestored("0002 has taken its place since", "0002");
  LoseCurrent();
  ExpectRestored("is missing", "0002");
  EXPECT_EQ(CountDocuments(), 3u);
  // Nor another one that is being filled.
  CopyVersion("0002", "0003");
  ASSERT_OK(MarkFilling(Folder(), "0003"));
  LoseCurrent();
  ExpectRestored("is missing", "0002");
}

// Interrupted between the steps of MakeCurrent: nothing was stored in the new version yet, so that
// the old one loses nothing.
TEST_F(VersionsTest, InterruptedInTheSwapNothingIsLost) {
  CopyVersion("0001", "0002");
  WriteState("0002", "whole\n");
  EXPECT_EQ(CountDocuments(), 2u);
  LoseCurrent();
  ExpectRestored("versions of the memory: 0001 0002", "0001");
  EXPECT_EQ(CountDocuments(OpenMode::kCreate), 2u);
}

TEST_F(VersionsTest, BeforeAnythingIsStoredTheSwapIsFinished) {
  CopyVersion("0001", "0002");
  WriteState("0002", "whole\n");
  WriteCurrent("0002\n");
  EXPECT_EQ(CountDocuments(OpenMode::kRead), 3u);
  EXPECT_EQ(State("0002"), "whole\n");
  EXPECT_EQ(CountDocuments(OpenMode::kWrite), 3u);
  EXPECT_EQ(State("0002"), "active\n");
  LoseCurrent();
  ExpectRestored("is missing", "0002");
}

TEST_F(VersionsTest, ADamagedStateIsNoObstacleWhereCurrentIsSound) {
  CopyVersion("0001", "0002");
  ASSERT_OK(MakeCurrent(Folder(), "0002"));
  WriteState("0002", "actiwe\n");
  EXPECT_EQ(CountDocuments(), 3u);
  LoseCurrent();
  ExpectRefused({"0001 (no STATE)", "actiwe"});
  WriteCurrent("0002\n");
  EXPECT_EQ(CountDocuments(OpenMode::kWrite), 3u);
  EXPECT_EQ(State("0002"), "active\n");
}

TEST_F(VersionsTest, WhatCannotBeToldIsRefused) {
  CopyVersion("0001", "0002");
  for (const char* content : {"0201\n", "?"}) {
    WriteCurrent(content);
    ExpectRefused({"0001 (no STATE)", "0002 (no STATE)"});
  }
  LoseCurrent();
  ExpectRefused({"0001 (no STATE)", "0002 (no STATE)"});
  // One that says less than the active one before it.
  WriteState("0001", "active\n");
  ExpectRefused({"0001 (STATE active)", "0002 (no STATE)"});
}

TEST_F(VersionsTest, AVersionThatDoesNotOpenIsNotMadeCurrent) {
  LoseCurrent();
  for (const auto& entry : std::filesystem::directory_iterator(Folder() / "0001" / "store")) {
    if (entry.path().filename() != "CURRENT") std::filesystem::remove(entry.path());
  }
  const absl::Status status = RestoreCurrent(Folder()).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("should name 0001, which does not open"));
  EXPECT_FALSE(std::filesystem::exists(Folder() / "CURRENT"));
}

TEST_F(VersionsTest, NothingIsPutRightUnderAWriter) {
  ASSERT_OK_AND_ASSIGN(const auto writer, OpenMemory(Folder(), OpenMode::kWrite));
  LoseCurrent();
  const absl::Status status = RestoreCurrent(Folder()).status();
  EXPECT_TRUE(absl::IsUnavailable(status)) << status;
  EXPECT_FALSE(std::filesystem::exists(Folder() / "CURRENT"));
}

}  // namespace
}  // namespace fovea::memory
