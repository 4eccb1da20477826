#include "storage/document_store.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <limits>
#include <utility>

#include "base/file.h"
#include "rocksdb/metadata.h"
#include "rocksdb/write_batch.h"
#include "storage/document_store_impl.h"
#include "storage/keys.h"
#include "storage/mutation_impl.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_status.h"
#include "storage/settings_copy.h"

namespace fovea::storage {
namespace {

rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

// Each time the writer has removed a file under a read, the read starts anew with a new view.
constexpr int kMaxReadAttempts = 20;

absl::Status CheckWritable(const std::filesystem::path& folder) {
  if (faccessat(AT_FDCWD, folder.c_str(), W_OK | X_OK, AT_EACCESS) == 0) return absl::OkStatus();
  // A folder with the immutable attribute answers EPERM.
  return ErrnoToStatus(errno, "write to the store", folder);
}

absl::Status UnfinishedStore(const StoreContext& context) {
  const std::filesystem::path& folder = context.folder;
  if (StoreView::HadCommits(context)) return StoreView::LostManifest(context);
  return absl::NotFoundError(
      StrCat("no store in ", folder, ": its creation was interrupted; ingest into it again"));
}

absl::Status CheckFormatVersion(const std::filesystem::path& folder, std::string_view value) {
  ASSIGN_OR_RETURN(const int format_version, DecodeFormatVersion(value));
  if (format_version >= kFormatVersion && format_version <= kNewestFormatVersion) {
    return absl::OkStatus();
  }
  return absl::FailedPreconditionError(
      StrCat(folder, " has storage format version ", format_version,
             ", this program reads versions ", kFormatVersion, " to ", kNewestFormatVersion,
             ": use the release that wrote it, or ingest into a new folder"));
}

// The state at one moment, which compactions keep.
class SnapshotHold final : public WindowHold {
 public:
  explicit SnapshotHold(rocksdb::DB* db) : db_(db), snapshot_(db->GetSnapshot()) {}
  ~SnapshotHold() override { db_->ReleaseSnapshot(snapshot_); }
  SnapshotHold(const SnapshotHold&) = delete;
  SnapshotHold& operator=(const SnapshotHold&) = delete;

  const rocksdb::Snapshot* snapshot() const { return snapshot_; }

 private:
  rocksdb::DB* db_;
  const rocksdb::Snapshot* snapshot_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<DocumentStore>> DocumentStore::Open(
    const std::filesystem::path& folder, const StoreOptions& options) {
  return DocumentStoreImpl::Open(folder, options);
}

bool DocumentStore::Exists(const std::filesystem::path& folder) {
  std::error_code error;
  return std::filesystem::exists(folder / "CURRENT", error);
}

absl::StatusOr<std::unique_ptr<DocumentStoreImpl>> DocumentStoreImpl::Open(
    const std::filesystem::path& folder, const StoreOptions& options) {
  if (options.mode == OpenMode::kCreate) {
    RETURN_IF_ERROR(CreateDirectories(folder));
  } else if (!DocumentStore::Exists(folder)) {
    return absl::NotFoundError(StrCat("no store in ", folder));
  }
  auto context = std::make_shared<const StoreContext>(folder, options);
  std::unique_ptr<DocumentStoreImpl> store(new DocumentStoreImpl(context));
  if (context->is_reader()) {
    absl::StatusOr<std::shared_ptr<StoreView>> view = StoreView::OpenReader(context);
    if (!view.ok()) return ExplainForeignStore(*context, view.status());
    store->view_ = *std::move(view);
    RETURN_IF_ERROR(store->CheckFormatUnlessSalvaging());
    // Damaged counters are for Verify to tell; a reader can do without.
    const absl::StatusOr<Counters> counters = store->view_->ReadCounters();
    if (counters.ok()) store->reported_epoch_ = counters->epoch;
  } else {
    RETURN_IF_ERROR(CheckWritable(folder));
    // Without CURRENT RocksDB begins a new database, and removes the files of the old one.
    if (!DocumentStore::Exists(folder) && StoreView::HadCommits(*context)) {
      return StoreView::LostManifest(*context);
    }
    absl::StatusOr<std::shared_ptr<StoreView>> view = StoreView::OpenWriter(context);
    if (!view.ok()) return ExplainForeignStore(*context, view.status());
    store->view_ = *std::move(view);
    const absl::Status format = store->CheckFormatUnlessSalvaging();
    if (absl::IsNotFound(format)) {
      RETURN_IF_ERROR(store->CreateEmpty());
    } else {
      RETURN_IF_ERROR(format);
    }
    absl::StatusOr<Counters> counters = store->view_->ReadCounters();
    if (options.salvage && absl::IsDataLoss(counters.status())) {
      counters = store->RecoverCounters();
    }
    ASSIGN_OR_RETURN(store->counters_, std::move(counters));
    store->witness_.emplace(*context->file_system, folder);
    // A commit that was not reported may have been stored all the same.
    if (!options.salvage) store->witness_->Write(store->counters_.epoch);
  }
  RETURN_IF_ERROR(store->LoadSettings());
  return store;
}

DocumentStoreImpl::~DocumentStoreImpl() {
  if (context_->is_reader() || view_ == nullptr || !write_failure_.ok()) return;
  // Everything is in the log already; table files spare the next process its replay and readers
  // the memory for it.
  Flush(/*wait=*/true).PermitUncheckedError();
}

rocksdb::Status DocumentStoreImpl::Flush(bool wait) const {
  std::vector<rocksdb::ColumnFamilyHandle*> families;
  for (size_t i = 0; i < kColumnFamilyNames.size(); ++i) {
    families.push_back(view_->family(static_cast<ColumnFamily>(i)));
  }
  rocksdb::FlushOptions options;
  options.wait = wait;
  return view_->db().Flush(options, families);
}

rocksdb::Status DocumentStoreImpl::Write(rocksdb::WriteBatch* batch) const {
  uint64_t used_bytes = 0;
  view_->db().GetAggregatedIntProperty(rocksdb::DB::Properties::kCurSizeActiveMemTable,
                                       &used_bytes);
  const size_t limit = context_->options.write_buffer_bytes;
  // Not for an empty buffer: a batch above the limit has to go into one.
  if (used_bytes > limit / 8 && used_bytes + batch->GetDataSize() > limit) {
    const rocksdb::Status status = Flush(/*wait=*/false);
    if (!status.ok()) return status;
  }
  rocksdb::WriteOptions write;
  write.sync = true;
  return view_->db().Write(write, batch);
}

std::shared_ptr<StoreView> DocumentStoreImpl::view() const {
  const std::lock_guard<std::mutex> lock(view_mutex_);
  return view_;
}

void DocumentStoreImpl::SetView(std::shared_ptr<StoreView> view) const {
  const std::lock_guard<std::mutex> lock(view_mutex_);
  view_.swap(view);
}

std::shared_ptr<const StoreSettings> DocumentStoreImpl::CachedSettings() const {
  const std::lock_guard<std::mutex> lock(view_mutex_);
  return settings_;
}

absl::Status DocumentStoreImpl::LoadSettings() const {
  absl::StatusOr<std::optional<StoreSettings>> settings = Settings();
  std::shared_ptr<const StoreSettings> loaded;
  if (settings.ok()) {
    if (*settings) loaded = std::make_shared<const StoreSettings>(**std::move(settings));
  } else if (!absl::IsDataLoss(settings.status())) {
    return settings.status();
  }
  const std::lock_guard<std::mutex> lock(view_mutex_);
  settings_ = std::move(loaded);
  return absl::OkStatus();
}

absl::Status DocumentStoreImpl::ReplaceView(const std::shared_ptr<StoreView>& stale) const {
  const std::lock_guard<std::mutex> lock(replace_mutex_);
  if (view() != stale) return absl::OkStatus();
  ASSIGN_OR_RETURN(std::shared_ptr<StoreView> fresh, StoreView::OpenReader(context_));
  SetView(std::move(fresh));
  return LoadSettings();
}

absl::Status DocumentStoreImpl::CheckFormat() const {
  absl::Status version_status;
  const absl::Status status = Get(ColumnFamily::kMeta, RecordType::kFormat, std::string(kFormatKey),
                                  [&](std::string_view, std::string_view value) {
                                    version_status = CheckFormatVersion(folder(), value);
                                    return absl::OkStatus();
                                  });
  if (absl::IsNotFound(status)) return UnfinishedStore(*context_);
  RETURN_IF_ERROR(status);
  return version_status;
}

absl::Status DocumentStoreImpl::CheckFormatUnlessSalvaging() const {
  const absl::Status format = CheckFormat();
  // Records of another format have types that this program does not know: they are read as damaged,
  // not as something else.
  if (context_->options.salvage && absl::IsDataLoss(format)) return absl::OkStatus();
  return format;
}

absl::Status DocumentStoreImpl::ExplainForeignStore(const StoreContext& context,
                                                    const absl::Status& failure) {
  if (!absl::IsInvalidArgument(failure)) return failure;
  const absl::StatusOr<std::string> format = StoreView::PeekFormatRecord(context);
  if (format.ok()) {
    RETURN_IF_ERROR(CheckFormatVersion(context.folder, *format));
  } else if (absl::IsNotFound(format.status()) || absl::IsInvalidArgument(format.status())) {
    return UnfinishedStore(context);
  }
  return failure;
}

absl::Status DocumentStoreImpl::CreateEmpty() {
  // Only what never had a commit may be taken for new.
  for (const ColumnFamily family :
       {ColumnFamily::kMeta, ColumnFamily::kDocuments, ColumnFamily::kWindows}) {
    std::unique_ptr<rocksdb::Iterator> it(
        view_->db().NewIterator(WalkOptions(), view_->family(family)));
    it->SeekToFirst();
    if (it->Valid() || !it->status().ok()) {
      return absl::DataLossError(StrCat(folder(), ": the format version is missing from ",
                                        kColumnFamilyNames[static_cast<size_t>(family)],
                                        ", which is not empty"));
    }
  }
  rocksdb::WriteBatch batch;
  rocksdb::Status status = batch.Put(view_->family(ColumnFamily::kMeta), ToSlice(kFormatKey),
                                     EncodeFormatVersion(kFormatVersion));
  if (status.ok()) {
    status = batch.Put(view_->family(ColumnFamily::kMeta), ToSlice(kCountersKey),
                       EncodeCounters(Counters{}));
  }
  if (status.ok()) status = Write(&batch);
  return FromRocksDb(status, StrCat("creating the store ", folder()));
}

absl::StatusOr<int> DocumentStoreImpl::FormatVersion() const {
  int version = 0;
  RETURN_IF_ERROR(Get(ColumnFamily::kMeta, RecordType::kFormat, std::string(kFormatKey),
                      [&](std::string_view, std::string_view value) -> absl::Status {
                        ASSIGN_OR_RETURN(version, DecodeFormatVersion(value));
                        return absl::OkStatus();
                      }));
  return version;
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
  FOVEA_CHECK(mutation.impl_ != nullptr);  // not moved from
  if (context_->is_reader()) {
    return absl::FailedPreconditionError(
        StrCat(folder(), " is open for reading: open it for writing to commit"));
  }
  const std::lock_guard<std::mutex> lock(commit_mutex_);
  // RocksDB could be asked to resume after an I/O error. But where nothing is in memory it keeps
  // the log that the failed write may have torn, and the next write would be lost with it (or ends
  // the process, where RocksDB is built with assertions). Opening anew always begins a new log.
  if (!write_failure_.ok()) {
    return Annotate(write_failure_, "open the store again to write: an earlier commit failed");
  }
  ASSIGN_OR_RETURN(const Counters next, CheckMutation(mutation));

  Mutation::Impl& impl = *mutation.impl_;
  rocksdb::WriteBatch batch(impl.size_bytes + 64 * impl.operations.size() + 256);
  rocksdb::Status status;
  for (Mutation::Impl::Operation& operation : impl.operations) {
    rocksdb::ColumnFamilyHandle* family = view_->family(operation.family);
    switch (operation.action) {
      case Mutation::Impl::Action::kPut:
        status = batch.Put(family, operation.key, operation.value);
        break;
      case Mutation::Impl::Action::kDelete:
        status = batch.Delete(family, operation.key);
        break;
      case Mutation::Impl::Action::kDeleteRange:
        status = operation.family == ColumnFamily::kLinks
                     ? DeleteOneByOne(impl.operations, operation, &batch)
                     : batch.DeleteRange(family, operation.key, operation.value);
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
    status = batch.Put(meta, ToSlice(kFormatKey), EncodeFormatVersion(version));
    if (!status.ok()) return FromRocksDb(status, StrCat(folder(), ": committing"));
  }
  status = batch.Put(meta, ToSlice(kCountersKey), EncodeCounters(next));
  if (status.ok()) status = Write(&batch);
  if (!status.ok()) {
    write_failure_ = FromRocksDb(status, StrCat(folder(), ": committing"));
    return write_failure_;
  }

  counters_ = next;
  witness_->Write(next.epoch);
  view_->AcceptMissingCommits();
  if (impl.settings) {
    WriteSettingsCopy(*context_->file_system, folder(), *impl.settings);
    auto settings = std::make_shared<const StoreSettings>(*std::move(impl.settings));
    const std::lock_guard<std::mutex> view_lock(view_mutex_);
    settings_ = std::move(settings);
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> DocumentStoreImpl::Refresh() {
  if (!context_->is_reader()) return false;
  const std::shared_ptr<StoreView> old = view();
  if (!old->IsCurrent()) RETURN_IF_ERROR(ReplaceView(old));
  ASSIGN_OR_RETURN(const Counters counters, view()->ReadCounters());
  // Compared with the last refresh and not with `old`: a read may have moved the view on by itself.
  return reported_epoch_.exchange(counters.epoch) != counters.epoch;
}

std::shared_ptr<const WindowHold> DocumentStoreImpl::HoldWindows() const {
  if (context_->is_reader()) return nullptr;
  return std::make_shared<const SnapshotHold>(&view_->db());
}

absl::Status DocumentStoreImpl::Get(ColumnFamily family, RecordType type, const std::string& key,
                                    const Use& use, const WindowHold* hold) const {
  for (int attempt = 1;; ++attempt) {
    const std::shared_ptr<StoreView> view = this->view();
    rocksdb::PinnableSlice value;
    rocksdb::ReadOptions read;
    // Checksums stay on for blocks, too, though their records have their own: with them off RocksDB
    // also trusts the table files that say where blocks lie.
    rocksdb::Status status = view->db().Get(read, view->family(family), key, &value);
    if (status.IsNotFound() && hold != nullptr) {
      // What is stored under such a key never changes, and the key is never used again.
      read.snapshot = static_cast<const SnapshotHold*>(hold)->snapshot();
      status = view->db().Get(read, view->family(family), key, &value);
    }
    if (status.ok()) return use(key, ToView(value));
    if (status.IsNotFound()) {
      return absl::NotFoundError(StrCat(DescribeRecord(type, key), ": not in ", folder()));
    }
    const std::string doing = StrCat(folder(), ": reading the ", DescribeRecord(type, key));
    if (!IsMissingFile(status)) return FromRocksDb(status, doing);
    if (!context_->is_reader() || attempt == kMaxReadAttempts) {
      return absl::DataLossError(StrCat(doing, ": a file is missing: ", status.ToString()));
    }
    RETURN_IF_ERROR(Annotate(ReplaceView(view), doing));
  }
}

absl::Status DocumentStoreImpl::ForEach(ColumnFamily family, RecordType type,
                                        const std::string& begin, const std::string& end,
                                        const Use& use) const {
  std::string position = begin;
  for (int attempt = 1;; ++attempt) {
    const std::shared_ptr<StoreView> view = this->view();
    rocksdb::ReadOptions read = WalkOptions();
    const rocksdb::Slice upper_bound(end);
    if (!end.empty()) read.iterate_upper_bound = &upper_bound;
    std::unique_ptr<rocksdb::Iterator> it(view->db().NewIterator(read, view->family(family)));
    for (it->Seek(position); it->Valid(); it->Next()) {
      RETURN_IF_ERROR(use(ToView(it->key()), ToView(it->value())));
      position.assign(it->key().data(), it->key().size());
      position.push_back('\0');  // the smallest key after this one
    }
    const rocksdb::Status status = it->status();
    if (status.ok()) return absl::OkStatus();
    const std::string doing =
        StrCat(folder(), ": reading ", kColumnFamilyNames[static_cast<size_t>(family)],
               position == begin
                   ? std::string()
                   : StrCat(" after the ", DescribeRecord(type, std::string_view(position).substr(
                                                                    0, position.size() - 1))));
    if (!IsMissingFile(status)) return FromRocksDb(status, doing);
    if (!context_->is_reader() || attempt == kMaxReadAttempts) {
      return absl::DataLossError(StrCat(doing, ": a file is missing: ", status.ToString()));
    }
    RETURN_IF_ERROR(Annotate(ReplaceView(view), doing));
  }
}

absl::StatusOr<std::optional<StoreSettings>> DocumentStoreImpl::Settings() const {
  std::optional<StoreSettings> settings;
  const absl::Status status =
      Get(ColumnFamily::kMeta, RecordType::kSettings, std::string(kSettingsKey),
          [&](std::string_view, std::string_view value) -> absl::Status {
            ASSIGN_OR_RETURN(settings, DecodeSettings(value));
            return absl::OkStatus();
          });
  if (context_->options.salvage && (absl::IsDataLoss(status) || absl::IsNotFound(status))) {
    absl::StatusOr<StoreSettings> copy = ReadSettingsCopy(*context_->file_system, folder());
    if (copy.ok()) return *std::move(copy);
  }
  if (absl::IsNotFound(status)) return std::optional<StoreSettings>();
  RETURN_IF_ERROR(status);
  return settings;
}

absl::StatusOr<Counters> DocumentStoreImpl::ReadCounters() const {
  Counters counters;
  const absl::Status status =
      Get(ColumnFamily::kMeta, RecordType::kCounters, std::string(kCountersKey),
          [&](std::string_view, std::string_view value) -> absl::Status {
            ASSIGN_OR_RETURN(counters, DecodeCounters(value));
            return absl::OkStatus();
          });
  if (context_->options.salvage && absl::IsDataLoss(status)) return RecoverCounters();
  // Every store has them from its creation on.
  if (absl::IsNotFound(status)) return StoreView::LostManifest(*context_);
  RETURN_IF_ERROR(status);
  return counters;
}

absl::Status DocumentStoreImpl::ForEachDocument(
    const std::function<absl::Status(const DocumentRecord&)>& visit) const {
  return ForEach(ColumnFamily::kDocuments, RecordType::kDocument, "", "",
                 [&](std::string_view key, std::string_view value) -> absl::Status {
                   ASSIGN_OR_RETURN(const DocumentRecord document, DecodeDocument(key, value));
                   return visit(document);
                 });
}

absl::Status DocumentStoreImpl::ForEachLink(
    const std::function<absl::Status(const WindowLink&)>& visit) const {
  return ForEach(ColumnFamily::kLinks, RecordType::kLink, "", "",
                 [&](std::string_view key, std::string_view value) -> absl::Status {
                   ASSIGN_OR_RETURN(const WindowLink link, DecodeLink(key, value));
                   return visit(link);
                 });
}

absl::StatusOr<std::vector<WindowLink>> DocumentStoreImpl::Links(DocumentNumber document) const {
  std::vector<WindowLink> links;
  const std::string end = document == std::numeric_limits<DocumentNumber>::max()
                              ? std::string()
                              : NumberKey(document + 1);
  RETURN_IF_ERROR(ForEach(ColumnFamily::kLinks, RecordType::kLink, NumberKey(document), end,
                          [&](std::string_view key, std::string_view value) -> absl::Status {
                            ASSIGN_OR_RETURN(links.emplace_back(), DecodeLink(key, value));
                            return absl::OkStatus();
                          }));
  return links;
}

absl::StatusOr<std::vector<SegmentRecord>> DocumentStoreImpl::Segments() const {
  std::vector<SegmentRecord> segments;
  RETURN_IF_ERROR(ForEach(ColumnFamily::kSegments, RecordType::kSegment, "", "",
                          [&](std::string_view key, std::string_view value) -> absl::Status {
                            ASSIGN_OR_RETURN(segments.emplace_back(), DecodeSegment(key, value));
                            return absl::OkStatus();
                          }));
  return segments;
}

absl::StatusOr<WindowRecord> DocumentStoreImpl::GetWindow(Slot slot_begin,
                                                          const WindowHold* hold) const {
  WindowRecord window;
  RETURN_IF_ERROR(Get(
      ColumnFamily::kWindows, RecordType::kWindow, NumberKey(slot_begin),
      [&](std::string_view key, std::string_view value) -> absl::Status {
        ASSIGN_OR_RETURN(window, DecodeWindow(key, value));
        return absl::OkStatus();
      },
      hold));
  return window;
}

absl::StatusOr<Block> DocumentStoreImpl::GetBlock(Slot slot_begin, int memory_layer,
                                                  BlockPart part) const {
  Block block;
  int64_t n_tokens = -1;
  for (const BlockPart half : {BlockPart::kKeys, BlockPart::kValues}) {
    if (part != BlockPart::kBoth && part != half) continue;
    RETURN_IF_ERROR(GetBlockHalf(
        slot_begin, memory_layer, half,
        [&](std::string_view key, std::string_view value, const StoreSettings* settings) {
          return DecodeBlockHalf(key, value, settings, &block);
        }));
    if (n_tokens >= 0 && block.n_tokens != n_tokens) {
      return absl::DataLossError(StrCat("block of memory layer ", memory_layer,
                                        " of the window at slot ", slot_begin, ": keys of ",
                                        n_tokens, " tokens, values of ", block.n_tokens));
    }
    n_tokens = block.n_tokens;
  }
  return block;
}

absl::Status DocumentStoreImpl::VisitBlock(Slot slot_begin, int memory_layer, BlockPart part,
                                           absl::FunctionRef<absl::Status(const BlockView&)> use,
                                           const WindowHold* hold) const {
  FOVEA_CHECK(part != BlockPart::kBoth);
  return GetBlockHalf(
      slot_begin, memory_layer, part,
      [&](std::string_view key, std::string_view value,
          const StoreSettings* settings) -> absl::Status {
        ASSIGN_OR_RETURN(const BlockView view, ViewBlockHalf(key, value, settings));
        return use(view);
      },
      hold);
}

absl::Status DocumentStoreImpl::GetBlockHalf(
    Slot slot_begin, int memory_layer, BlockPart part,
    absl::FunctionRef<absl::Status(std::string_view key, std::string_view value,
                                   const StoreSettings* settings)>
        use,
    const WindowHold* hold) const {
  if (memory_layer < 0 || memory_layer >= kMaxMemoryLayers) {
    return absl::InvalidArgumentError(
        StrCat("memory layer ", memory_layer, ", want 0 to ", kMaxMemoryLayers - 1));
  }
  const std::shared_ptr<const StoreSettings> settings = CachedSettings();
  const bool is_keys = part == BlockPart::kKeys;
  return Get(
      ColumnFamily::kBlocks, is_keys ? RecordType::kBlockKeys : RecordType::kBlockValues,
      BlockKey(slot_begin, memory_layer, is_keys ? BlockHalf::kKeys : BlockHalf::kValues),
      [&](std::string_view key, std::string_view value) { return use(key, value, settings.get()); },
      hold);
}

absl::StatusOr<QuerySample> DocumentStoreImpl::GetQuerySample(Slot slot_begin) const {
  const std::shared_ptr<const StoreSettings> settings = CachedSettings();
  QuerySample sample;
  RETURN_IF_ERROR(Get(ColumnFamily::kSamples, RecordType::kQuerySample, NumberKey(slot_begin),
                      [&](std::string_view key, std::string_view value) -> absl::Status {
                        ASSIGN_OR_RETURN(sample, DecodeQuerySample(key, value, settings.get()));
                        return absl::OkStatus();
                      }));
  return sample;
}

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
