#include "base/system_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <string>

namespace fovea {
namespace {

constexpr uint64_t kGiB = uint64_t{1} << 30;

// A folder that stands for "/".
class SystemMemoryTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ =
        std::filesystem::path(::testing::TempDir()) / ("system_memory_" + std::to_string(getpid()));
    Write(
        "proc/meminfo",
        "MemTotal:       16777216 kB\nMemFree:         1000000 kB\nMemAvailable:    8388608 kB\n");
  }
  void TearDown() override { std::filesystem::remove_all(root_); }

  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  std::filesystem::path root_;
};

TEST_F(SystemMemoryTest, TheMachinesWithoutALimit) {
  SystemMemory memory = GetSystemMemory(root_);
  EXPECT_EQ(memory.total_bytes, 16 * kGiB);
  EXPECT_EQ(memory.available_bytes, 8 * kGiB);

  Write("proc/self/cgroup", "0::/user.slice\n");
  Write("sys/fs/cgroup/user.slice/memory.max", "max\n");
  Write("sys/fs/cgroup/user.slice/memory.current", "123456\n");
  memory = GetSystemMemory(root_);
  EXPECT_EQ(memory.total_bytes, 16 * kGiB);
  EXPECT_EQ(memory.available_bytes, 8 * kGiB);
}

TEST_F(SystemMemoryTest, AContainersLimitOfVersion2) {
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/memory.max", "4294967296\n");
  Write("sys/fs/cgroup/memory.current", "3221225472\n");
  Write("sys/fs/cgroup/memory.stat", "anon 1\ninactive_file 1073741824\nactive_file 5\n");
  const SystemMemory memory = GetSystemMemory(root_);
  EXPECT_EQ(memory.total_bytes, 4 * kGiB);
  EXPECT_EQ(memory.available_bytes, 2 * kGiB) << "3 GiB are used, one of them by droppable files";
}

TEST_F(SystemMemoryTest, AGroupsLimitOfVersion1) {
  Write("proc/self/cgroup", "5:cpu:/jobs\n4:hugetlb,memory:/jobs/a\n0::/\n");
  Write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
  Write("sys/fs/cgroup/memory/memory.usage_in_bytes", "5000000000\n");
  Write("sys/fs/cgroup/memory/jobs/a/memory.limit_in_bytes", "2147483648\n");
  Write("sys/fs/cgroup/memory/jobs/a/memory.usage_in_bytes", "1073741824\n");
  Write("sys/fs/cgroup/memory/jobs/a/memory.stat", "total_inactive_file 0\n");
  const SystemMemory memory = GetSystemMemory(root_);
  EXPECT_EQ(memory.total_bytes, 2 * kGiB);
  EXPECT_EQ(memory.available_bytes, 1 * kGiB);
}

TEST_F(SystemMemoryTest, AGroupThatHasUsedItsLimitHasNothingLeft) {
  Write("proc/self/cgroup", "0::/\n");
  Write("sys/fs/cgroup/memory.max", "1073741824\n");
  Write("sys/fs/cgroup/memory.current", "1100000000\n");
  EXPECT_EQ(GetSystemMemory(root_).available_bytes, 0u);
}

TEST_F(SystemMemoryTest, ZerosWhereNothingIsSaid) {
  const SystemMemory memory = GetSystemMemory(root_ / "nowhere");
  EXPECT_EQ(memory.total_bytes, 0u);
  EXPECT_EQ(memory.available_bytes, 0u);
}

TEST(SystemMemory, ThisMachineHasSome) {
  const SystemMemory memory = GetSystemMemory();
  EXPECT_GT(memory.total_bytes, 100u << 20);
  EXPECT_GT(memory.available_bytes, 0u);
  EXPECT_LE(memory.available_bytes, memory.total_bytes);
}

}  // namespace
}  // namespace fovea
