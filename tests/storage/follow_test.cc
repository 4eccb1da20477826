// Readers that follow a writer of another process while it commits, deletes, compacts (which
// removes the files that they read from), ends and begins again.
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "tests/storage/workload.h"

namespace fovea::storage {
namespace {

using ::testing::IsEmpty;

constexpr DocumentNumber kDocumentsKept = 4;
constexpr DocumentNumber kCommitsToCompaction = 9;

// The writer's side: a commit for each document, which also deletes the one four before it. The
// first commit is that of the settings, so that the document of commit n is n - 1. Goes on until
// `stop_fd` is closed at its other end.
int RunWriter(const char* folder, int report_fd, int stop_fd) {
  StoreOptions options;
  options.write_buffer_bytes = 1 << 20;  // about eight commits
  auto store = OpenStore(folder, OpenMode::kWrite, options);
  if (!store.ok()) return 2;
  for (DocumentNumber number = 1;; ++number) {
    // A rest, as encoding would be: readers need moments in which no table files are written.
    pollfd stop = {.fd = stop_fd, .events = POLLIN, .revents = 0};
    if (poll(&stop, 1, /*timeout_ms=*/10) != 0) return 0;
    Mutation mutation;
    PutDocument(WorkloadDocument(number), &mutation);
    if (number > kDocumentsKept) {
      DeleteDocument(WorkloadDocument(number - kDocumentsKept), &mutation);
    }
    const absl::Status status = (*store)->Commit(std::move(mutation));
    if (!status.ok()) {
      fprintf(stderr, "%s\n", status.ToString().c_str());
      return 3;
    }
    if (write(report_fd, "c", 1) != 1) return 4;
    if (number % kCommitsToCompaction == 0 && !(*store)->Compact().ok()) return 5;
    if (number % 17 == 0) {
      store->reset();
      store = OpenStore(folder, OpenMode::kWrite, options);
      if (!store.ok()) return 6;
    }
  }
}

// The writer as a process.
class Writer {
 public:
  explicit Writer(const std::filesystem::path& folder) {
    int reports[2];
    int stops[2];
    FOVEA_CHECK(pipe(reports) == 0 && pipe(stops) == 0);
    pid_ = fork();
    FOVEA_CHECK(pid_ >= 0);
    if (pid_ == 0) {
      close(reports[0]);
      close(stops[1]);
      execl("/proc/self/exe", "follow_test", "--writer", folder.c_str(),
            std::to_string(reports[1]).c_str(), std::to_string(stops[0]).c_str(), nullptr);
      _exit(127);
    }
    close(reports[1]);
    close(stops[0]);
    report_fd_ = reports[0];
    stop_fd_ = stops[1];
  }
  ~Writer() {
    if (pid_ != 0) {
      EXPECT_EQ(Stop(), 0);
    }
    close(report_fd_);
  }

  // Commits that were reported so far.
  uint64_t n_reported() {
    pollfd reports = {.fd = report_fd_, .events = POLLIN, .revents = 0};
    while (poll(&reports, 1, /*timeout_ms=*/0) > 0 && ReadReports()) {
    }
    return n_reported_;
  }
  // Waits for `n` more commits.
  void WaitForCommits(uint64_t n) {
    const uint64_t wanted = n_reported() + n;
    while (n_reported_ < wanted) FOVEA_CHECK(ReadReports());
  }
  // Ends the writer after its current commit. Returns its exit status.
  int Stop() {
    close(stop_fd_);
    while (ReadReports()) {
    }
    int status = 0;
    FOVEA_CHECK(waitpid(pid_, &status, 0) == pid_);
    pid_ = 0;
    return status;
  }

 private:
  bool ReadReports() {
    char buffer[64];
    const ssize_t n = read(report_fd_, buffer, sizeof(buffer));
    if (n > 0) n_reported_ += static_cast<uint64_t>(n);
    return n > 0;
  }

  pid_t pid_ = 0;
  int report_fd_ = -1;
  int stop_fd_ = -1;
  uint64_t n_reported_ = 0;
};

absl::Status MakeStore(const std::filesystem::path& folder) {
  ASSIGN_OR_RETURN(auto store, OpenStore(folder, OpenMode::kCreate));
  Mutation mutation;
  mutation.PutSettings(TestSettings());
  return store->Commit(std::move(mutation));
}

// What is wrong with the reader's view; empty: it is exactly the state after some commit. Sets
// `*epoch` to that commit's. A read that needs a file which the writer has removed moves the view
// on by itself: the check then begins again.
std::string CheckView(const DocumentStore& reader, uint64_t* epoch) {
  for (;;) {
    const auto before = reader.ReadCounters();
    if (!before.ok()) return before.status().ToString();
    std::string fault;
    const DocumentNumber last = before->epoch - 1;
    for (DocumentNumber number = 1; number <= last + 1 && fault.empty(); ++number) {
      const bool is_there = number <= last && number + kDocumentsKept > last;
      // Deleted ones long ago are all alike.
      if (!is_there && number + kDocumentsKept + 2 < last) continue;
      fault = is_there ? CheckDocument(reader, WorkloadDocument(number))
                       : CheckAbsent(reader, WorkloadDocument(number));
      if (!fault.empty()) fault = StrCat("document ", number, " of ", last, ": ", fault);
    }
    const auto after = reader.ReadCounters();
    if (!after.ok()) return after.status().ToString();
    *epoch = after->epoch;
    if (after->epoch == before->epoch) return fault;
  }
}

// Rounds of each test: enough for several compactions and an end of the writer.
constexpr int kRounds = 20;

TEST(FollowTest, RefreshedReaderSeesEveryReportedCommitWholeAndRight) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  ASSERT_OK_AND_ASSIGN(auto reader, OpenStore(folder.path(), OpenMode::kRead));
  Writer writer(folder.path());
  uint64_t epoch = 1;
  for (int round = 0; round < kRounds; ++round) {
    writer.WaitForCommits(2);
    const uint64_t n_reported = writer.n_reported();
    ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
    EXPECT_TRUE(changed);
    ASSERT_OK_AND_ASSIGN(const Counters counters, reader->ReadCounters());
    EXPECT_GE(counters.epoch, 1 + n_reported);
    EXPECT_GE(counters.epoch, epoch);
    ASSERT_THAT(CheckView(*reader, &epoch), IsEmpty());
  }
  EXPECT_EQ(writer.Stop(), 0);
  ASSERT_OK(reader->Refresh().status());
  EXPECT_EQ(reader->ReadCounters()->epoch, 1 + writer.n_reported());
  ASSERT_THAT(CheckView(*reader, &epoch), IsEmpty());
  ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
  EXPECT_FALSE(changed);
}

TEST(FollowTest, ReaderThatOpensAnewEachTimeSeesEveryReportedCommit) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  Writer writer(folder.path());
  for (int round = 0; round < kRounds; ++round) {
    writer.WaitForCommits(1);
    const uint64_t n_reported = writer.n_reported();
    ASSERT_OK_AND_ASSIGN(auto reader, OpenStore(folder.path(), OpenMode::kRead));
    uint64_t epoch = 0;
    ASSERT_THAT(CheckView(*reader, &epoch), IsEmpty());
    EXPECT_GE(epoch, 1 + n_reported);
  }
}

TEST(FollowTest, ReaderThatNeverRefreshesReadsRightDataOrIsToldThatItIsGone) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  Writer writer(folder.path());
  writer.WaitForCommits(kCommitsToCompaction + 1);  // older blocks are in files
  ASSERT_OK_AND_ASSIGN(auto reader, OpenStore(folder.path(), OpenMode::kRead));
  ASSERT_OK_AND_ASSIGN(const Counters opened, reader->ReadCounters());
  writer.WaitForCommits(2 * kCommitsToCompaction + 1);  // and these files are gone
  // In several threads, so that views are replaced under each other's reads.
  std::vector<std::thread> threads;
  for (int thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&] {
      for (DocumentNumber number = opened.epoch - kDocumentsKept; number < opened.epoch + 40;
           ++number) {
        const WindowLink link = WorkloadDocument(number).links[0];
        for (int layer = 0; layer < kTestMemoryLayers; ++layer) {
          const auto block = reader->GetBlock(link.slot_begin, layer);
          if (block.ok()) {
            EXPECT_TRUE(*block == TestBlock(link.slot_begin, layer, link.n_tokens));
          } else {
            EXPECT_TRUE(absl::IsNotFound(block.status())) << block.status();
          }
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  // A read moved the view on by itself, and the next Refresh does not keep that quiet.
  EXPECT_GT(reader->ReadCounters()->epoch, opened.epoch);
  ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
  EXPECT_TRUE(changed);
}

TEST(FollowTest, VerifyBesideAWriterReportsNoDamage) {
  TemporaryFolder folder(FastTemporaryRoot());
  ASSERT_OK(MakeStore(folder.path()));
  Writer writer(folder.path());
  ASSERT_OK_AND_ASSIGN(auto reader, OpenStore(folder.path(), OpenMode::kRead));
  for (int round = 0; round < kRounds; ++round) {
    writer.WaitForCommits(1);
    ASSERT_OK(reader->Refresh().status());
    ASSERT_THAT(ToText(VerifyAll(*reader)), IsEmpty());
  }
}

TEST(FollowTest, CommitsOfSeveralThreadsAllArriveBesideTheirOwnReads) {
  TemporaryFolder folder(FastTemporaryRoot());
  StoreOptions options;
  options.write_buffer_bytes = kWorkloadWriteBufferBytes;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate, options));
  Mutation begin;
  begin.PutSettings(TestSettings());
  begin.PutNextSlot(10000);
  begin.PutNextDocumentNumber(100);
  ASSERT_OK(store->Commit(std::move(begin)));
  std::vector<std::thread> threads;
  for (DocumentNumber thread = 0; thread < 3; ++thread) {
    threads.emplace_back([&store, thread] {
      for (DocumentNumber number = 1 + thread; number <= 24; number += 3) {
        const TestDocument document = WorkloadDocument(number);
        Mutation mutation;
        mutation.PutDocument(document.record);
        for (const WindowLink& link : document.links) {
          mutation.PutLink(link);
          mutation.PutWindow(TestWindow(link.slot_begin, link.n_tokens));
          mutation.PutQuerySample(link.slot_begin, TestSample(link.slot_begin));
          for (int layer = 0; layer < kTestMemoryLayers; ++layer) {
            mutation.PutBlock(link.slot_begin, layer,
                              TestBlock(link.slot_begin, layer, link.n_tokens));
          }
        }
        EXPECT_OK(store->Commit(std::move(mutation)));
        EXPECT_THAT(CheckDocument(*store, document), IsEmpty());
      }
    });
  }
  std::thread compactor([&store] {
    for (int i = 0; i < 3; ++i) EXPECT_OK(store->Compact());
  });
  for (std::thread& thread : threads) thread.join();
  compactor.join();
  for (DocumentNumber number = 1; number <= 24; ++number) {
    EXPECT_THAT(CheckDocument(*store, WorkloadDocument(number)), IsEmpty());
  }
  EXPECT_EQ(store->ReadCounters()->epoch, 25u);
  EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
}

}  // namespace
}  // namespace fovea::storage

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "--writer") == 0) {
    return fovea::storage::RunWriter(argv[2], std::atoi(argv[3]), std::atoi(argv[4]));
  }
  ::testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
