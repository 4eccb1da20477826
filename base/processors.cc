#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <string>
#include <thread>

#include "base/control_group.h"

namespace fovea {
namespace {

// Microseconds of processor time in each period; quotas that are no positive numbers ("max", -1)
// bound nothing.
struct Quota {
  double quota_us = 0.0;
  double period_us = 0.0;
};

Quota ReadQuota(const std::filesystem::path& group, bool is_version2) {
  Quota quota;
  if (is_version2) {
    std::ifstream(group / "cpu.max") >> quota.quota_us >> quota.period_us;
  } else {
    std::ifstream(group / "cpu.cfs_quota_us") >> quota.quota_us;
    std::ifstream(group / "cpu.cfs_period_us") >> quota.period_us;
  }
  return quota;
}

int NumAllowed() {
  cpu_set_t set;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) return CPU_COUNT(&set);
  return static_cast<int>(std::thread::hardware_concurrency());
}

}  // namespace

int NumProcessors(const std::filesystem::path& root) {
  double n = NumAllowed();
  ForEachControlGroup(root, "cpu", [&n](const std::filesystem::path& group, bool is_version2) {
    const Quota quota = ReadQuota(group, is_version2);
    if (quota.quota_us > 0.0 && quota.period_us > 0.0) {
      n = std::min(n, std::ceil(quota.quota_us / quota.period_us));
    }
  });
  return std::max(1, static_cast<int>(n));
}

}  // namespace fovea
