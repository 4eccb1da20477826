// One file out of a zip archive.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string_view>

#include "base/progress.h"
#include "base/status.h"

namespace fovea::cli {

// Writes the member `name` of `archive` to the new file `path` and fsyncs it; after an error no
// file is left. Strict: one plain archive (no Zip64, no encryption, no parts), a member that is
// stored or deflated, has the size and CRC-32 that the archive's directory says, and is no larger
// than `max_size_bytes`. NotFound: no such member. DataLoss: a damaged archive. `archive_name` is
// for messages.
absl::Status ExtractZipMember(std::string_view archive, std::string_view archive_name,
                              std::string_view name, const std::filesystem::path& path,
                              uint64_t max_size_bytes, const Progress& progress);

}  // namespace fovea::cli
