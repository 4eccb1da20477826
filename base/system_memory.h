// How much main memory there is for this process: for caches that may take what nobody else needs.
#pragma once

#include <cstdint>
#include <filesystem>

namespace fovea {

struct SystemMemory {
  uint64_t total_bytes = 0;  // of the machine, or what a container may use of it
  uint64_t available_bytes =
      0;  // without anybody being swapped out, files in the page cache counted
};

// Linux: /proc/meminfo, and the memory limit of this process's control group (version 1 or 2) where
// that is lower. Zeros where the system does not say. `root` stands for "/" in tests. Takes tens of
// microseconds.
SystemMemory GetSystemMemory(const std::filesystem::path& root = "/");

}  // namespace fovea
