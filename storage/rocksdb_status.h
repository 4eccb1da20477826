// RocksDB's statuses as ours. Only for sources that speak to RocksDB.
#pragma once

#include <string_view>

#include "base/status.h"
#include "rocksdb/status.h"

namespace fovea::storage {

// `doing` says what was tried and on what ("/data/memory: committing"). A full disk becomes
// ResourceExhausted, a forbidden or read-only file PermissionDenied, corruption DataLoss.
absl::Status FromRocksDb(const rocksdb::Status& status, std::string_view doing);

// Whether a file that the status speaks of is not there (any more).
bool IsMissingFile(const rocksdb::Status& status);

}  // namespace fovea::storage
