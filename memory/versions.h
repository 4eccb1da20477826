// The version folders of a memory (DIR/0001, DIR/0002, …): one is filled while another serves.
#pragma once

#include <filesystem>
#include <string>

#include "base/status.h"

namespace fovea::memory {

// The name of the folder after `version`. FailedPrecondition after the last one.
absl::StatusOr<std::string> NextVersion(const std::filesystem::path& folder,
                                        const std::string& version);

// The commit point: later openings see `version`. Synced.
absl::Status MakeCurrent(const std::filesystem::path& folder, const std::string& version);

// Removes version folders that neither serve nor are being filled (`next`, may be empty): what a
// swap or a crash after it left behind. What cannot be removed now goes with the next call.
void RemoveOtherVersions(const std::filesystem::path& folder, const std::string& current,
                         const std::string& next = "");

}  // namespace fovea::memory
