// How a store opens: as its only writer or as a reader, made where there is none, and refused with
// the reason where it is of another format or has lost what RocksDB needs.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "base/file.h"
#include "rocksdb/write_batch.h"
#include "storage/document_store_impl.h"
#include "storage/keys.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_slice.h"
#include "storage/rocksdb_status.h"

namespace fovea::storage {
namespace {

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
  // Everything is in the log or in table files already; table files spare the next process the
  // log's replay and readers the memory for it.
  Flush(/*wait=*/true).PermitUncheckedError();
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

}  // namespace fovea::storage
