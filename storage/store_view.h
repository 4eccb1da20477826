// One opened RocksDB: the writer's, or a reader's view of what the writer had committed at some
// moment. Knows how a store opens, not what its records mean.
#pragma once

#include <array>
#include <atomic>
#include <filesystem>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "base/status.h"
#include "rocksdb/cache.h"
#include "rocksdb/db.h"
#include "rocksdb/env.h"
#include "rocksdb/file_system.h"
#include "storage/column_families.h"
#include "storage/document_store.h"

namespace fovea::storage {

// What all views of one store share.
struct StoreContext {
  StoreContext(std::filesystem::path folder, StoreOptions options);

  std::filesystem::path folder;
  StoreOptions options;
  std::shared_ptr<rocksdb::FileSystem> file_system;
  std::unique_ptr<rocksdb::Env> env;
  std::shared_ptr<rocksdb::Cache> block_cache;

  bool is_reader() const { return options.mode == OpenMode::kRead; }
};

// Immutable and thread-safe: the writer's changes with its commits, a reader's never does.
//
// Readers are RocksDB's read-only instances, opened anew for every refresh. Its secondary
// instances, which follow the writer's log, do not work with blob files: in 7.8 the first read of a
// blob uses freed memory (github.com/facebook/rocksdb/issues/13248), and the combination is not
// supported (issue 13296).
class StoreView {
 public:
  // The writer's. Unavailable when another process has it.
  static absl::StatusOr<std::shared_ptr<StoreView>> OpenWriter(
      std::shared_ptr<const StoreContext> context);
  // A reader's, which sees every commit that was reported before the call. Writes nothing.
  static absl::StatusOr<std::shared_ptr<StoreView>> OpenReader(
      std::shared_ptr<const StoreContext> context);

  // The value of the format version record, where a store of whatever release has one. For stores
  // that open neither way because their column families are others.
  static absl::StatusOr<std::string> PeekFormatRecord(const StoreContext& context);

  // The folder holds commits, or did once: a store that looks empty has lost its list of files.
  static bool HadCommits(const StoreContext& context);
  static absl::Status LostManifest(const StoreContext& context);  // DataLoss, with what to do

  ~StoreView();
  StoreView(const StoreView&) = delete;
  StoreView& operator=(const StoreView&) = delete;

  rocksdb::DB& db() const { return *db_; }
  rocksdb::ColumnFamilyHandle* family(ColumnFamily family) const {
    return families_[static_cast<size_t>(family)];
  }

  // A reader's: whether the writer has neither committed nor moved records since it was opened.
  bool IsCurrent() const;

  // In salvage: which reported commits are not in this view. OK: none.
  absl::Status missing_commits() const {
    return missing_accepted_ ? absl::OkStatus() : missing_commits_;
  }
  // A commit on top of what is left makes the loss final.
  void AcceptMissingCommits() { missing_accepted_ = true; }

  // The counters in this view; zeros before the first commit. DataLoss when damaged.
  absl::StatusOr<Counters> ReadCounters() const;

 private:
  // The manifest file's name and size: it grows or changes with every flush and compaction, before
  // any file that this makes superfluous is removed.
  struct ManifestState {
    std::string name;
    uint64_t size_bytes = 0;
    bool operator==(const ManifestState&) const = default;
  };

  explicit StoreView(std::shared_ptr<const StoreContext> context) : context_(std::move(context)) {}
  static absl::StatusOr<ManifestState> ReadManifestState(const StoreContext& context);
  // The names of the logs that exist.
  static absl::StatusOr<std::set<std::string>> ListLogs(const StoreContext& context);
  rocksdb::Status OpenDatabase(rocksdb::WALRecoveryMode mode, bool read_only);
  // DataLoss where commits that were reported are not in this view.
  absl::Status CheckWitness() const;
  absl::Status OpenFailure(const rocksdb::Status& status) const;

  std::shared_ptr<const StoreContext> context_;
  std::unique_ptr<rocksdb::DB> db_;
  std::array<rocksdb::ColumnFamilyHandle*, kColumnFamilyNames.size()> families_{};
  std::vector<rocksdb::ColumnFamilyHandle*> handles_;  // all, families_ among them
  ManifestState manifest_;
  absl::Status missing_commits_;
  std::atomic<bool> missing_accepted_{false};
};

}  // namespace fovea::storage
