#include "base/system_memory.h"

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <optional>
#include <string>

#include "base/control_group.h"

namespace fovea {
namespace {

// The number of a file that holds one; none for "max", and where there is no such file.
std::optional<uint64_t> ReadNumber(const std::filesystem::path& path) {
  std::ifstream in(path);
  uint64_t number = 0;
  if (in >> number) return number;
  return std::nullopt;
}

// The number after `name` in a file of lines "name number …"; 0 where there is none.
uint64_t ReadField(const std::filesystem::path& path, const std::string& name) {
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) {
    if (!line.starts_with(name) || line.size() == name.size() || line[name.size()] != ' ') continue;
    return std::strtoull(line.c_str() + name.size(), nullptr, 10);
  }
  return 0;
}

// What differs between the two versions of control groups.
struct GroupFiles {
  const char* limit;
  const char* usage;
  const char* inactive_files;  // in memory.stat: page cache that is dropped when memory is needed
};
constexpr GroupFiles kVersion1 = {"memory.limit_in_bytes", "memory.usage_in_bytes",
                                  "total_inactive_file"};
constexpr GroupFiles kVersion2 = {"memory.max", "memory.current", "inactive_file"};

void ApplyLimit(const std::filesystem::path& group, const GroupFiles& files, SystemMemory* memory) {
  const std::optional<uint64_t> limit = ReadNumber(group / files.limit);
  const std::optional<uint64_t> usage = ReadNumber(group / files.usage);
  if (!limit || !usage || *limit >= memory->total_bytes) return;
  const uint64_t used =
      *usage - std::min(*usage, ReadField(group / "memory.stat", files.inactive_files));
  memory->total_bytes = *limit;
  memory->available_bytes = std::min(memory->available_bytes, *limit - std::min(*limit, used));
}

}  // namespace

SystemMemory GetSystemMemory(const std::filesystem::path& root) {
  constexpr uint64_t kKilobyte = 1024;
  const std::filesystem::path meminfo = root / "proc/meminfo";
  SystemMemory memory;
  memory.total_bytes = ReadField(meminfo, "MemTotal:") * kKilobyte;
  memory.available_bytes = ReadField(meminfo, "MemAvailable:") * kKilobyte;
  ForEachControlGroup(root, "memory",
                      [&memory](const std::filesystem::path& group, bool is_version2) {
                        ApplyLimit(group, is_version2 ? kVersion2 : kVersion1, &memory);
                      });
  return memory;
}

}  // namespace fovea
