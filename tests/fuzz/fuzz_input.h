// What fuzz targets share: files for the readers that take a path, and several files from one
// input.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea::fuzz {

inline std::string_view AsView(const uint8_t* data, size_t size) {
  return {reinterpret_cast<const char*>(data), size};
}

// What a target finds wrong itself ends the run as a crash does.
inline void Require(bool claim, const char* what) {
  if (claim) return;
  std::fprintf(stderr, "broken: %s\n", what);
  abort();
}

// A folder of this process in main memory where there is one, removed at its end.
class ScratchFolder {
 public:
  ScratchFolder() {
    std::error_code error;
    const std::filesystem::path memory = "/dev/shm";
    const std::filesystem::path root =
        access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path(error);
    std::string name = (root / "fovea-fuzz-XXXXXX").string();
    Require(mkdtemp(name.data()) != nullptr, "a folder for temporary files");
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }

  // Replaces the file `name`; no bytes: there is none.
  std::filesystem::path Write(const std::string& name, std::string_view bytes) const {
    const std::filesystem::path path = path_ / name;
    if (bytes.empty()) {
      std::error_code error;
      std::filesystem::remove(path, error);
      return path;
    }
    std::FILE* file = std::fopen(path.c_str(), "wb");
    Require(file != nullptr, "a temporary file");
    Require(std::fwrite(bytes.data(), 1, bytes.size(), file) == bytes.size(), "room for it");
    Require(std::fclose(file) == 0, "room for it");
    return path;
  }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// The text in front of the next NUL byte, which is taken off *input with it; all of it where there
// is none.
inline std::string_view TakePart(std::string_view* input) {
  const size_t end = input->find('\0');
  const std::string_view part = input->substr(0, end);
  input->remove_prefix(end == std::string_view::npos ? input->size() : end + 1);
  return part;
}

// A message that a user could read.
inline void CheckMessage(const absl::Status& status) {
  if (status.ok()) return;
  Require(!status.message().empty(), "an error without a message");
  Require(status.message().size() < 4096, "an error with a message of more than 4 kB");
}

}  // namespace fovea::fuzz
