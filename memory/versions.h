// The version folders of a memory (DIR/0001, DIR/0002, …): one is filled while another serves.
//
// DIR/CURRENT names the one that serves. So that a lost or damaged CURRENT can be put right without
// a guess, a version that was filled beside another says in its file STATE how far it came:
//
//   filling   not whole; CURRENT has never named it
//   whole     CURRENT is being replaced, or has been; nothing was stored in it since it was filled
//   active    CURRENT has named it: it has taken the place of all before it
//
// The first version of a memory has no such file. Before a writer stores anything in a version that
// is "whole", it makes it "active": the version before it lacks nothing until then.
#pragma once

#include <filesystem>
#include <memory>
#include <string>

#include "base/status.h"
#include "storage/document_store.h"

namespace fovea::memory {

// The version that a new memory begins with.
inline constexpr char kFirstVersion[] = "0001";
// The folder of the store in a version folder.
inline constexpr char kStoreFolder[] = "store";

// The store of a version: the one way in which it is opened. Errors are those of DocumentStore.
absl::StatusOr<std::unique_ptr<storage::DocumentStore>> OpenStore(
    const std::filesystem::path& version_folder, const storage::StoreOptions& options);

// Whether there is a memory: CURRENT, or a version folder with a store.
bool HasVersions(const std::filesystem::path& folder);

// Whether CURRENT is missing and nothing is there but, at most, what an interrupted first creation
// leaves behind: version 0001.
bool IsNew(const std::filesystem::path& folder);

// The version that CURRENT names. NotFound where there is no memory; DataLoss, with what to do,
// where CURRENT is missing or damaged: it holds no such name, names no version that is there, or
// one that cannot be the active one.
absl::StatusOr<std::string> CurrentVersion(const std::filesystem::path& folder);

// Where CURRENT is missing or damaged, makes it name the version that was active, as the version
// folders say. Returns what was wrong and what was done, in words; empty where CURRENT is sound.
// With nothing changed: DataLoss where the right version cannot be told; the store's errors where
// that version does not open even to be salvaged, or another process writes to it (Unavailable);
// NotFound where there is no memory.
absl::StatusOr<std::string> RestoreCurrent(const std::filesystem::path& folder);

// The name of the folder after `version`. FailedPrecondition after the last one.
absl::StatusOr<std::string> NextVersion(const std::filesystem::path& folder,
                                        const std::string& version);

// Makes the folder of `version` and says that it is being filled. Synced; comes before anything
// else is put there.
absl::Status MarkFilling(const std::filesystem::path& folder, const std::string& version);

// The commit point: later openings see `version`, which is whole. Synced.
absl::Status MakeCurrent(const std::filesystem::path& folder, const std::string& version);

// For writers that opened the current version, before they store anything: finishes a MakeCurrent
// that was interrupted after its commit point. Synced.
absl::Status FinishMakeCurrent(const std::filesystem::path& folder, const std::string& version);

// Whether `name`, of an entry of a version folder, is the file STATE: of that folder alone.
bool IsStateFile(const std::filesystem::path& name);

// An error leaves a part of it, which the next call removes.
absl::Status RemoveVersion(const std::filesystem::path& folder, const std::string& version);

// Removes version folders that neither serve nor are being filled (`next`, may be empty): what a
// swap or a crash after it left behind. What cannot be removed now goes with the next call.
void RemoveOtherVersions(const std::filesystem::path& folder, const std::string& current,
                         const std::string& next = "");

}  // namespace fovea::memory
