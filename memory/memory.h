// A memory: one directory with the store (RocksDB), the derived index files and the text index.
// Opening needs no model; encoding and asking do (ingester.h, searcher.h).
//
// Layout: DIR/CURRENT names the active version folder ("0001");
// DIR/0001/{store,index,text-N.sqlite}, N being the generation. A re-encoding rebuild fills the
// next version folder and swaps by replacing CURRENT.
//
//   ASSIGN_OR_RETURN(auto memory, Memory::Open(dir, {.mode = storage::OpenMode::kRead}));
//   std::shared_ptr<const Generation> view = memory->Current();
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/progress.h"
#include "base/status.h"
#include "memory/generation.h"
#include "memory/generation_builder.h"
#include "memory/opened_version.h"
#include "storage/document_store.h"

namespace fovea::memory {

// Errors are those of DocumentStore. Current, View, CheckModel, Refresh and Publish may be called
// by any thread at any time; everything else by one thread at a time, the one that changes the
// memory. A question needs nothing but a generation, which stays whole whatever happens here.
class Memory {
 public:
  static absl::StatusOr<std::unique_ptr<Memory>> Open(const std::filesystem::path& folder,
                                                      const MemoryOptions& options);
  // Also where CURRENT was lost: Open says so then.
  static bool Exists(const std::filesystem::path& folder);
  // The name in DIR/CURRENT ("0001"). Errors: those of versions.h.
  static absl::StatusOr<std::string> CurrentVersion(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  const std::filesystem::path& version_folder() const { return version_->folder(); }
  std::filesystem::path index_folder() const { return version_->index_folder(); }
  std::filesystem::path text_index_path() const { return version_->text_index().path(); }

  // Unset before the first ingest fixed them.
  const std::optional<storage::StoreSettings>& settings() const { return settings_; }
  // memory::CheckModel of the current generation.
  absl::Status CheckModel(const model::Transformer& model) const;

  std::shared_ptr<const Generation> Current() const;
  // What is stored now, for a writer that encodes with the memory; it is not published.
  absl::StatusOr<std::shared_ptr<const Generation>> View(const IngestView& view) const;
  // Readers: catches up with the writing process; returns whether anything changed. After an error
  // the old view stays, and the next call tries again.
  absl::StatusOr<bool> Refresh();
  // Writers: makes what was committed visible to later queries (a new generation).
  absl::Status Publish();

  // Of the version that is open: to the next Refresh.
  storage::DocumentStore& store() { return version_->store(); }
  BlockCache& cache() { return version_->cache(); }
  // Null where there is none (a reader of a memory whose text index was not made yet).
  index::TextIndex* text_index() { return version_->text_index().open_index(); }
  // Why there is none.
  absl::Status text_index_status() const { return version_->text_index().status(); }

  // Why the text index had to be made again since this was opened; empty: it had not.
  std::string text_index_made_again() const { return version_->text_index().made_again(); }
  // memory/text_index_file.h. Writers only.
  absl::Status UpdateTextIndex(const Progress& progress);
  absl::Status RebuildTextIndex(const Progress& progress);
  absl::Status PrepareTextIndex(uint64_t generation, const Progress& progress);

  // Stores the first settings and publishes them (`Ingester` does). Writers only.
  absl::Status InitializeSettings(const storage::StoreSettings& settings);

  // Takes away the references that `goes` names; a document that nothing refers to then is deleted.
  // Returns those. One commit.
  absl::StatusOr<std::vector<storage::DocumentRecord>> RemoveSources(
      absl::FunctionRef<bool(const storage::DocumentRecord&, const storage::SourceReference&)>
          goes);
  // RemoveSources, and what belongs to it: who is told that a text is deleted does not find it in a
  // file any more (EraseDeletedTexts), and where much was deleted the space is freed. `gone`, where
  // something was deleted, says what, whatever the status: with an error of what follows ("deleted,
  // but …") the documents are deleted all the same.
  struct Removed {
    std::vector<storage::DocumentRecord> gone;
    absl::Status status;
  };
  Removed RemoveForGood(
      absl::FunctionRef<bool(const storage::DocumentRecord&, const storage::SourceReference&)> goes,
      const Progress& progress);
  // Hides at once and durably; Compact frees the space.
  absl::Status DeleteDocuments(const std::vector<storage::DocumentNumber>& numbers);
  // Takes the texts of deleted documents out of the files: out of the text index, which is made
  // again, and out of the store. Keys and values of them stay until the next compaction.
  absl::Status EraseDeletedTexts(const Progress& progress);
  // Frees what was deleted when it is more than `min_deleted_share` of all slots.
  absl::Status CompactIfWorthwhile(double min_deleted_share = 0.2);

 private:
  Memory() = default;
  struct Opened {
    std::shared_ptr<OpenedVersion> version;
    std::shared_ptr<const Generation> generation;
  };
  absl::StatusOr<Opened> OpenVersion(const std::string& version) const;
  // The one that CURRENT names.
  absl::StatusOr<Opened> OpenCurrent() const;
  void Take(Opened opened);
  absl::Status PublishLocked();
  // Deletes documents, puts others in the place of their records, and publishes.
  absl::Status Change(const std::vector<storage::DocumentNumber>& deleted,
                      const std::vector<storage::DocumentRecord>& updated);

  std::filesystem::path folder_;
  MemoryOptions options_;
  std::mutex change_mutex_;  // one Refresh or Publish at a time
  std::shared_ptr<OpenedVersion> version_;
  std::optional<storage::StoreSettings> settings_;
  bool is_behind_ = false;    // the store moved on, but what follows from it could not be read
  mutable std::mutex mutex_;  // guards current_
  std::shared_ptr<const Generation> current_;
};

}  // namespace fovea::memory
