// Whether memory that was freed has gone back to the system.
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>

namespace fovea {

// Whether no page lies at this address any more.
inline bool IsUnmapped(uintptr_t address) {
  const auto page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  auto* const page = reinterpret_cast<void*>(address & ~(page_bytes - 1));
  unsigned char is_resident = 0;
  return mincore(page, page_bytes, &is_resident) != 0 && errno == ENOMEM;
}

}  // namespace fovea
