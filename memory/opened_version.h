// One version folder of a memory, open: its store, what of it is kept in main memory, and its text
// index. Everything that is read from a memory is read through one of these; generations share it,
// so that it stays open as long as anybody holds one, whatever the memory has gone on to.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/status.h"
#include "memory/block_cache.h"
#include "memory/text_index_file.h"
#include "storage/document_store.h"

namespace fovea::memory {

class ResidentCache;

struct MemoryOptions {
  storage::OpenMode mode = storage::OpenMode::kRead;
  // Stored keys and values kept in main memory between queries, at most; 0: what the machine can
  // spare (memory/block_cache.h).
  size_t cache_bytes = 0;
  // What of them a GPU reads in pinned host memory, at most; unset: half of what is available
  // (memory/residency_plan.h).
  std::optional<size_t> pinned_bytes = {};
  // The version folder to open; empty: the one that CURRENT names. A re-encoding rebuild fills the
  // next one before CURRENT does.
  std::string version = {};
  // Opens what can be read of a damaged memory, for `verify [--repair]`: where records are damaged
  // the generation is empty, and nothing is removed or made again by itself.
  bool salvage = false;
  std::shared_ptr<rocksdb::FileSystem> file_system = {};  // tests inject faults; null: the real one
};

// Thread-safe. A writer's keeps other writers out (RocksDB's lock) until the last holder lets go.
class OpenedVersion {
 public:
  // `memory_folder`/`version`. Writers remove index files that no record names, and bring the text
  // index up to the store. Errors are those of DocumentStore.
  static absl::StatusOr<std::shared_ptr<OpenedVersion>> Open(
      const std::filesystem::path& memory_folder, const std::string& version,
      const MemoryOptions& options);
  ~OpenedVersion();
  OpenedVersion(const OpenedVersion&) = delete;
  OpenedVersion& operator=(const OpenedVersion&) = delete;

  const std::filesystem::path& memory_folder() const { return memory_folder_; }
  const std::filesystem::path& folder() const { return folder_; }
  std::filesystem::path index_folder() const { return folder_ / "index"; }

  storage::DocumentStore& store() const { return *store_; }
  BlockCache& cache() const { return *cache_; }
  ResidentCache& resident() const { return *resident_; }
  TextIndexFile& text_index() const { return *text_index_; }

  // Unset before the first ingest fixed them, and where a salvaged store has lost them.
  absl::StatusOr<std::optional<storage::StoreSettings>> ReadSettings() const;
  bool is_salvage() const { return is_salvage_; }

 private:
  OpenedVersion();

  std::filesystem::path memory_folder_;
  std::filesystem::path folder_;
  bool is_salvage_ = false;
  // The others read from the store.
  std::unique_ptr<storage::DocumentStore> store_;
  std::unique_ptr<BlockCache> cache_;
  std::unique_ptr<ResidentCache> resident_;
  std::unique_ptr<TextIndexFile> text_index_;
};

}  // namespace fovea::memory
