#include "base/processors.h"

#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <thread>

namespace fovea {
namespace {

// A folder that stands for "/". The affinity is the real one: what it allows is the most.
class ProcessorsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    root_ =
        std::filesystem::path(::testing::TempDir()) / ("processors_" + std::to_string(getpid()));
  }
  void TearDown() override { std::filesystem::remove_all(root_); }
  void Write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }

  std::filesystem::path root_;
};

TEST_F(ProcessorsTest, ThoseThatTheProcessMayRunOn) {
  cpu_set_t set;
  ASSERT_EQ(sched_getaffinity(0, sizeof(set), &set), 0);
  EXPECT_EQ(NumProcessors(root_ / "nowhere"), CPU_COUNT(&set));
  // A thread that is bound to one processor has one.
  int n_bound = 0;
  std::thread([&] {
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (!CPU_ISSET(cpu, &set)) continue;
      CPU_SET(cpu, &one);
      break;
    }
    if (sched_setaffinity(0, sizeof(one), &one) == 0) n_bound = NumProcessors(root_ / "nowhere");
  }).join();
  EXPECT_EQ(n_bound, 1);
}

TEST_F(ProcessorsTest, AQuotaOfVersion2) {
  const int n_allowed = NumProcessors(root_ / "nowhere");
  Write("proc/self/cgroup", "0::/pod/container\n");
  Write("sys/fs/cgroup/pod/container/cpu.max", "max 100000\n");
  EXPECT_EQ(NumProcessors(root_), n_allowed);
  Write("sys/fs/cgroup/pod/container/cpu.max", "100000 100000\n");
  EXPECT_EQ(NumProcessors(root_), 1);
  Write("sys/fs/cgroup/pod/container/cpu.max", "10000 100000\n");
  EXPECT_EQ(NumProcessors(root_), 1);
  Write("sys/fs/cgroup/pod/container/cpu.max", "110000 100000\n");
  EXPECT_EQ(NumProcessors(root_), std::min(n_allowed, 2));
  Write("sys/fs/cgroup/pod/container/cpu.max", "99900000 100000\n");
  EXPECT_EQ(NumProcessors(root_), n_allowed);
  // That of a group around it counts, too.
  Write("sys/fs/cgroup/pod/cpu.max", "50000 100000\n");
  EXPECT_EQ(NumProcessors(root_), 1);
}

TEST_F(ProcessorsTest, AQuotaOfVersion1) {
  const int n_allowed = NumProcessors(root_ / "nowhere");
  Write("proc/self/cgroup", "4:memory:/m\n3:cpu,cpuacct:/jobs\n0::/\n");
  Write("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "-1\n");
  Write("sys/fs/cgroup/cpu/jobs/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(NumProcessors(root_), n_allowed);
  Write("sys/fs/cgroup/cpu/jobs/cpu.cfs_quota_us", "80000\n");
  EXPECT_EQ(NumProcessors(root_), 1);
  // Seen from inside of a container, its own group is the first folder.
  Write("proc/self/cgroup", "3:cpu,cpuacct:/docker/0123\n");
  EXPECT_EQ(NumProcessors(root_), n_allowed);
  Write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "80000\n");
  Write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(NumProcessors(root_), 1);
}

}  // namespace
}  // namespace fovea
