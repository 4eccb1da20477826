#include "storage/find_writer.h"

#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstdint>
#include <fstream>
#include <sstream>
#include <string>

#include "absl/strings/str_format.h"

namespace fovea::storage {

std::optional<pid_t> FindWriter(const std::filesystem::path& folder) {
  // Asking for the lock itself (F_GETLK) takes a descriptor of the file, whose end would take from
  // this process a lock that it has on the same file.
  struct stat file {};
  if (stat((folder / "LOCK").c_str(), &file) != 0) return std::nullopt;
  const std::string name = absl::StrFormat("%02x:%02x:%d", major(file.st_dev), minor(file.st_dev),
                                           static_cast<uint64_t>(file.st_ino));
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    // "1: POSIX  ADVISORY  WRITE 1234 fe:00:5678 0 EOF"; one that waits has "->" after the number.
    std::istringstream fields(line);
    std::string number, type, way, access, place;
    pid_t process = 0;
    fields >> number >> type >> way >> access >> process >> place;
    if (type == "POSIX" && access == "WRITE" && place == name && process > 0 &&
        process != getpid()) {
      return process;
    }
  }
  return std::nullopt;
}

}  // namespace fovea::storage
