// How a mutation becomes durable: checked against what is stored, then one write of all of it with
// the counters and, where it needs one, a newer format version: to the log, which is synced, or
// where it is large to table files at once.
#include <algorithm>
#include <utility>

#include "rocksdb/write_batch.h"
#include "storage/document_store_impl.h"
#include "storage/keys.h"
#include "storage/mutation_impl.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_slice.h"
#include "storage/rocksdb_status.h"
#include "storage/settings_copy.h"

namespace fovea::storage {

rocksdb::Status DocumentStoreImpl::Flush(bool wait) const {
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  for (size_t i = 0; i < kColumnFamilyNames.size(); ++i) {
    families.push_back(view_->family(static_cast<ColumnFamily>(i)));
  }
  rocksdb::FlushOptions options;
  options.wait = wait;
  return view_->db().Flush(options, families);
}

bool DocumentStoreImpl::IsLogged(const rocksdb::WriteBatch& batch) const {
  return batch.GetDataSize() < context_->options.write_buffer_bytes / 2;
}

rocksdb::Status DocumentStoreImpl::Write(rocksdb::WriteBatch* batch) const {
  uint64_t used_bytes = 0;
  view_->db().GetAggregatedIntProperty(rocksdb::DB::Properties::kCurSizeActiveMemTable,
                                       &used_bytes);
  const size_t limit = context_->options.write_buffer_bytes;
  // Not for an empty buffer: a batch above the limit has to go into one. Nor for large commits:
  // those that are begun while another goes to the disk go there together after it, as one.
  if (IsLogged(*batch) && used_bytes > limit / 8 && used_bytes + batch->GetDataSize() > limit) {
    const rocksdb::Status status = Flush(/*wait=*/false);
    if (!status.ok()) return status;
  }
  // In the log what fills the buffer by itself would be written a second time.
  rocksdb::WriteOptions write;
  write.disableWAL = !IsLogged(*batch);
  write.sync = !write.disableWAL;
  return view_->db().Write(write, batch);
}

rocksdb::Status DocumentStoreImpl::WriteAlone(rocksdb::WriteBatch* batch) const {
  const rocksdb::Status status = Write(batch);
  return status.ok() && !IsLogged(*batch) ? Flush(/*wait=*/true) : status;
}

int DocumentStoreImpl::FormatVersionFor(const StoreSettings* settings) const {
  const absl::StatusOr<int> stored = FormatVersion();
  int of_records = stored.value_or(kFormatVersion);
  if (!stored.ok()) {
    // What cannot be read may be of any version.
    const auto raise_where = [&](ColumnFamily family, RecordType type, int version,
                                 bool (*is_of_version)(std::string_view)) {
      const absl::Status walked =
          ForEach(family, type, "", "", [&](std::string_view, std::string_view value) {
            if (is_of_version(value)) of_records = std::max(of_records, version);
            return absl::OkStatus();
          });
      if (!walked.ok()) of_records = std::max(of_records, version);
    };
    raise_where(ColumnFamily::kDocuments, RecordType::kDocument, kSourcesFormatVersion,
                IsSourcedDocument);
    raise_where(ColumnFamily::kLinks, RecordType::kLink, kRepeatsFormatVersion, IsRepeatsLink);
  }
  if (of_records >= kSourcesFormatVersion) return of_records;
  if (settings != nullptr) return settings->format_version();
  return stored.value_or(kNewestFormatVersion);  // whose readers read everything
}

absl::StatusOr<Counters> DocumentStoreImpl::CheckMutation(const Mutation& mutation) const {
  const Mutation::Impl& impl = *mutation.impl_;
  RETURN_IF_ERROR(impl.status);
  Counters next = counters_;
  next.epoch += 1;
  const auto advance = [](const char* what, std::optional<uint64_t> wanted,
                          uint64_t* counter) -> absl::Status {
    if (!wanted) return absl::OkStatus();
    if (*wanted < *counter) {
      return absl::InvalidArgumentError(StrCat("next ", what, " ", *wanted, " is below ", *counter,
                                               ": numbers are never used again"));
    }
    *counter = *wanted;
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(advance("slot", impl.next_slot, &next.next_slot));
  RETURN_IF_ERROR(advance("document number", impl.next_document, &next.next_document));
  RETURN_IF_ERROR(advance("segment id", impl.next_segment, &next.next_segment));
  RETURN_IF_ERROR(advance("generation", impl.generation, &next.generation));
  if (impl.slot_end > next.next_slot) {
    return absl::InvalidArgumentError(StrCat("a window ends at slot ", impl.slot_end,
                                             ", the next free slot would be ", next.next_slot));
  }
  if (impl.last_document >= next.next_document) {
    return absl::InvalidArgumentError(StrCat("document number ", impl.last_document,
                                             ", the next free one would be ", next.next_document));
  }
  if (impl.last_segment && *impl.last_segment >= next.next_segment) {
    return absl::InvalidArgumentError(
        StrCat("segment ", *impl.last_segment, ", the next free id would be ", next.next_segment));
  }
  const auto current = CachedSettings();
  const StoreSettings* settings = impl.settings ? &*impl.settings : current.get();
  if (current != nullptr && settings->entry_type != current->entry_type) {
    return absl::InvalidArgumentError(
        StrCat("settings with entries in ", EntryTypeName(settings->entry_type),
               ", the store has them in ", EntryTypeName(current->entry_type)));
  }
  if (settings != nullptr) {
    for (const auto& [n_kv_heads, head_dim, entry_type] : impl.block_kinds) {
      if (n_kv_heads != settings->n_kv_heads || head_dim != settings->head_dim) {
        return absl::InvalidArgumentError(StrCat(
            "block of shape [", n_kv_heads, ", n_tokens, ", head_dim, "], the settings have [",
            settings->n_kv_heads, ", n_tokens, ", settings->head_dim, "]"));
      }
      if (entry_type != settings->entry_type) {
        return absl::InvalidArgumentError(StrCat("block in ", EntryTypeName(entry_type),
                                                 ", the settings have ",
                                                 EntryTypeName(settings->entry_type)));
      }
    }
    if (impl.last_memory_layer && *impl.last_memory_layer >= settings->n_mem_layers) {
      return absl::InvalidArgumentError(StrCat("block of memory layer ", *impl.last_memory_layer,
                                               ", the settings have ", settings->n_mem_layers));
    }
  }
  return next;
}

rocksdb::Status DocumentStoreImpl::DeleteOneByOne(
    const std::vector<Mutation::Impl::Operation>& operations,
    const Mutation::Impl::Operation& range, rocksdb::WriteBatch* batch) const {
  rocksdb::ColumnFamilyHandle* family = view_->family(range.family);
  rocksdb::ReadOptions read = WalkOptions();
  const rocksdb::Slice upper_bound(range.value);
  read.iterate_upper_bound = &upper_bound;
  const std::unique_ptr<rocksdb::Iterator> it(view_->db().NewIterator(read, family));
  rocksdb::Status status;
  for (it->Seek(range.key); status.ok() && it->Valid(); it->Next()) {
    status = batch->Delete(family, it->key());
  }
  if (status.ok()) status = it->status();
  if (status.IsCorruption() || IsMissingFile(status)) {
    // Keys that cannot be read follow from the document's record. Without that, too, there is
    // nothing left that could be shown.
    DocumentRecord document;
    const std::string key = range.key;
    const absl::Status found =
        Get(ColumnFamily::kDocuments, RecordType::kDocument, key,
            [&](std::string_view record_key, std::string_view value) -> absl::Status {
              ASSIGN_OR_RETURN(document, DecodeDocument(record_key, value));
              return absl::OkStatus();
            });
    status = rocksdb::Status::OK();
    for (uint64_t i = 0; found.ok() && status.ok() && i < document.n_windows; ++i) {
      status = batch->Delete(family, LinkKey(document.number, i));
    }
  }
  // What this very commit put there before.
  for (const Mutation::Impl::Operation* put = operations.data(); status.ok() && put != &range;
       ++put) {
    if (put->family == range.family && put->action == Mutation::Impl::Action::kPut &&
        put->key >= range.key && put->key < range.value) {
      status = batch->Delete(family, put->key);
    }
  }
  return status;
}

absl::Status DocumentStoreImpl::Commit(Mutation mutation) {
  ASSIGN_OR_RETURN(const uint64_t epoch, BeginCommit(std::move(mutation)));
  return FinishCommit(epoch);
}

void DocumentStoreImpl::MarkDurable(uint64_t epoch) {
  durable_epoch_ = epoch;
  witness_->Write(epoch);
  view_->AcceptMissingCommits();
}

absl::Status DocumentStoreImpl::FinishCommit(uint64_t epoch) {
  const std::lock_guard<std::mutex> lock(durable_mutex_);
  if (durable_epoch_ >= epoch) return absl::OkStatus();
  RETURN_IF_ERROR(flush_failure_);
  const uint64_t flushed = written_epoch_;  // and perhaps later ones
  const rocksdb::Status status = Flush(/*wait=*/true);
  if (!status.ok()) {
    flush_failure_ = FromRocksDb(status, StrCat(folder(), ": committing"));
    has_flush_failed_ = true;
    return flush_failure_;
  }
  MarkDurable(flushed);
  return absl::OkStatus();
}

absl::StatusOr<uint64_t> DocumentStoreImpl::BeginCommit(Mutation mutation) {
  FOVEA_CHECK(mutation.impl_ != nullptr);  // not moved from
  if (context_->is_reader()) {
    return absl::FailedPreconditionError(
        StrCat(folder(), " is open for reading: open it for writing to commit"));
  }
  const std::lock_guard<std::mutex> lock(commit_mutex_);
  // RocksDB could be asked to resume after an I/O error. But where nothing is in memory it keeps
  // the log that the failed write may have torn, and the next write would be lost with it (or ends
  // the process, where RocksDB is built with assertions). Opening anew always begins a new log.
  if (has_flush_failed_) {
    const std::lock_guard<std::mutex> durable_lock(durable_mutex_);
    write_failure_ = flush_failure_;
  }
  if (!write_failure_.ok()) {
    return Annotate(write_failure_, "open the store again to write: an earlier commit failed");
  }
  ASSIGN_OR_RETURN(const Counters next, CheckMutation(mutation));

  Mutation::Impl& impl = *mutation.impl_;
  // Fresh pages for a large batch cost more than to fill it: it is kept for another of its size.
  const size_t size_bytes = impl.size_bytes + 64 * impl.operations.size() + 256;
  if (batch_bytes_ < size_bytes || batch_bytes_ / 8 > size_bytes) {
    batch_ = rocksdb::WriteBatch(size_bytes);
    batch_bytes_ = size_bytes;
  }
  batch_.Clear();
  rocksdb::Status status;
  for (Mutation::Impl::Operation& operation : impl.operations) {
    rocksdb::ColumnFamilyHandle* family = view_->family(operation.family);
    switch (operation.action) {
      case Mutation::Impl::Action::kPut:
        status = batch_.Put(family, operation.key, operation.value);
        break;
      case Mutation::Impl::Action::kDelete:
        status = batch_.Delete(family, operation.key);
        break;
      case Mutation::Impl::Action::kDeleteRange:
        status = operation.family == ColumnFamily::kLinks
                     ? DeleteOneByOne(impl.operations, operation, &batch_)
                     : batch_.DeleteRange(family, operation.key, operation.value);
        break;
    }
    if (!status.ok()) return FromRocksDb(status, StrCat(folder(), ": committing"));
    // The batch has its copy now; holding both would double the memory of a large commit.
    std::string().swap(operation.value);
  }
  rocksdb::ColumnFamilyHandle* const meta = view_->family(ColumnFamily::kMeta);
  // An empty store has the oldest version; in salvage the record may be what is damaged.
  const bool is_newer = impl.format_version != kFormatVersion ||
                        (impl.settings && impl.settings->format_version() != kFormatVersion);
  if (is_newer || context_->options.salvage) {
    const auto known = CachedSettings();
    const int version = std::max(impl.format_version,
                                 FormatVersionFor(impl.settings ? &*impl.settings : known.get()));
    status = batch_.Put(meta, ToSlice(kFormatKey), EncodeFormatVersion(version));
    if (!status.ok()) return FromRocksDb(status, StrCat(folder(), ": committing"));
  }
  status = batch_.Put(meta, ToSlice(kCountersKey), EncodeCounters(next));
  const bool is_logged = IsLogged(batch_);
  if (status.ok() && is_logged) {
    // The log would keep it without what was not logged before it.
    RETURN_IF_ERROR(FinishCommit(counters_.epoch));
  }
  if (status.ok()) status = Write(&batch_);
  if (!status.ok()) {
    write_failure_ = FromRocksDb(status, StrCat(folder(), ": committing"));
    return write_failure_;
  }

  counters_ = next;
  written_epoch_ = next.epoch;
  if (is_logged) {
    const std::lock_guard<std::mutex> durable_lock(durable_mutex_);
    MarkDurable(next.epoch);
  }
  if (impl.settings) {
    RETURN_IF_ERROR(FinishCommit(next.epoch));
    WriteSettingsCopy(*context_->file_system, folder(), *impl.settings);
    auto settings = std::make_shared<const StoreSettings>(*std::move(impl.settings));
    const std::lock_guard<std::mutex> view_lock(view_mutex_);
    settings_ = std::move(settings);
  }
  return next.epoch;
}

}  // namespace fovea::storage
