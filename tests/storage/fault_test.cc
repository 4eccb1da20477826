// Disks that refuse, damage and protect: full disks, I/O errors, flipped bytes, read-only folders,
// a second writer, another format version. Errors must say so, and data must never be wrong.
#include <sys/mount.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <fstream>
#include <set>

#include "rocksdb/db.h"
#include "storage/keys.h"
#include "storage/record_codec.h"
#include "tests/storage/fault_file_system.h"
#include "tests/storage/workload.h"

namespace fovea::storage {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

std::string Message(const absl::Status& status) { return std::string(ToStd(status.message())); }

// How far a workload came under faults, and with what error.
struct FaultyRun {
  size_t n_done = 0;
  absl::Status status;
};
FaultyRun RunFaulty(const std::filesystem::path& folder, const FaultFileSystem& disk) {
  FaultyRun run;
  run.status = RunWorkload(folder, {.file_system = disk.file_system()},
                           [&](size_t step) { run.n_done = step + 1; });
  return run;
}

TEST(FullDiskTest, WriterSaysSoAndTheStoreKeepsWhatWasReported) {
  FaultFileSystem counting;
  TemporaryFolder all(FastTemporaryRoot());
  ASSERT_OK(RunFaulty(all.path(), counting).status);
  int64_t n_bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(all.path())) {
    n_bytes += static_cast<int64_t>(entry.file_size());
  }
  int n_full = 0;
  for (int round = 1; round <= 6; ++round) {
    const int64_t room = n_bytes * round / 6;
    SCOPED_TRACE(StrCat("room for ", room, " bytes"));
    TemporaryFolder folder(FastTemporaryRoot());
    FaultFileSystem disk;
    disk.LimitBytes(room);
    const FaultyRun run = RunFaulty(folder.path(), disk);
    ASSERT_FALSE(run.status.ok());
    EXPECT_TRUE(absl::IsResourceExhausted(run.status)) << run.status;
    EXPECT_THAT(Message(run.status), HasSubstr("free space"));
    ++n_full;
    disk.Heal();
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kCreate));
    EXPECT_THAT(CheckStateAfterEnd(*store, run.n_done), IsEmpty());
    EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  }
  EXPECT_EQ(n_full, 6);
}

TEST(FullDiskTest, ALargeCommitThatCannotBeFlushedEndsWritingAndLeavesNoHalf) {
  TemporaryFolder folder(FastTemporaryRoot());
  FaultFileSystem disk;
  {
    ASSERT_OK_AND_ASSIGN(auto store, MakeWorkloadStore(folder.path(), disk.file_system()));
    Mutation small;
    PutDocument(WorkloadDocument(2, 1), &small);
    ASSERT_OK(store->Commit(std::move(small)));
    disk.FailAt(FileOperation::kAppend, 1, FileFailure::kIoError, /*lasting=*/true, ".blob");
    Mutation large;
    PutDocument(WorkloadDocument(3), &large);
    EXPECT_FALSE(store->Commit(std::move(large)).ok());
    disk.Heal();
    Mutation next;
    PutDocument(WorkloadDocument(4, 1), &next);
    const absl::Status refused = store->Commit(std::move(next));
    EXPECT_THAT(Message(refused), HasSubstr("open the store again"));
    EXPECT_THAT(CheckDocument(*store, WorkloadDocument(2, 1)), IsEmpty());
  }
  ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kWrite));
  EXPECT_THAT(CheckDocument(*store, WorkloadDocument(2, 1)), IsEmpty());
  EXPECT_THAT(CheckAbsent(*store, WorkloadDocument(4, 1)), IsEmpty());
  EXPECT_TRUE(CheckAbsent(*store, WorkloadDocument(3)).empty() ||
              CheckDocument(*store, WorkloadDocument(3)).empty());
  EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
}

TEST(FullDiskTest, ReadsGoOnAndTheSameCommitSucceedsInAStoreOpenedAgain) {
  // With something in memory and with nothing, and with different parts of the commit written.
  for (const bool is_fresh : {false, true}) {
    for (const int64_t room : {0, 100, 30000}) {
      SCOPED_TRACE(StrCat(is_fresh ? "just opened, " : "", room, " bytes of room"));
      TemporaryFolder folder(FastTemporaryRoot());
      FaultFileSystem disk;
      const StoreOptions options = {.file_system = disk.file_system()};
      ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate, options));
      const TestDocument first = WorkloadDocument(1);
      const TestDocument second = WorkloadDocument(2);
      Mutation put_first;
      put_first.PutSettings(TestSettings());
      PutDocument(first, &put_first);
      ASSERT_OK(store->Commit(std::move(put_first)));
      if (is_fresh) {
        store.reset();
        ASSERT_OK_AND_ASSIGN(store, OpenStore(folder.path(), OpenMode::kWrite, options));
      }
      disk.LimitBytes(room);
      for (int attempt = 0; attempt < 2; ++attempt) {
        Mutation mutation;
        PutDocument(second, &mutation);
        const absl::Status status = store->Commit(std::move(mutation));
        EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
        EXPECT_THAT(CheckDocument(*store, first), IsEmpty());
        EXPECT_THAT(CheckAbsent(*store, second), IsEmpty());
        ASSERT_OK_AND_ASSIGN(const auto reader, OpenStore(folder.path(), OpenMode::kRead));
        EXPECT_THAT(CheckDocument(*reader, first), IsEmpty());
        EXPECT_THAT(CheckAbsent(*reader, second), IsEmpty());
        disk.Heal();  // does not help this writer: its log may be torn
      }
      store.reset();
      ASSERT_OK_AND_ASSIGN(store, OpenStore(folder.path(), OpenMode::kWrite, options));
      Mutation mutation;
      PutDocument(second, &mutation);
      ASSERT_OK(store->Commit(std::move(mutation)));
      store.reset();
      ASSERT_OK_AND_ASSIGN(store, OpenStore(folder.path(), OpenMode::kRead));
      EXPECT_THAT(CheckDocument(*store, first), IsEmpty());
      EXPECT_THAT(CheckDocument(*store, second), IsEmpty());
      EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
    }
  }
}

// A file system of its own, unmounted at the end.
class MountedFolder {
 public:
  explicit MountedFolder(const char* options) {
    if (mount("tmpfs", folder_.path().c_str(), "tmpfs", 0, options) != 0) error_ = errno;
  }
  ~MountedFolder() {
    if (error_ == 0) umount2(folder_.path().c_str(), MNT_DETACH);
  }
  int error() const { return error_; }
  const std::filesystem::path& path() const { return folder_.path(); }
  bool MakeReadOnly() {
    return mount("tmpfs", folder_.path().c_str(), "tmpfs", MS_REMOUNT | MS_RDONLY, "") == 0;
  }

 private:
  TemporaryFolder folder_;
  int error_ = 0;
};

TEST(FullDiskTest, RealFullFileSystemKeepsWhatWasReported) {
  const MountedFolder disk("size=1500k");
  if (disk.error() != 0) {
    GTEST_SKIP() << "mounting a tmpfs needs rights: " << std::strerror(disk.error());
  }
  const std::filesystem::path folder = disk.path() / "store";
  std::vector<TestDocument> stored;
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder, OpenMode::kCreate));
    Mutation settings;
    settings.PutSettings(TestSettings());
    ASSERT_OK(store->Commit(std::move(settings)));
    absl::Status status;
    for (DocumentNumber number = 1; number < 100; ++number) {
      Mutation mutation;
      PutDocument(WorkloadDocument(number), &mutation);
      status = store->Commit(std::move(mutation));
      if (!status.ok()) break;
      stored.push_back(WorkloadDocument(number));
    }
    EXPECT_TRUE(absl::IsResourceExhausted(status)) << status;
    EXPECT_GT(stored.size(), 3u);
    for (const TestDocument& document : stored) {
      EXPECT_THAT(CheckDocument(*store, document), IsEmpty());
    }
  }
  // Readers need no space.
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenStore(folder, OpenMode::kRead));
  for (const TestDocument& document : stored) {
    EXPECT_THAT(CheckDocument(*reader, document), IsEmpty());
  }
  // With space the store recovers.
  const std::filesystem::path copy = disk.path().string() + "-copy";
  std::filesystem::copy(folder, copy, std::filesystem::copy_options::recursive);
  {
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(copy, OpenMode::kWrite));
    for (const TestDocument& document : stored) {
      EXPECT_THAT(CheckDocument(*store, document), IsEmpty());
    }
    EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  }
  std::filesystem::remove_all(copy);
}

TEST(InputOutputErrorTest, FailedWritesAndSyncsAreReportedAndNothingReportedIsLost) {
  FaultFileSystem counting;
  TemporaryFolder all(FastTemporaryRoot());
  ASSERT_OK(RunFaulty(all.path(), counting).status);
  int n_errors = 0;
  for (const FileOperation operation : {FileOperation::kAppend, FileOperation::kSync,
                                        FileOperation::kCreate, FileOperation::kRename}) {
    const int64_t n = counting.n_operations(operation);
    for (int64_t at = n / 4; at < n; at += n / 4 + 1) {
      SCOPED_TRACE(StrCat("operation ", static_cast<int>(operation), " number ", at));
      TemporaryFolder folder(FastTemporaryRoot());
      FaultFileSystem disk;
      disk.FailAt(operation, std::max<int64_t>(at, 1), FileFailure::kIoError);
      const FaultyRun run = RunFaulty(folder.path(), disk);
      n_errors += !run.status.ok();
      ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kCreate));
      EXPECT_THAT(CheckStateAfterEnd(*store, run.n_done), IsEmpty());
      EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
    }
  }
  EXPECT_GT(n_errors, 0);  // RocksDB repeats some of its background work by itself
}

TEST(InputOutputErrorTest, TornAppendIsReportedAndNothingReportedIsLost) {
  FaultFileSystem counting;
  TemporaryFolder all(FastTemporaryRoot());
  ASSERT_OK(RunFaulty(all.path(), counting).status);
  const int64_t n = counting.n_operations(FileOperation::kAppend);
  for (int64_t at = n / 5; at < n; at += n / 5 + 1) {
    SCOPED_TRACE(StrCat("append number ", at));
    TemporaryFolder folder(FastTemporaryRoot());
    FaultFileSystem disk;
    disk.TearAppendAt(at);
    const FaultyRun run = RunFaulty(folder.path(), disk);
    EXPECT_FALSE(run.status.ok());
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kCreate));
    EXPECT_THAT(CheckStateAfterEnd(*store, run.n_done), IsEmpty());
  }
}

TEST(InputOutputErrorTest, FailedReadIsAnErrorAndNoAbsence) {
  TemporaryFolder folder(FastTemporaryRoot());
  const TestDocument document = WorkloadDocument(1);
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    Mutation mutation;
    mutation.PutSettings(TestSettings());
    PutDocument(document, &mutation);
    ASSERT_OK(store->Commit(std::move(mutation)));
  }
  FaultFileSystem disk;
  ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kRead,
                                                   {.file_system = disk.file_system()}));
  disk.FailAt(FileOperation::kRead, 1, FileFailure::kIoError, /*lasting=*/true, ".blob");
  const absl::Status block = store->GetBlock(0, 0).status();
  EXPECT_FALSE(block.ok());
  EXPECT_FALSE(absl::IsNotFound(block));
  EXPECT_THAT(Message(block), HasSubstr("memory layer 0 of the window at slot 0"));
  disk.Heal();
  EXPECT_OK(store->GetBlock(0, 0).status());
}

// ---- flipped bytes ----------------------------------------------------------------------------

// A store with everything in table and blob files, and in its log one more commit.
class FlippedByteTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::filesystem::path live = root_ / "live";
    {
      ASSERT_OK_AND_ASSIGN(auto store, OpenStore(live, OpenMode::kCreate));
      Mutation settings;
      settings.PutSettings(TestSettings());
      ASSERT_OK(store->Commit(std::move(settings)));
      for (const DocumentNumber number : {1, 2}) {
        Mutation mutation;
        PutDocument(WorkloadDocument(number), &mutation);
        ASSERT_OK(store->Commit(std::move(mutation)));
      }
    }
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(live, OpenMode::kWrite));
    Mutation mutation;
    PutDocument(WorkloadDocument(3), &mutation);
    ASSERT_OK(store->Commit(std::move(mutation)));
    // As kill -9 would leave it.
    std::filesystem::copy(live, folder(), std::filesystem::copy_options::recursive);
  }
  std::filesystem::path folder() const { return root_ / "store"; }

  // What is wrong without being an error; empty: nothing. `n_detected` counts errors.
  std::string WrongData(const DocumentStore& store, int* n_detected) {
    bool clean = true;
    for (const DocumentNumber number : {1, 2, 3}) {
      const TestDocument document = WorkloadDocument(number);
      for (const WindowLink& link : document.links) {
        const auto window = store.GetWindow(link.slot_begin);
        if (window.ok() && !(*window == TestWindow(link.slot_begin, link.n_tokens))) {
          return "window differs";
        }
        if (absl::IsNotFound(window.status())) return "window silently absent";
        clean = clean && window.ok();
        for (int layer = 0; layer < kTestMemoryLayers; ++layer) {
          const auto block = store.GetBlock(link.slot_begin, layer);
          if (block.ok() && !(*block == TestBlock(link.slot_begin, layer, link.n_tokens))) {
            return "block differs";
          }
          if (absl::IsNotFound(block.status())) return "block silently absent";
          clean = clean && block.ok();
        }
      }
      const std::string whole = CheckDocument(store, document);
      if (whole == "links differ" || whole == "window differs" || whole == "block differs" ||
          whole == "record is not there") {
        return whole;
      }
      clean = clean && whole.empty();
    }
    if (!clean) {
      ++*n_detected;
      if (VerifyAll(store).empty()) return "Verify does not see it";
    }
    return "";
  }

 private:
  TemporaryFolder root_{FastTemporaryRoot()};
};

TEST_F(FlippedByteTest, ReadersDetectItInEveryFileOrAreNotTouchedByIt) {
  int n_flips = 0;
  int n_refused = 0;
  int n_salvaged = 0;
  int n_detected = 0;
  std::set<std::string> harmful;
  for (const auto& entry : std::filesystem::directory_iterator(folder())) {
    const std::filesystem::path file = entry.path();
    const std::string name = file.filename();
    if (name.starts_with("LOG")) continue;  // RocksDB's log of events is never read
    const uint64_t size_bytes = entry.file_size();
    // Denser at both ends: there are headers, footers and indexes.
    const uint64_t stride = std::max<uint64_t>(1, size_bytes / 50) | 1;
    for (uint64_t offset = 0; offset < size_bytes;
         offset += offset < 12 || size_bytes - offset < 56 ? 2 : stride) {
      SCOPED_TRACE(StrCat("byte ", offset, " of ", size_bytes, " of ", name));
      ++n_flips;
      FaultFileSystem disk;
      disk.FlipOnRead(file, offset, static_cast<uint8_t>(1 << offset % 8));
      const auto store = OpenStore(folder(), OpenMode::kRead, {.file_system = disk.file_system()});
      if (!store.ok()) {
        ++n_refused;
        harmful.insert(file.extension());
        EXPECT_FALSE(Message(store.status()).empty());
        if (file.extension() != ".sst") continue;
        // In salvage a table file that does not open only costs its own records.
        const auto salvaged = OpenStore(folder(), OpenMode::kRead,
                                        {.salvage = true, .file_system = disk.file_system()});
        ASSERT_OK(salvaged.status());
        ++n_salvaged;
        ASSERT_THAT(WrongData(**salvaged, &n_detected), IsEmpty());
        continue;
      }
      const int n_before = n_detected;
      ASSERT_THAT(WrongData(**store, &n_detected), IsEmpty());
      if (n_detected > n_before) harmful.insert(file.extension());
    }
  }
  RecordProperty("flips", n_flips);
  RecordProperty("refused", n_refused);
  RecordProperty("salvaged", n_salvaged);
  RecordProperty("detected", n_detected);
  EXPECT_GT(n_flips, 300);
  EXPECT_GT(n_refused, 50);
  EXPECT_GT(n_detected, 50);
  EXPECT_GT(n_salvaged, 20);
  EXPECT_THAT(harmful, ::testing::IsSupersetOf({".sst", ".blob", ".log"}));
}

TEST(DamagedWalkTest, NoRecordIsMissingWithoutAnError) {
  // Each session leaves table files of its own; from four on they move to the next level.
  TemporaryFolder folder(FastTemporaryRoot());
  constexpr DocumentNumber kSessions = 7;
  for (DocumentNumber number = 1; number <= kSessions; ++number) {
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kCreate));
    Mutation mutation;
    if (number == 1) mutation.PutSettings(TestSettings());
    PutDocument(WorkloadDocument(number), &mutation);
    if (number == 2) DeleteDocument(WorkloadDocument(1), &mutation);
    if (number == kSessions) DeleteDocument(WorkloadDocument(3), &mutation);
    ASSERT_OK(store->Commit(std::move(mutation)));
  }
  const auto walk = [](const DocumentStore& store, size_t* n_documents, size_t* n_links) {
    *n_documents = *n_links = 0;
    absl::Status status = store.ForEachDocument([&](const DocumentRecord&) {
      ++*n_documents;
      return absl::OkStatus();
    });
    status.Update(store.ForEachLink([&](const WindowLink&) {
      ++*n_links;
      return absl::OkStatus();
    }));
    return status;
  };
  size_t n_documents = 0;
  size_t n_links = 0;
  int n_files = 0;
  int n_errors = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    if (entry.path().extension() != ".sst") continue;
    SCOPED_TRACE(entry.path());
    ++n_files;
    FaultFileSystem disk;
    disk.FlipOnRead(entry.path(), 10, 1);
    StoreOptions options;
    options.file_system = disk.file_system();
    absl::StatusOr<std::unique_ptr<DocumentStore>> reader =
        OpenStore(folder.path(), OpenMode::kRead, options);
    const absl::Status status =
        reader.ok() ? walk(**reader, &n_documents, &n_links) : reader.status();
    if (!status.ok()) {
      EXPECT_TRUE(absl::IsDataLoss(status)) << status;
      ++n_errors;
      continue;
    }
    EXPECT_EQ(n_documents, kSessions - 2);
    EXPECT_EQ(n_links, 3 * (kSessions - 2));
  }
  // A table with documents and one with links for each session, but what was deleted.
  EXPECT_GT(n_files, 3 * static_cast<int>(kSessions));
  EXPECT_GE(n_errors, 2 * static_cast<int>(kSessions - 2));
}

TEST_F(FlippedByteTest, WritersDetectItInEveryFileThatRecoveryReads) {
  int n_refused = 0;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder())) {
    const std::string name = entry.path().filename();
    if (name == "CURRENT" || name.starts_with("MANIFEST") || name.ends_with(".log") ||
        name == "ACKNOWLEDGED" || name == "IDENTITY") {
      files.push_back(entry.path());
    }
  }
  ASSERT_GE(files.size(), 5u);
  for (const std::filesystem::path& file : files) {
    const uint64_t size_bytes = std::filesystem::file_size(file);
    const uint64_t stride = std::max<uint64_t>(1, size_bytes / 30);
    for (uint64_t offset = 0; offset < size_bytes; offset += stride) {
      SCOPED_TRACE(StrCat("byte ", offset, " of ", size_bytes, " of ", file.filename()));
      TemporaryFolder copy(FastTemporaryRoot());
      std::filesystem::copy(folder(), copy.path());
      FaultFileSystem disk;
      disk.FlipOnRead(copy.path() / file.filename(), offset, 0x10);
      const auto store =
          OpenStore(copy.path(), OpenMode::kWrite, {.file_system = disk.file_system()});
      if (!store.ok()) {
        ++n_refused;
        continue;
      }
      int n_detected = 0;
      ASSERT_THAT(WrongData(**store, &n_detected), IsEmpty());
    }
  }
  EXPECT_GT(n_refused, 10);
}

// ---- protection -------------------------------------------------------------------------------

TEST(ReadOnlyFolderTest, ReadersWorkThereAndWritersAreRefused) {
  MountedFolder disk("size=16m");
  if (disk.error() != 0) {
    GTEST_SKIP() << "mounting a tmpfs needs rights: " << std::strerror(disk.error());
  }
  const std::filesystem::path folder = disk.path() / "store";
  const TestDocument document = WorkloadDocument(1);
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(disk.path() / "live", OpenMode::kCreate));
    Mutation mutation;
    mutation.PutSettings(TestSettings());
    PutDocument(document, &mutation);
    ASSERT_OK(store->Commit(std::move(mutation)));
    // A copy whose commits are still in the log, as on a snapshot of a running system.
    std::filesystem::copy(disk.path() / "live", folder, std::filesystem::copy_options::recursive);
  }
  ASSERT_TRUE(disk.MakeReadOnly()) << std::strerror(errno);
  for (const auto& path : {folder, disk.path() / "live"}) {
    ASSERT_OK_AND_ASSIGN(auto reader, OpenStore(path, OpenMode::kRead));
    EXPECT_THAT(CheckDocument(*reader, document), IsEmpty());
    EXPECT_THAT(ToText(VerifyAll(*reader)), IsEmpty());
    ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
    EXPECT_FALSE(changed);
    for (const OpenMode mode : {OpenMode::kWrite, OpenMode::kCreate}) {
      const absl::Status status = OpenStore(path, mode).status();
      EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
      EXPECT_THAT(Message(status), HasSubstr(path.string()));
    }
  }
  const absl::Status status = OpenStore(disk.path() / "new", OpenMode::kCreate).status();
  EXPECT_TRUE(absl::IsPermissionDenied(status)) << status;
}

TEST(TwoWritersTest, SecondProcessIsToldWhoWrites) {
  TemporaryFolder folder(FastTemporaryRoot());
  // The child holds the store until the parent closes the pipe. It never returns to the tests.
  int held[2];
  int release[2];
  ASSERT_EQ(pipe(held), 0);
  ASSERT_EQ(pipe(release), 0);
  const pid_t pid = fork();
  ASSERT_GE(pid, 0);
  if (pid == 0) {
    execl("/proc/self/exe", "fault_test", "--hold", folder.path().c_str(),
          std::to_string(held[1]).c_str(), std::to_string(release[0]).c_str(), nullptr);
    _exit(127);
  }
  char byte = 0;
  ASSERT_EQ(read(held[0], &byte, 1), 1);
  ASSERT_EQ(byte, 'h');
  for (const OpenMode mode : {OpenMode::kWrite, OpenMode::kCreate}) {
    const absl::Status status = OpenStore(folder.path(), mode).status();
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr(StrCat("another process (", pid, ") is writing to ")));
    EXPECT_THAT(Message(status), HasSubstr("wait for it or stop it"));
  }
  EXPECT_OK(OpenStore(folder.path(), OpenMode::kRead).status());
  ASSERT_EQ(write(release[1], "r", 1), 1);
  int status = 0;
  ASSERT_EQ(waitpid(pid, &status, 0), pid);
  EXPECT_EQ(status, 0);
  EXPECT_OK(OpenStore(folder.path(), OpenMode::kWrite).status());
  for (const int fd : {held[0], held[1], release[0], release[1]}) close(fd);
}

int HoldStore(const char* folder, int held_fd, int release_fd) {
  const auto store = OpenStore(folder, OpenMode::kCreate);
  char byte = store.ok() ? 'h' : 'x';
  if (write(held_fd, &byte, 1) != 1) return 1;
  return read(release_fd, &byte, 1) == 1 ? 0 : 1;
}

// ---- other releases, and records changed behind the store's back ------------------------------

// RocksDB on the store's folder, past the store.
class RawStore {
 public:
  explicit RawStore(const std::filesystem::path& folder) {
    std::vector<std::string> names;
    FOVEA_CHECK(rocksdb::DB::ListColumnFamilies({}, folder, &names).ok());
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const std::string& name : names) {
      rocksdb::ColumnFamilyOptions options;
      options.enable_blob_files = name == "blocks";
      families.emplace_back(name, options);
    }
    rocksdb::DB* db = nullptr;
    FOVEA_CHECK(rocksdb::DB::Open({}, folder, families, &handles_, &db).ok());
    db_.reset(db);
  }
  ~RawStore() {
    for (auto* handle : handles_) {
      if (handle != nullptr) db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
    }
    FOVEA_CHECK(db_->Close().ok());
  }
  void Put(const std::string& family, std::string_view key, std::string_view value) {
    FOVEA_CHECK(db_->Put({}, Handle(family), Slice(key), Slice(value)).ok());
  }
  std::string Get(const std::string& family, std::string_view key) {
    std::string value;
    FOVEA_CHECK(db_->Get({}, Handle(family), Slice(key), &value).ok());
    return value;
  }
  void Delete(const std::string& family, std::string_view key) {
    FOVEA_CHECK(db_->Delete({}, Handle(family), Slice(key)).ok());
  }
  void AddFamily(const std::string& family) {
    rocksdb::ColumnFamilyHandle* handle = nullptr;
    FOVEA_CHECK(db_->CreateColumnFamily({}, family, &handle).ok());
    handles_.push_back(handle);
  }

 private:
  static rocksdb::Slice Slice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
  rocksdb::ColumnFamilyHandle* Handle(const std::string& family) {
    for (auto* handle : handles_) {
      if (handle->GetName() == family) return handle;
    }
    std::abort();
  }
  std::unique_ptr<rocksdb::DB> db_;
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;
};

absl::Status MakeStore(const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(auto store, OpenStore(folder, OpenMode::kCreate));
  Mutation mutation;
  mutation.PutSettings(TestSettings());
  PutDocument(WorkloadDocument(1), &mutation);
  PutDocument(WorkloadDocument(2), &mutation);
  return store->Commit(std::move(mutation));
}

int StoredFormatVersion(const std::filesystem::path& folder) {
  return DecodeFormatVersion(RawStore(folder).Get("meta", kFormatKey)).value_or(-1);
}

TEST(FormatVersionTest, StoreOfAnotherReleaseIsRefusedNamingBothVersions) {
  for (const bool has_new_family : {false, true}) {
    TemporaryFolder folder(FastTemporaryRoot());
    ASSERT_OK(MakeStore(folder.path()));
    {
      RawStore raw(folder.path());
      raw.Put("meta", kFormatKey, EncodeFormatVersion(7));
      if (has_new_family) raw.AddFamily("graphs");
    }
    for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite, OpenMode::kCreate}) {
      const absl::Status status = OpenStore(folder.path(), mode).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
      EXPECT_THAT(Message(status), HasSubstr("storage format version 7"));
      EXPECT_THAT(Message(status), HasSubstr(StrCat("reads versions ", kFormatVersion, " to ",
                                                    kNewestFormatVersion)));
    }
  }
}

TEST(FormatVersionTest, StoreWithoutAVersionIsNotTakenForANewOne) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  RawStore(folder.path()).Delete("meta", kFormatKey);
  EXPECT_TRUE(absl::IsDataLoss(OpenStore(folder.path(), OpenMode::kCreate).status()));
}

// The oldest version that says what is in the store, so that older programs read what they can.
TEST(FormatVersionTest, ABfloat16StoreKeepsTheFirstOne) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  EXPECT_EQ(StoredFormatVersion(folder.path()), 1);
  // A repair writes the record again.
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kWrite, {.salvage = true}));
    Mutation mutation;
    mutation.PutNextSegmentId(2);
    ASSERT_OK(store->Commit(std::move(mutation)));
  }
  EXPECT_EQ(StoredFormatVersion(folder.path()), 1);
}

TEST(FormatVersionTest, AFloat32StoreHasTheSecondOneAndARepairKeepsIt) {
  TemporaryFolder folder(FastTemporaryRoot()), copy_folder(FastTemporaryRoot());
  StoreSettings settings = TestSettings();
  settings.entry_type = EntryType::kFloat32;
  const Block block = TestBlock(0, 1, 20, settings);
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    Mutation mutation;
    mutation.PutSettings(settings);
    mutation.PutWindow(TestWindow(0, 20));
    mutation.PutBlock(0, 1, block);
    mutation.PutNextSlot(20);
    ASSERT_OK(store->Commit(std::move(mutation)));
  }
  EXPECT_EQ(StoredFormatVersion(folder.path()), 2);
  // Damaged, it is made again by what the settings say.
  RawStore(folder.path()).Put("meta", kFormatKey, "damaged");
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kWrite, {.salvage = true}));
    ASSERT_OK_AND_ASSIGN(auto copy, OpenStore(copy_folder.path(), OpenMode::kCreate));
    ASSERT_OK(store->CopyReadable(copy.get(), [](uint64_t) { return absl::OkStatus(); }));
    ASSERT_OK_AND_ASSIGN(const Block copied, copy->GetBlock(0, 1));
    EXPECT_TRUE(copied == block);
    Mutation mutation;
    mutation.PutNextSegmentId(2);
    ASSERT_OK(store->Commit(std::move(mutation)));
  }
  EXPECT_EQ(StoredFormatVersion(folder.path()), 2);
  EXPECT_EQ(StoredFormatVersion(copy_folder.path()), 2);
  for (const auto& path : {folder.path(), copy_folder.path()}) {
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenStore(path, OpenMode::kRead));
    ASSERT_OK_AND_ASSIGN(const Block read, reader->GetBlock(0, 1));
    EXPECT_TRUE(read == block);
  }
}

TEST(FormatVersionTest, AFlippedBitInAFloat32BlockIsNamed) {
  TemporaryFolder folder(FastTemporaryRoot());
  StoreSettings settings = TestSettings();
  settings.entry_type = EntryType::kFloat32;
  settings.n_mem_layers = 1;
  const Block block = TestBlock(0, 0, 20, settings);
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    Mutation mutation;
    mutation.PutSettings(settings);
    mutation.PutWindow(TestWindow(0, 20));
    mutation.PutBlock(0, 0, block);
    mutation.PutNextSlot(20);
    ASSERT_OK(store->Commit(std::move(mutation)));
    EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  }
  std::string value = *EncodeBlockHalf(0, 0, block, BlockHalf::kValues);
  value[value.size() / 2] ^= 1;
  RawStore(folder.path()).Put("blocks", BlockKey(0, 0, BlockHalf::kValues), value);
  ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kRead));
  EXPECT_THAT(ToText(VerifyAll(*store)),
              HasSubstr("values of memory layer 0 of the window at slot 0: damaged"));
  // A block of the other type, its checksum right, is damage too.
  RawStore(folder.path())
      .Put("blocks", BlockKey(0, 0, BlockHalf::kValues),
           *EncodeBlockHalf(0, 0, TestBlock(0, 0, 20), BlockHalf::kValues));
  ASSERT_OK_AND_ASSIGN(const auto other, OpenStore(folder.path(), OpenMode::kRead));
  EXPECT_THAT(ToText(VerifyAll(*other)), HasSubstr("record type 8, want 13"));
}

TEST(VerifyTest, NamesEveryDamagedRecordAndGoesOn) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  const TestDocument first = WorkloadDocument(1);
  const TestDocument second = WorkloadDocument(2);
  const Slot damaged_block = first.links[1].slot_begin;
  const Slot damaged_window = second.links[0].slot_begin;
  const Slot missing_block = second.links[2].slot_begin;
  const Slot moved_sample = first.links[2].slot_begin;
  {
    RawStore raw(folder.path());
    const std::string block_key = BlockKey(damaged_block, 1, BlockHalf::kValues);
    std::string value = raw.Get("blocks", block_key);
    value[value.size() / 2] ^= 4;
    raw.Put("blocks", block_key, value);
    value = raw.Get("windows", NumberKey(damaged_window));
    value[20] ^= 1;
    raw.Put("windows", NumberKey(damaged_window), value);
    raw.Delete("blocks", BlockKey(missing_block, 0, BlockHalf::kKeys));
    raw.Put("samples", NumberKey(moved_sample),
            raw.Get("samples", NumberKey(first.links[0].slot_begin)));
    raw.Delete("links", LinkKey(2, 1));
  }
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite}) {
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), mode));
    std::vector<Damage> found;
    ASSERT_OK_AND_ASSIGN(const auto counts, store->Verify([&](const Damage& damage) {
      found.push_back(damage);
      return absl::OkStatus();
    }));
    EXPECT_EQ(counts.documents, 2);
    EXPECT_EQ(counts.windows, 6);
    EXPECT_EQ(counts.blocks, 6 * kTestMemoryLayers);
    const auto expect = [&](const char* kind, Slot slot, int layer, DocumentNumber document,
                            const char* what) {
      const auto at = std::find_if(found.begin(), found.end(), [&](const Damage& damage) {
        return damage.kind == kind && damage.slot_begin == slot && damage.memory_layer == layer &&
               damage.document == document && damage.what.find(what) != std::string::npos;
      });
      EXPECT_NE(at, found.end()) << kind << " " << slot << " " << what << " not in\n"
                                 << ToText(found);
      if (at != found.end()) found.erase(at);
    };
    expect("block", damaged_block, 1, 1, "its bytes have checksum");
    expect("window", damaged_window, -1, 2, "its bytes have checksum");
    expect("block", missing_block, 0, 2, "not in");
    expect("sample", moved_sample, -1, 1, "its bytes have checksum");
    expect("link", second.links[0].slot_begin, -1, 2, "2 links that can be read");
    EXPECT_THAT(ToText(found), IsEmpty());
  }
}

// The table file of windows in a store that was written at once.
std::filesystem::path WindowsTable(const std::filesystem::path& folder) {
  std::vector<rocksdb::LiveFileMetaData> files;
  rocksdb::DB* db = nullptr;
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  FOVEA_CHECK(rocksdb::DB::OpenForReadOnly({}, folder,
                                           {{"default", rocksdb::ColumnFamilyOptions()},
                                            {"windows", rocksdb::ColumnFamilyOptions()}},
                                           &handles, &db)
                  .ok());
  db->GetLiveFilesMetaData(&files);
  std::filesystem::path table;
  for (const auto& file : files) {
    if (file.column_family_name == "windows") table = folder.string() + file.name;
  }
  for (auto* handle : handles) FOVEA_CHECK(db->DestroyColumnFamilyHandle(handle).ok());
  delete db;
  return table;
}

TEST(VerifyTest, TableFileWithADamagedBlockIsReportedByItsRecordsAndTheRestIsRead) {
  TemporaryFolder folder(FastTemporaryRoot());
  std::vector<TestDocument> documents;
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    Mutation mutation;
    mutation.PutSettings(TestSettings());
    Slot slot = 0;
    for (DocumentNumber number = 1; number <= 40; ++number) {
      documents.push_back(MakeDocument(number, slot, 2, 300));
      slot += 600;
      PutDocument(documents.back(), &mutation);
    }
    ASSERT_OK(store->Commit(std::move(mutation)));
  }
  const std::filesystem::path table = WindowsTable(folder.path());
  ASSERT_FALSE(table.empty());
  const uint64_t size_bytes = std::filesystem::file_size(table);
  ASSERT_GT(size_bytes, 60000u);
  FaultFileSystem disk;
  disk.FlipOnRead(table, size_bytes / 2, 0x40);
  ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kRead,
                                                   {.file_system = disk.file_system()}));
  const std::vector<Damage> found = VerifyAll(*store);
  std::set<Slot> damaged;
  bool file_named = false;
  for (const Damage& damage : found) {
    if (damage.kind == "window" && damage.document != 0) damaged.insert(damage.slot_begin);
    if (damage.kind == "table") {
      file_named = file_named || damage.what.find(table.filename()) != std::string::npos;
    }
  }
  EXPECT_TRUE(file_named) << ToText(found);
  size_t n_unreadable = 0;
  for (const TestDocument& document : documents) {
    for (const WindowLink& link : document.links) {
      const auto window = store->GetWindow(link.slot_begin);
      EXPECT_EQ(window.ok(), !damaged.contains(link.slot_begin)) << ToText(found);
      if (window.ok()) continue;
      ++n_unreadable;
      EXPECT_TRUE(absl::IsDataLoss(window.status())) << window.status();
      EXPECT_THAT(Message(window.status()), HasSubstr(StrCat("window at slot ", link.slot_begin)));
    }
  }
  EXPECT_GT(n_unreadable, 1u);
  EXPECT_LT(n_unreadable, 20u);
}

TEST(VerifyTest, DamagedTableFileDoesNotStopWrites) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  {
    const std::filesystem::path table = WindowsTable(folder.path());
    std::fstream file(table, std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(100);
    file.write("damage", 6);
  }
  // Every opening begins a table file, and every fourth one a compaction of them all.
  for (DocumentNumber number = 3; number < 12; ++number) {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kWrite));
    for (int round = 0; round < 2; ++round) {
      Mutation mutation;
      mutation.PutSettings(TestSettings());
      if (round == 0) PutDocument(WorkloadDocument(number), &mutation);
      ASSERT_OK(store->Commit(std::move(mutation)));
    }
    EXPECT_THAT(CheckDocument(*store, WorkloadDocument(number)), IsEmpty());
  }
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kWrite));
  EXPECT_TRUE(absl::IsDataLoss(store->Compact()));
  EXPECT_TRUE(absl::IsDataLoss(store->GetWindow(0).status()));
  EXPECT_THAT(ToText(VerifyAll(*store)), HasSubstr("window slot 0 layer -1 document 1"));
  Mutation mutation;
  PutDocument(WorkloadDocument(12), &mutation);
  EXPECT_OK(store->Commit(std::move(mutation)));
}

TEST(VerifyTest, DamagedCountersAreRefusedAndSalvagedFromTheRecords) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  {
    RawStore raw(folder.path());
    std::string value = raw.Get("meta", kCountersKey);
    value[3] ^= 1;
    raw.Put("meta", kCountersKey, value);
  }
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite}) {
    const absl::Status status = OpenStore(folder.path(), mode).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr("counters: damaged: its bytes have checksum"));
  }
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kWrite, {.salvage = true}));
  EXPECT_THAT(ToText(VerifyAll(*store)),
              HasSubstr("settings slot 0 layer -1 document 0: counters"));
  // The next document gets numbers that no other has.
  const TestDocument third = WorkloadDocument(3);
  Mutation reused;
  reused.PutNextSlot(third.links[0].slot_begin - 1);
  EXPECT_TRUE(absl::IsInvalidArgument(store->Commit(std::move(reused))));
  Mutation mutation;
  PutDocument(third, &mutation);
  ASSERT_OK(store->Commit(std::move(mutation)));
  store.reset();
  ASSERT_OK_AND_ASSIGN(store, OpenStore(folder.path(), OpenMode::kWrite));
  for (const DocumentNumber number : {1, 2, 3}) {
    EXPECT_THAT(CheckDocument(*store, WorkloadDocument(number)), IsEmpty());
  }
  EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
}

TEST(VerifyTest, DamagedBlobIsRepairedByPuttingItsBlockAgain) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    if (entry.path().extension() != ".blob") continue;
    std::fstream file(entry.path(), std::ios::in | std::ios::out | std::ios::binary);
    file.seekp(static_cast<std::streamoff>(entry.file_size() / 2));
    file.write("damage", 6);
  }
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kWrite));
  std::vector<Damage> found = VerifyAll(*store);
  ASSERT_EQ(found.size(), 1u) << ToText(found);
  ASSERT_EQ(found[0].kind, "block");
  Mutation mutation;
  mutation.PutBlock(found[0].slot_begin, found[0].memory_layer,
                    TestBlock(found[0].slot_begin, found[0].memory_layer, 60));
  ASSERT_OK(store->Commit(std::move(mutation)));
  EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  ASSERT_OK(store->Compact());
  EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  EXPECT_THAT(CheckDocument(*store, WorkloadDocument(1)), IsEmpty());
  EXPECT_THAT(CheckDocument(*store, WorkloadDocument(2)), IsEmpty());
}

}  // namespace
}  // namespace fovea::storage

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "--hold") == 0) {
    return fovea::storage::HoldStore(argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
