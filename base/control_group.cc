#include "base/control_group.h"

#include <fstream>
#include <string>

#include "base/strings.h"

namespace fovea {

void ForEachControlGroup(
    const std::filesystem::path& root, std::string_view controller,
    absl::FunctionRef<void(const std::filesystem::path& group, bool is_version2)> visit) {
  // Lines "number:controllers:/path"; version 2 has the number 0 and no controllers. Inside a
  // container the path may be seen from outside: then its own group is the first folder itself.
  std::ifstream in(root / "proc/self/cgroup");
  std::string line;
  while (std::getline(in, line)) {
    const size_t first = line.find(':');
    const size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const bool is_version2 = line.starts_with("0::");
    if (!is_version2 && controllers.find(StrCat(",", controller, ",")) == std::string::npos) {
      continue;
    }
    std::filesystem::path group = root / "sys/fs/cgroup";
    if (!is_version2) group /= controller;
    visit(group, is_version2);
    const std::filesystem::path own(line.substr(second + 1));
    for (const std::filesystem::path& name : own.relative_path()) {
      if (name.empty() || name == "..") break;
      group /= name;
      visit(group, is_version2);
    }
  }
}

}  // namespace fovea
