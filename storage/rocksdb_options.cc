#include "storage/rocksdb_options.h"

#include <sys/resource.h>

#include <algorithm>
#include <limits>
#include <memory>

#include "rocksdb/convenience.h"
#include "rocksdb/env.h"
#include "rocksdb/listener.h"
#include "rocksdb/table.h"
#include "storage/column_families.h"

namespace fovea::storage {
namespace {

// Values below this stay in the table files: a file of their own would cost a read more than it
// saves. Blocks of real windows are hundreds of kilobytes.
constexpr uint64_t kMinBlobBytes = 4096;

constexpr size_t kNoBufferLimit = size_t{1} << 32;

rocksdb::CompressionType TextCompression() {
  const std::vector<rocksdb::CompressionType> supported = rocksdb::GetSupportedCompressions();
  for (const auto type : {rocksdb::kZSTD, rocksdb::kLZ4Compression, rocksdb::kSnappyCompression}) {
    if (std::find(supported.begin(), supported.end(), type) != supported.end()) return type;
  }
  return rocksdb::kNoCompression;
}

// Half of the files that this process may open; the other half is the program's.
int MaxOpenFiles() {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return 4096;
  return static_cast<int>(std::clamp<uint64_t>(limit.rlim_cur / 2, 32, 4096));
}

// No log of events: a reader's folder may be read-only, and RocksDB builds with assertions
// (Debian's) end the process when a full disk refuses a line of it. What went wrong is in the
// statuses.
class SilentLogger : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char* /*format*/, va_list /*arguments*/) override {}
};

// A compaction that meets a damaged block leaves its files as they were. RocksDB would also refuse
// every write from then on, those of a repair and of other documents included; the damage is told
// by the reads that it concerns and by Verify.
class CompactionDamageListener : public rocksdb::EventListener {
 public:
  void OnBackgroundError(rocksdb::BackgroundErrorReason reason, rocksdb::Status* error) override {
    if (reason == rocksdb::BackgroundErrorReason::kCompaction && error->IsCorruption()) {
      *error = rocksdb::Status::OK();
    }
  }
};

}  // namespace

rocksdb::DBOptions DatabaseOptions(const StoreOptions& options, rocksdb::Env* env) {
  rocksdb::DBOptions db;
  db.env = env;
  db.create_if_missing = options.mode == OpenMode::kCreate;
  db.create_missing_column_families = options.mode == OpenMode::kCreate;
  // Salvage opens a store of which some table files do not open; their records are DataLoss.
  db.paranoid_checks = !options.salvage;
  // The tail of the log may be torn: the process ended in the middle of a commit that it had not
  // reported. Damage before the tail is refused, not cut off together with all that follows
  // (kPointInTimeRecovery, RocksDB's default, does that). See StoreView::Open for tails that are
  // damaged in another way than by missing bytes.
  db.wal_recovery_mode = options.salvage ? rocksdb::WALRecoveryMode::kPointInTimeRecovery
                                         : rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  // All column families reach table files together: what the manifest says is a state that
  // existed, so that a manifest which lost its last entry is behind and not contradictory.
  db.atomic_flush = true;
  db.max_open_files = MaxOpenFiles();
  db.listeners.push_back(std::make_shared<CompactionDamageListener>());
  // Threads for two cores: one flush, one compaction.
  db.max_background_jobs = 2;
  // Sixteen by default, begun for each opening; there are few table files and they are small.
  db.max_file_opening_threads = 1;
  // What is written goes to the disk at once, so that the sync at the end of a large commit finds
  // little left.
  db.bytes_per_sync = 1 << 20;
  db.wal_bytes_per_sync = 1 << 20;
  db.max_manifest_file_size = 4 << 20;
  db.info_log = std::make_shared<SilentLogger>();
  // No periodic work: a store that nobody uses writes nothing.
  db.stats_dump_period_sec = 0;
  db.stats_persist_period_sec = 0;
  db.skip_stats_update_on_db_open = true;
  // Preallocated space would be counted neither by us nor by people who look at a full disk.
  db.allow_fallocate = false;
  return db;
}

rocksdb::ReadOptions WalkOptions() {
  rocksdb::ReadOptions options;
  options.ignore_range_deletions = true;
  return options;
}

std::vector<rocksdb::ColumnFamilyDescriptor> FamilyDescriptors(
    const std::shared_ptr<rocksdb::Cache>& block_cache) {
  rocksdb::BlockBasedTableOptions table;
  table.block_cache = block_cache;
  table.block_size = 16 << 10;  // zstd finds more in 16 KiB of text than in 4
  table.checksum = rocksdb::kXXH3;
  table.format_version = 5;

  rocksdb::ColumnFamilyOptions text;
  text.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));
  text.compression = TextCompression();
  // The store flushes by itself, when StoreOptions::write_buffer_bytes are full: where RocksDB does
  // it in the middle of a write and cannot make a new log (full disk), it loses count of references
  // (ScheduleFlushes in 7.8) and ends the process when the database is closed.
  text.write_buffer_size = kNoBufferLimit;
  text.max_write_buffer_number = 2;
  text.arena_block_size = 64 << 10;  // seven families would hold a megabyte each by default
  // Where damage keeps files from being compacted, more and more of them slow reads down, but they
  // do not stop writes.
  text.level0_slowdown_writes_trigger = std::numeric_limits<int>::max();
  text.level0_stop_writes_trigger = std::numeric_limits<int>::max();
  text.soft_pending_compaction_bytes_limit = 0;
  text.hard_pending_compaction_bytes_limit = 0;
  text.ttl = 0;
  text.periodic_compaction_seconds = 0;

  rocksdb::ColumnFamilyOptions raw = text;  // keys and values do not compress
  raw.compression = rocksdb::kNoCompression;

  rocksdb::ColumnFamilyOptions blocks = raw;
  blocks.arena_block_size = 1 << 20;
  blocks.enable_blob_files = true;
  blocks.min_blob_size = kMinBlobBytes;
  blocks.blob_compression_type = rocksdb::kNoCompression;
  blocks.blob_file_size = uint64_t{256} << 20;
  // Blocks are moved by Compact alone: a compaction in the background that met a damaged block
  // would stop all writing, repairs included.
  blocks.enable_blob_garbage_collection = false;

  std::vector<rocksdb::ColumnFamilyDescriptor> descriptors;
  for (size_t i = 0; i < kColumnFamilyNames.size(); ++i) {
    const auto family = static_cast<ColumnFamily>(i);
    const rocksdb::ColumnFamilyOptions& chosen = family == ColumnFamily::kBlocks    ? blocks
                                                 : family == ColumnFamily::kSamples ? raw
                                                                                    : text;
    descriptors.emplace_back(kColumnFamilyNames[i], chosen);
  }
  descriptors.emplace_back(rocksdb::kDefaultColumnFamilyName, text);
  return descriptors;
}

}  // namespace fovea::storage
