// The settings record once more, beside RocksDB's files: with the counters it lies in a table file
// of a few hundred bytes, and without it keys and values are of an unknown model. (Counters can be
// made again from the other records.) Read in salvage only.
#pragma once

#include <filesystem>

#include "base/status.h"
#include "rocksdb/file_system.h"
#include "storage/records.h"

namespace fovea::storage {

inline constexpr const char* kSettingsCopyFileName = "SETTINGS";

// Errors are dropped: the commit that put the settings has succeeded.
void WriteSettingsCopy(rocksdb::FileSystem& file_system, const std::filesystem::path& folder,
                       const StoreSettings& settings);

// NotFound where there is none, DataLoss where it is damaged.
absl::StatusOr<StoreSettings> ReadSettingsCopy(rocksdb::FileSystem& file_system,
                                               const std::filesystem::path& folder);

}  // namespace fovea::storage
