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
#include "index/text_index.h"
#include "memory/block_cache.h"
#include "memory/generation.h"
#include "storage/document_store.h"

namespace fovea::model {
class Transformer;
}

namespace fovea::memory {

struct MemoryOptions {
  storage::OpenMode mode = storage::OpenMode::kRead;
  // Stored keys and values kept in main memory between queries, at most; 0: what the machine can
  // spare (memory/block_cache.h).
  size_t cache_bytes = 0;
  // The version folder to open; empty: the one that CURRENT names. A re-encoding rebuild fills the
  // next one before CURRENT does.
  std::string version = {};
  // Opens what can be read of a damaged memory, for `verify [--repair]`: where records are damaged
  // the generation is empty, and nothing is removed or made again by itself.
  bool salvage = false;
  std::shared_ptr<rocksdb::FileSystem> file_system = {};  // tests inject faults; null: the real one
};

// Errors are those of DocumentStore. Thread-safe but for Refresh and Publish.
class Memory {
 public:
  static absl::StatusOr<std::unique_ptr<Memory>> Open(const std::filesystem::path& folder,
                                                      const MemoryOptions& options);
  // Also where CURRENT was lost: Open says so then.
  static bool Exists(const std::filesystem::path& folder);
  // The name in DIR/CURRENT ("0001"). Errors: those of versions.h.
  static absl::StatusOr<std::string> CurrentVersion(const std::filesystem::path& folder);

  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path index_folder() const { return version_folder_ / "index"; }
  // Each generation has a text index of its own, so that a rebuild can make the next one while this
  // one serves.
  std::filesystem::path text_index_path() const { return TextIndexPath(text_generation_); }
  const std::filesystem::path& version_folder() const { return version_folder_; }

  // Unset before the first ingest fixed them.
  const std::optional<storage::StoreSettings>& settings() const { return settings_; }
  // FailedPrecondition, naming both, when the fingerprint of `model` is not the memory's, or when
  // its entries are bfloat16 and the memory's float32. (A bfloat16 memory of a model whose entries
  // are float32 is an older one: it stays as it is until it is encoded again.)
  absl::Status CheckModel(const model::Transformer& model) const;

  std::shared_ptr<const Generation> Current() const;
  // What is stored now, for a writer that encodes with the memory; it is not published.
  absl::StatusOr<std::shared_ptr<const Generation>> View(const IngestView& view) const {
    return BuildGeneration(view);
  }
  // Readers: catches up with the writing process; returns whether anything changed. After an error
  // the old view stays, and the next call tries again.
  absl::StatusOr<bool> Refresh();
  // Writers: makes what was committed visible to later queries (a new generation).
  absl::Status Publish();

  storage::DocumentStore& store() { return *store_; }
  BlockCache& cache() { return *cache_; }
  // Null where there is none (a reader of a memory whose text index was not made yet).
  index::TextIndex* text_index() { return text_index_.get(); }
  // Why there is none.
  const absl::Status& text_index_status() const { return text_index_status_; }

  // Brings the text index up to the store: passages of windows that it lacks. Writers only. A
  // damaged index file is replaced by a new one.
  absl::Status UpdateTextIndex(const Progress& progress);
  // A new file in the place of the old one once it is whole. Readers go on with it.
  absl::Status RebuildTextIndex(const Progress& progress);
  // Makes the text index of a generation that is not published yet, or goes on with it.
  absl::Status PrepareTextIndex(uint64_t generation, const Progress& progress);

  // Stores the first settings (`Ingester` does). Writers only.
  absl::Status InitializeSettings(const storage::StoreSettings& settings);

  // The document's text, exactly as it was ingested, piece by piece.
  absl::Status ReadText(const storage::DocumentRecord& document,
                        absl::FunctionRef<absl::Status(std::string_view piece)> visit);
  // Takes away the references that `goes` names; a document that nothing refers to then is deleted.
  // Returns those. One commit.
  absl::StatusOr<std::vector<storage::DocumentRecord>> RemoveSources(
      absl::FunctionRef<bool(const storage::DocumentRecord&, const storage::SourceReference&)>
          goes);
  // Hides at once and durably; Compact frees the space.
  absl::Status DeleteDocuments(const std::vector<storage::DocumentNumber>& numbers);
  // Takes the texts of deleted documents out of the files: out of the text index, which is made
  // again, and out of the store. Keys and values of them stay until the next compaction.
  absl::Status EraseDeletedTexts(const Progress& progress);
  // Frees what was deleted when it is more than `min_deleted_share` of all slots.
  absl::Status CompactIfWorthwhile(double min_deleted_share = 0.2);

 private:
  Memory() = default;
  // Deletes documents, puts others in the place of their records, and publishes.
  absl::Status Change(const std::vector<storage::DocumentNumber>& deleted,
                      const std::vector<storage::DocumentRecord>& updated);
  // Opens the version folder's store, caches and text index.
  absl::Status OpenVersion(const std::string& version);
  // Puts what `other` has opened in the place of what is open here.
  void TakeVersion(Memory* other);
  std::filesystem::path TextIndexPath(uint64_t generation) const;
  // The text index of the store's generation. Writers remove the files of earlier ones, make a new
  // one in the place of a damaged or lost one and bring it up to the store.
  absl::Status OpenTextIndex();
  absl::Status MakeTextIndex(const Progress& progress);
  absl::Status FillTextIndex(index::TextIndex* text_index, const Progress& progress);
  absl::StatusOr<std::shared_ptr<const Generation>> BuildGeneration(
      const IngestView& view = {}) const;
  absl::StatusOr<std::shared_ptr<const Generation>> ReadGeneration(
      const storage::Counters& counters, const IngestView& view) const;

  std::filesystem::path folder_;
  std::filesystem::path version_folder_;
  MemoryOptions options_;
  std::unique_ptr<storage::DocumentStore> store_;
  std::unique_ptr<BlockCache> cache_;
  std::unique_ptr<index::TextIndex> text_index_;
  absl::Status text_index_status_;
  uint64_t text_generation_ = 0;
  std::optional<storage::StoreSettings> settings_;
  bool is_behind_ = false;    // the store moved on, but what follows from it could not be read
  mutable std::mutex mutex_;  // guards current_
  std::shared_ptr<const Generation> current_;
};

struct Stats {
  int format_version = 0;
  int64_t documents = 0;
  std::vector<std::pair<std::string, int64_t>> collections;  // name, documents
  uint64_t tokens = 0;
  uint64_t slots = 0;
  uint64_t deleted_slots = 0;
  uint64_t text_bytes = 0;
  uint64_t block_bytes = 0;
  uint64_t index_bytes = 0;
  struct SegmentStats {
    uint64_t tokens = 0;
    std::string index;  // specification
    std::string state;  // "sealed", "growing", "damaged: …"
    std::vector<double> needle_recall;
    // Rescored per query head, in the layer that needs most; 0: searched exactly.
    int n_candidates = 0;
  };
  std::vector<SegmentStats> segments;
};
absl::StatusOr<Stats> ComputeStats(Memory& memory);

}  // namespace fovea::memory
