// The space that a store takes: compaction, which frees what was deleted, and sizes by kind.
#include <algorithm>

#include "rocksdb/metadata.h"
#include "storage/document_store_impl.h"
#include "storage/rocksdb_status.h"

namespace fovea::storage {

absl::Status DocumentStoreImpl::CompactBlocks(rocksdb::DB& db,
                                              rocksdb::ColumnFamilyHandle* blocks) {
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
  // First without moving blocks: this counts what is garbage in each file and removes the files
  // that hold nothing else.
  rocksdb::Status status = db.CompactRange(options, blocks, nullptr, nullptr);
  if (!status.ok()) return FromRocksDb(status, StrCat(folder(), ": compacting blocks"));

  // Then the files that hold garbage, and because RocksDB counts by age those that are older.
  // Younger ones, most of the store as a rule, are left alone.
  rocksdb::ColumnFamilyMetaData metadata;
  db.GetColumnFamilyMetaData(blocks, &metadata);
  std::sort(metadata.blob_files.begin(), metadata.blob_files.end(),
            [](const auto& a, const auto& b) { return a.blob_file_number < b.blob_file_number; });
  size_t n_files = 0;
  for (size_t i = 0; i < metadata.blob_files.size(); ++i) {
    if (metadata.blob_files[i].garbage_blob_bytes > 0) n_files = i + 1;
  }
  if (n_files == 0) return absl::OkStatus();
  options.blob_garbage_collection_policy = rocksdb::BlobGarbageCollectionPolicy::kForce;
  // RocksDB rounds the product with the number of files down: half a file more makes it exact.
  options.blob_garbage_collection_age_cutoff = std::min(
      1.0, (static_cast<double>(n_files) + 0.5) / static_cast<double>(metadata.blob_files.size()));
  status = db.CompactRange(options, blocks, nullptr, nullptr);
  return FromRocksDb(status, StrCat(folder(), ": compacting blocks"));
}

absl::Status DocumentStoreImpl::Compact() {
  RETURN_IF_ERROR(CompactTexts());
  return CompactBlocks(view_->db(), view_->family(ColumnFamily::kBlocks));
}

absl::Status DocumentStoreImpl::CompactTexts() {
  if (context_->is_reader()) {
    return absl::FailedPreconditionError(
        StrCat(folder(), " is open for reading: open it for writing to compact"));
  }
  rocksdb::CompactRangeOptions options;
  options.bottommost_level_compaction = rocksdb::BottommostLevelCompaction::kForce;
  for (size_t i = 0; i < kColumnFamilyNames.size(); ++i) {
    const auto family = static_cast<ColumnFamily>(i);
    if (family == ColumnFamily::kBlocks) continue;
    RETURN_IF_ERROR(
        FromRocksDb(view_->db().CompactRange(options, view_->family(family), nullptr, nullptr),
                    StrCat(folder(), ": compacting ", kColumnFamilyNames[i])));
  }
  return absl::OkStatus();
}

absl::StatusOr<BytesByKind> DocumentStoreImpl::SizeByKind() const {
  const std::shared_ptr<StoreView> view = this->view();
  BytesByKind bytes;
  for (size_t i = 0; i < kColumnFamilyNames.size(); ++i) {
    const auto family = static_cast<ColumnFamily>(i);
    const bool is_blocks = family == ColumnFamily::kBlocks || family == ColumnFamily::kSamples;
    uint64_t& sum = is_blocks ? bytes.blocks : bytes.text;
    // What is not in table files yet lies in the log, where the families are mixed: the buffers in
    // memory tell how much of it is whose.
    for (const std::string* property :
         {&rocksdb::DB::Properties::kLiveSstFilesSize, &rocksdb::DB::Properties::kLiveBlobFileSize,
          &rocksdb::DB::Properties::kCurSizeAllMemTables}) {
      uint64_t value = 0;
      if (!view->db().GetIntProperty(view->family(family), *property, &value)) {
        return absl::InternalError(StrCat(folder(), ": RocksDB does not tell ", *property));
      }
      sum += value;
    }
  }
  return bytes;
}

}  // namespace fovea::storage
