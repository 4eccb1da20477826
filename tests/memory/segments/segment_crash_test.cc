// A writer that is killed while it seals, merges and rebuilds: afterwards the old or the new
// segments are there, without gaps, with all their files and no others.
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "memory/segments/sealer.h"
#include "memory/upkeep/rebuild.h"
#include "memory/upkeep/verify.h"
#include "tests/memory/synthetic_memory.h"
#include "tests/storage/fault_file_system.h"

namespace fovea::memory {
namespace {

using storage::FaultFileSystem;
using storage::FileOperation;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr const char* kNewSpec = "IVF5,Flat";

// The child's side: writes the number of changes to the disk when it began and when it ended to
// the file descriptor.
absl::Status Work(const char* folder, int64_t kill_at, int report_fd) {
  FaultFileSystem disk;
  if (kill_at > 0) disk.KillAt(kill_at, /*torn=*/kill_at % 2 == 0);
  MemoryOptions options;
  options.mode = storage::OpenMode::kWrite;
  options.file_system = disk.file_system();
  ASSIGN_OR_RETURN(const auto memory, Memory::Open(folder, options));
  int64_t changes[2] = {disk.n_operations(FileOperation::kChange), 0};
  const auto device = TestDevice();
  RETURN_IF_ERROR(SealAll(*device, &memory->store(), memory->index_folder(), Progress()));
  RETURN_IF_ERROR(Rebuild(*device, memory.get(), kNewSpec, Progress()).status());
  changes[1] = disk.n_operations(FileOperation::kChange);
  if (write(report_fd, changes, sizeof(changes)) != sizeof(changes)) {
    return absl::InternalError("cannot report");
  }
  return absl::OkStatus();
}

struct WorkerEnd {
  bool killed = false;
  int64_t first_change = 0;
  int64_t last_change = 0;
};

// Runs this program as a writer process. Not a bare fork: RocksDB's threads do not survive one.
WorkerEnd Spawn(const std::filesystem::path& folder, int64_t kill_at) {
  int fds[2];
  FOVEA_CHECK(pipe(fds) == 0);
  const pid_t pid = fork();
  FOVEA_CHECK(pid >= 0);
  if (pid == 0) {
    close(fds[0]);
    execl("/proc/self/exe", "segment_crash_test", "--worker", folder.c_str(),
          std::to_string(kill_at).c_str(), std::to_string(fds[1]).c_str(), nullptr);
    _exit(127);
  }
  close(fds[1]);
  int64_t changes[2] = {0, 0};
  const ssize_t n_read = read(fds[0], changes, sizeof(changes));
  close(fds[0]);
  int status = 0;
  FOVEA_CHECK(waitpid(pid, &status, 0) == pid);
  WorkerEnd end;
  end.killed = WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
  if (!end.killed) {
    EXPECT_EQ(WIFEXITED(status) ? WEXITSTATUS(status) : -1, 0);
    EXPECT_EQ(n_read, static_cast<ssize_t>(sizeof(changes)));
    end.first_change = changes[0];
    end.last_change = changes[1];
  }
  return end;
}

TEST(SegmentCrashTest, KilledAtAnyChangeTheOldOrTheNewSegmentsServe) {
  TemporaryFolder folder;
  const std::filesystem::path prepared = folder / "prepared";
  {
    // Three sealed segments and as much again: the next seal merges four.
    ASSERT_OK_AND_ASSIGN(const auto memory, CreateSyntheticMemory(prepared, "IVF4,Flat"));
    const auto device = TestDevice();
    for (int i = 0; i < 4; ++i) {
      ASSERT_OK(AddDocument(memory->store(), {.n_windows = 2, .n_slots = kSealSlots}).status());
      if (i == 3) break;
      ASSERT_OK(SealAll(*device, &memory->store(), memory->index_folder(), Progress()));
    }
    ASSERT_THAT(VisibleSegments(memory->store()), SizeIs(3));
  }
  const auto copy = [&](const char* name) {
    const std::filesystem::path path = folder / name;
    std::filesystem::remove_all(path);
    std::filesystem::copy(prepared, path, std::filesystem::copy_options::recursive);
    return path;
  };
  const WorkerEnd whole = Spawn(copy("whole"), 0);
  ASSERT_FALSE(whole.killed);
  ASSERT_GT(whole.last_change, whole.first_change);

  // The first changes are the commits of the seal and of the rebuild, each of them a point of its
  // own; the many after them are compaction.
  constexpr int64_t kEach = 14;
  constexpr int64_t kSpread = 6;
  std::vector<int64_t> points;
  for (int64_t i = 1; i <= kEach; ++i) points.push_back(whole.first_change + i);
  const int64_t rest = whole.last_change - points.back();
  for (int64_t i = 1; i <= kSpread; ++i) {
    points.push_back(whole.first_change + kEach + std::max<int64_t>(0, rest) * i / kSpread);
  }
  int64_t n_killed = 0;
  int n_old = 0;
  int n_sealed = 0;
  int n_rebuilt = 0;
  for (const int64_t point : points) {
    SCOPED_TRACE(point);
    const std::filesystem::path path = copy("killed");
    n_killed += Spawn(path, point).killed ? 1 : 0;
    ASSERT_OK_AND_ASSIGN(const auto memory, OpenMemory(path, storage::OpenMode::kWrite));
    const auto segments = VisibleSegments(memory->store());
    const auto view = memory->Current();
    ASSERT_THAT(view->segments, SizeIs(segments.size()));
    Slot slot = 0;
    for (const auto& segment : view->segments) {
      EXPECT_EQ(segment->damage, "");
      EXPECT_EQ(segment->record.slot_begin, slot);
      slot = segment->record.slot_end;
    }
    ASSERT_OK_AND_ASSIGN(const auto all, memory->store().Segments());
    EXPECT_EQ(FilesIn(memory->index_folder()), FilesOf(all)) << "orphans are removed";
    if (segments.size() == 3) {
      ++n_old;
      EXPECT_EQ(slot, 3 * kSealSlots);
    } else {
      ASSERT_THAT(segments, SizeIs(1));
      EXPECT_EQ(slot, 4 * kSealSlots);
      ++(segments[0].spec == kNewSpec ? n_rebuilt : n_sealed);
    }
    // And the work can be done again.
    const auto device = TestDevice();
    ASSERT_OK(SealAll(*device, &memory->store(), memory->index_folder(), Progress()));
    ASSERT_OK(Rebuild(*device, memory.get(), kNewSpec, Progress()).status());
    ASSERT_OK_AND_ASSIGN(const VerifyReport report, Verify(*device, memory.get(), {}));
    EXPECT_TRUE(report.ok);
    EXPECT_THAT(report.damaged, IsEmpty());
    EXPECT_EQ(report.index_files, kTestLayers);
  }
  // How much compaction writes varies a little; what comes before it does not.
  EXPECT_GE(n_killed, kEach);
  EXPECT_GT(n_old, 0);
  EXPECT_GT(n_sealed, 0);
}

}  // namespace
}  // namespace fovea::memory

int main(int argc, char** argv) {
  if (argc == 5 && std::strcmp(argv[1], "--worker") == 0) {
    const absl::Status status =
        fovea::memory::Work(argv[2], std::atoll(argv[3]), std::atoi(argv[4]));
    if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
    return status.ok() ? 0 : 4;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
