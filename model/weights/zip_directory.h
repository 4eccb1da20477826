// Where the members of a zip archive lie: the stored (uncompressed) archives that PyTorch writes,
// Zip64 among them. Nothing is unpacked.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fovea::model {

struct ZipMember {
  std::string name;
  uint64_t offset = 0;  // of its first byte in the archive
  uint64_t size_bytes = 0;
  uint32_t crc32 = 0;
};

// Members in the order of the archive's directory, names unique, their bytes inside the archive
// and not overlapping. InvalidArgument: no archive, or a damaged one; Unimplemented names a member
// that is compressed or encrypted, or an archive of several parts.
absl::StatusOr<std::vector<ZipMember>> ReadZipDirectory(std::string_view archive);

}  // namespace fovea::model
