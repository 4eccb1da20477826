// Writers that end in the middle of everything: killed before, in and after every change to the
// disk; by a power cut; by a disk that tears or refuses writes. What was reported as stored must
// be there, and nothing may be there by half.
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>
#include <set>

#include "tests/storage/fault_file_system.h"
#include "tests/storage/workload.h"

namespace fovea::storage {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

// The child's side: runs the workload in `folder` and writes a byte to file descriptor `report_fd`
// for each step that was reported as done.
int RunWriter(const char* folder, int64_t kill_at, bool torn, int report_fd) {
  FaultFileSystem disk;
  if (kill_at > 0) disk.KillAt(kill_at, torn);
  const absl::Status status =
      RunWorkload(folder, {.file_system = disk.file_system()}, [report_fd](size_t) {
        if (write(report_fd, "s", 1) != 1) _exit(5);
      });
  if (!status.ok()) {
    fprintf(stderr, "%s\n", status.ToString().c_str());
    return 4;
  }
  const int64_t n_changes = disk.n_operations(FileOperation::kChange);
  if (write(report_fd, &n_changes, sizeof(n_changes)) != sizeof(n_changes)) return 5;
  return 0;
}

struct WriterEnd {
  bool killed = false;
  size_t n_done = 0;      // steps that were reported as done
  int64_t n_changes = 0;  // of the whole workload, when it ran to its end
};

// Runs this program as a writer process. Not a bare fork: RocksDB's threads do not survive one.
WriterEnd SpawnWriter(const std::filesystem::path& folder, int64_t kill_at, bool torn) {
  int fds[2];
  FOVEA_CHECK(pipe(fds) == 0);
  const pid_t pid = fork();
  FOVEA_CHECK(pid >= 0);
  if (pid == 0) {
    close(fds[0]);
    const std::string at = std::to_string(kill_at);
    const std::string fd = std::to_string(fds[1]);
    execl("/proc/self/exe", "crash_test", "--writer", folder.c_str(), at.c_str(),
          torn ? "torn" : "whole", fd.c_str(), nullptr);
    _exit(127);
  }
  close(fds[1]);
  std::string report;
  char buffer[256];
  for (ssize_t n; (n = read(fds[0], buffer, sizeof(buffer))) > 0;) {
    report.append(buffer, static_cast<size_t>(n));
  }
  close(fds[0]);
  int status = 0;
  FOVEA_CHECK(waitpid(pid, &status, 0) == pid);
  WriterEnd end;
  end.killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  if (!end.killed) {
    EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    if (report.size() >= sizeof(end.n_changes)) {
      end.n_done = report.size() - sizeof(end.n_changes);
      std::memcpy(&end.n_changes, report.data() + end.n_done, sizeof(end.n_changes));
    }
  } else {
    end.n_done = report.size();
  }
  return end;
}

// The state in a reader, then in a writer, which recovers; and that the store works on.
void ExpectNothingLost(const std::filesystem::path& folder, size_t n_done) {
  if (n_done > 0) {
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenStore(folder, OpenMode::kRead));
    EXPECT_THAT(CheckStateAfterEnd(*reader, n_done), IsEmpty());
    EXPECT_THAT(ToText(VerifyAll(*reader)), IsEmpty());
  }
  {
    ASSERT_OK_AND_ASSIGN(const auto writer, OpenStore(folder, OpenMode::kCreate));
    EXPECT_THAT(CheckStateAfterEnd(*writer, n_done), IsEmpty());
    EXPECT_THAT(ToText(VerifyAll(*writer)), IsEmpty());
    ASSERT_OK_AND_ASSIGN(const Counters counters, writer->ReadCounters());
    Mutation mutation;
    mutation.PutSettings(TestSettings());
    TestDocument next = MakeDocument(counters.next_document, counters.next_slot, 1, 10);
    PutDocument(next, &mutation);
    ASSERT_OK(writer->Commit(std::move(mutation)));
    EXPECT_THAT(CheckDocument(*writer, next), IsEmpty());
  }
}

class CrashTest : public ::testing::Test {
 protected:
  CrashTest() : folder_(FastTemporaryRoot()) {}
  std::filesystem::path NewFolder() { return folder_.path() / std::to_string(n_folders_++); }

 private:
  TemporaryFolder folder_;
  int n_folders_ = 0;
};

class KillTest : public CrashTest, public ::testing::WithParamInterface<bool> {};

TEST_P(KillTest, KilledWriterLosesNothingThatItReported) {
  const bool torn = GetParam();
  const WriterEnd whole = SpawnWriter(NewFolder(), 0, false);
  ASSERT_FALSE(whole.killed);
  ASSERT_EQ(whole.n_done, Workload().size());
  ASSERT_GT(whole.n_changes, 200);
  // A prime stride meets creation, commits, flushes, compaction and recovery in ever other places;
  // torn and whole runs begin at different ones.
  constexpr int64_t kStride = 17;
  std::set<size_t> ends;
  for (int64_t at = torn ? 1 + kStride / 2 : 1; at <= whole.n_changes; at += kStride) {
    SCOPED_TRACE(StrCat("killed at change ", at, torn ? ", torn" : ""));
    const std::filesystem::path folder = NewFolder();
    const WriterEnd end = SpawnWriter(folder, at, torn);
    // The order of changes by background threads varies: the last ones may not be reached.
    if (!end.killed) continue;
    ends.insert(end.n_done);
    ASSERT_NO_FATAL_FAILURE(ExpectNothingLost(folder, end.n_done));
    if (HasFailure()) return;
    std::filesystem::remove_all(folder);
  }
  EXPECT_GE(ends.size(), Workload().size() / 2);  // the kills were spread over the steps
}
INSTANTIATE_TEST_SUITE_P(WholeAndTornWrites, KillTest, ::testing::Bool());

TEST_F(CrashTest, SecondKillDuringRecoveryLosesNothingEither) {
  for (const int64_t at : {150, 230, 300}) {
    const std::filesystem::path folder = NewFolder();
    const WriterEnd end = SpawnWriter(folder, at, true);
    ASSERT_TRUE(end.killed);
    for (int64_t again = 1; again <= 40; again += 6) {
      SCOPED_TRACE(StrCat("killed at change ", at, ", then at ", again));
      const std::filesystem::path copy = NewFolder();
      std::filesystem::copy(folder, copy, std::filesystem::copy_options::recursive);
      // A writer that only opens: the rest of the workload would put existing documents again.
      FaultFileSystem disk;
      disk.FailAt(FileOperation::kChange, again, FileFailure::kIoError, /*lasting=*/true);
      OpenStore(copy, OpenMode::kWrite, {.file_system = disk.file_system()}).status().IgnoreError();
      ASSERT_NO_FATAL_FAILURE(ExpectNothingLost(copy, end.n_done));
    }
  }
}

TEST_F(CrashTest, PowerCutLosesNothingThatWasReported) {
  // In this process: all changes fail from some point on, then what was not synced is taken away.
  FaultFileSystem counting;
  ASSERT_OK(RunWorkload(NewFolder(), {.file_system = counting.file_system()}, [](size_t) {}));
  const int64_t n_changes = counting.n_operations(FileOperation::kChange);
  // Few, because RocksDB rests a second after each error of its background work.
  for (int64_t at = n_changes / 13; at <= n_changes; at += n_changes / 13) {
    SCOPED_TRACE(StrCat("power cut at change ", at));
    const std::filesystem::path folder = NewFolder();
    FaultFileSystem disk;
    disk.FailAt(FileOperation::kChange, at, FileFailure::kIoError, /*lasting=*/true);
    size_t n_done = 0;
    const absl::Status status = RunWorkload(folder, {.file_system = disk.file_system()},
                                            [&](size_t step) { n_done = step + 1; });
    if (status.ok()) continue;  // the change was one of the last close's
    disk.DropUnsynced();
    ASSERT_NO_FATAL_FAILURE(ExpectNothingLost(folder, n_done));
    if (HasFailure()) return;
    std::filesystem::remove_all(folder);
  }
}

// A large commit that was begun and a small one that was reported after it: the log, which holds
// the small one alone, may not be ahead of the table files.
TEST_F(CrashTest, NothingIsDurableWithoutWhatWasCommittedBeforeIt) {
  for (const bool reports_large : {false, true}) {
    SCOPED_TRACE(reports_large);
    const std::filesystem::path folder = NewFolder();
    FaultFileSystem disk;
    const TestDocument large = WorkloadDocument(1);
    const TestDocument small = WorkloadDocument(2, 1);
    {
      ASSERT_OK_AND_ASSIGN(auto store, MakeWorkloadStore(folder, disk.file_system()));
      Mutation first;
      PutDocument(large, &first);
      ASSERT_OK_AND_ASSIGN(const uint64_t epoch, store->BeginCommit(std::move(first)));
      EXPECT_THAT(CheckDocument(*store, large), IsEmpty());
      Mutation second;
      PutDocument(small, &second);
      ASSERT_OK(store->Commit(std::move(second)));
      if (reports_large) {
        ASSERT_OK(store->FinishCommit(epoch));
      }
      disk.FailAt(FileOperation::kChange, 1, FileFailure::kIoError, /*lasting=*/true);
    }
    disk.DropUnsynced();
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder, OpenMode::kWrite));
    EXPECT_THAT(CheckDocument(*store, large), IsEmpty());
    EXPECT_THAT(CheckDocument(*store, small), IsEmpty());
    EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  }
}

TEST_F(CrashTest, LargeCommitsThatWereOnlyBegunAreThereWholeOrNotAtAll) {
  const std::filesystem::path folder = NewFolder();
  FaultFileSystem disk;
  const TestDocument first = WorkloadDocument(1);
  const TestDocument second = WorkloadDocument(3);
  {
    ASSERT_OK_AND_ASSIGN(auto store, MakeWorkloadStore(folder, disk.file_system()));
    Mutation large;
    PutDocument(first, &large);
    ASSERT_OK_AND_ASSIGN(const uint64_t epoch, store->BeginCommit(std::move(large)));
    ASSERT_OK(store->FinishCommit(epoch));
    Mutation next;
    PutDocument(second, &next);
    ASSERT_OK(store->BeginCommit(std::move(next)).status());
    disk.FailAt(FileOperation::kChange, 1, FileFailure::kIoError, /*lasting=*/true);
  }
  disk.DropUnsynced();
  ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder, OpenMode::kWrite));
  EXPECT_THAT(CheckDocument(*store, first), IsEmpty());
  EXPECT_THAT(CheckAbsent(*store, second), IsEmpty());
  EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
}

// Several at once on their way to the disk, which fails at one change or another: what is there
// afterwards is those that came first, and all that was reported.
TEST_F(CrashTest, LargeCommitsReachTheDiskInTheirOrder) {
  constexpr uint64_t kDocuments = 4;
  const auto run = [&](const std::filesystem::path& folder, FaultFileSystem* disk,
                       int64_t fail_at) -> size_t {
    absl::StatusOr<std::unique_ptr<DocumentStore>> store =
        MakeWorkloadStore(folder, disk->file_system());
    EXPECT_TRUE(store.ok()) << store.status();
    if (!store.ok()) return 0;
    if (fail_at > 0) {
      disk->FailAt(FileOperation::kChange, fail_at, FileFailure::kIoError, /*lasting=*/true);
    }
    std::vector<uint64_t> epochs;
    for (uint64_t i = 0; i < kDocuments; ++i) {
      Mutation large;
      PutDocument(WorkloadDocument(2 * i + 1), &large);
      const absl::StatusOr<uint64_t> epoch = (*store)->BeginCommit(std::move(large));
      if (!epoch.ok()) break;
      epochs.push_back(*epoch);
    }
    size_t n_reported = 0;
    while (n_reported < epochs.size() && (*store)->FinishCommit(epochs[n_reported]).ok()) {
      ++n_reported;
    }
    return n_reported;
  };
  int64_t n_changes = 0;
  {
    FaultFileSystem counting;
    ASSERT_EQ(run(NewFolder(), &counting, 0), kDocuments);
    n_changes = counting.n_operations(FileOperation::kChange);
  }
  for (int64_t at = 1; at < n_changes; at += std::max<int64_t>(n_changes / 9, 1)) {
    SCOPED_TRACE(StrCat("the disk fails at change ", at));
    const std::filesystem::path folder = NewFolder();
    FaultFileSystem disk;
    const size_t n_reported = run(folder, &disk, at);
    disk.DropUnsynced();
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder, OpenMode::kWrite));
    size_t n_there = 0;
    while (n_there < kDocuments && CheckDocument(*store, WorkloadDocument(2 * n_there + 1)).empty())
      ++n_there;
    EXPECT_GE(n_there, n_reported);
    for (uint64_t i = n_there; i < kDocuments; ++i) {
      EXPECT_THAT(CheckAbsent(*store, WorkloadDocument(2 * i + 1)), IsEmpty());
    }
    EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  }
}

// The newest log of a store whose writer was killed.
std::filesystem::path NewestLog(const std::filesystem::path& folder) {
  std::filesystem::path newest;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".log" && entry.path() > newest) newest = entry.path();
  }
  return newest;
}

// A store with two commits in its log, as after kill -9.
void MakeStoreWithLog(const std::filesystem::path& folder, TestDocument* first,
                      TestDocument* second) {
  *first = MakeDocument(1, 0, 1, 20);
  *second = MakeDocument(2, 20, 1, 20);
  const std::filesystem::path live = folder.string() + "-live";
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(live, OpenMode::kCreate));
    Mutation settings;
    settings.PutSettings(TestSettings());
    ASSERT_OK(store->Commit(std::move(settings)));
    for (const TestDocument* document : {first, second}) {
      Mutation mutation;
      PutDocument(*document, &mutation);
      ASSERT_OK(store->Commit(std::move(mutation)));
    }
    std::filesystem::copy(live, folder, std::filesystem::copy_options::recursive);
  }
  std::filesystem::remove_all(live);
}

TEST_F(CrashTest, TailOfACommitThatWasNotReportedIsCutOffWhateverItHolds) {
  TestDocument first;
  TestDocument second;
  const std::filesystem::path folder = NewFolder();
  ASSERT_NO_FATAL_FAILURE(MakeStoreWithLog(folder, &first, &second));
  for (const char filling : {'\0', '\x5a', '\1'}) {
    for (const size_t n_bytes : {size_t{3}, size_t{500}, size_t{100000}}) {
      SCOPED_TRACE(StrCat(n_bytes, " bytes of ", static_cast<int>(filling)));
      const std::filesystem::path copy = NewFolder();
      std::filesystem::copy(folder, copy, std::filesystem::copy_options::recursive);
      std::ofstream(NewestLog(copy), std::ios::app | std::ios::binary)
          << std::string(n_bytes, filling);
      {
        ASSERT_OK_AND_ASSIGN(const auto reader, OpenStore(copy, OpenMode::kRead));
        EXPECT_THAT(CheckDocument(*reader, first), IsEmpty());
        EXPECT_THAT(CheckDocument(*reader, second), IsEmpty());
      }
      ASSERT_OK_AND_ASSIGN(const auto writer, OpenStore(copy, OpenMode::kWrite));
      EXPECT_THAT(CheckDocument(*writer, first), IsEmpty());
      EXPECT_THAT(CheckDocument(*writer, second), IsEmpty());
    }
  }
}

TEST_F(CrashTest, LogThatLostAReportedCommitIsRefusedAndSalvagedOnDemand) {
  TestDocument first;
  TestDocument second;
  const std::filesystem::path folder = NewFolder();
  ASSERT_NO_FATAL_FAILURE(MakeStoreWithLog(folder, &first, &second));
  const uint64_t size_bytes = std::filesystem::file_size(NewestLog(folder));
  for (const uint64_t keep : {size_bytes - 1, size_bytes - 700, size_bytes / 2 + 900}) {
    SCOPED_TRACE(StrCat("log cut to ", keep, " of ", size_bytes));
    const std::filesystem::path copy = NewFolder();
    std::filesystem::copy(folder, copy, std::filesystem::copy_options::recursive);
    std::filesystem::resize_file(NewestLog(copy), keep);
    for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite, OpenMode::kRead}) {
      const auto store = OpenStore(copy, mode);
      ASSERT_TRUE(absl::IsDataLoss(store.status())) << store.status();
      EXPECT_THAT(std::string(ToStd(store.status().message())),
                  HasSubstr("commits 3 to 3, which were reported as stored, are missing"));
    }
    {
      ASSERT_OK_AND_ASSIGN(auto store, OpenStore(copy, OpenMode::kWrite, {.salvage = true}));
      EXPECT_THAT(CheckDocument(*store, first), IsEmpty());
      EXPECT_THAT(CheckAbsent(*store, second), IsEmpty());
      EXPECT_THAT(ToText(VerifyAll(*store)), HasSubstr("commits 3 to 3"));
      Mutation again;
      PutDocument(second, &again);
      ASSERT_OK(store->Commit(std::move(again)));
    }
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(copy, OpenMode::kWrite));
    EXPECT_THAT(CheckDocument(*store, second), IsEmpty());
    EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  }
}

TEST_F(CrashTest, InterruptedCreationIsFinishedByTheNextCreateAndNoStoreForOthers) {
  for (int64_t at = 1; at < 60; at += 3) {
    SCOPED_TRACE(StrCat("killed at change ", at));
    const std::filesystem::path folder = NewFolder();
    const WriterEnd end = SpawnWriter(folder, at, false);
    ASSERT_TRUE(end.killed);
    if (end.n_done > 0) break;
    const auto reader = OpenStore(folder, OpenMode::kRead);
    if (reader.ok()) {
      EXPECT_THAT(CheckState(**reader, 0), IsEmpty());
    } else {
      EXPECT_TRUE(absl::IsNotFound(reader.status())) << reader.status();
    }
    ASSERT_NO_FATAL_FAILURE(ExpectNothingLost(folder, 0));
  }
}

}  // namespace
}  // namespace fovea::storage

int main(int argc, char** argv) {
  if (argc == 6 && std::strcmp(argv[1], "--writer") == 0) {
    return fovea::storage::RunWriter(argv[2], std::atoll(argv[3]),
                                     std::strcmp(argv[4], "torn") == 0, std::atoi(argv[5]));
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
