// What a store answers: reads of single records and walks over all of a kind, in the view that the
// store has now. A reader whose files the writer has removed goes on with a new view.
#include "storage/document_store.h"

#include <limits>
#include <utility>

#include "storage/document_store_impl.h"
#include "storage/keys.h"
#include "storage/mapped_blobs.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_slice.h"
#include "storage/rocksdb_status.h"
#include "storage/settings_copy.h"

namespace fovea::storage {
namespace {

// Each time the writer has removed a file under a read, the read starts anew with a new view.
constexpr int kMaxReadAttempts = 20;

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

absl::StatusOr<int> DocumentStoreImpl::FormatVersion() const {
  int version = 0;
  RETURN_IF_ERROR(Get(ColumnFamily::kMeta, RecordType::kFormat, std::string(kFormatKey),
                      [&](std::string_view, std::string_view value) -> absl::Status {
                        ASSIGN_OR_RETURN(version, DecodeFormatVersion(value));
                        return absl::OkStatus();
                      }));
  return version;
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
    RETURN_IF_ERROR(HandleFailedRead(view, status, attempt, doing));
  }
}

absl::Status DocumentStoreImpl::HandleFailedRead(const std::shared_ptr<StoreView>& view,
                                                 const rocksdb::Status& status, int attempt,
                                                 const std::string& doing) const {
  if (!IsMissingFile(status)) return FromRocksDb(status, doing);
  if (!context_->is_reader() || attempt == kMaxReadAttempts) {
    return absl::DataLossError(StrCat(doing, ": a file is missing: ", status.ToString()));
  }
  return Annotate(ReplaceView(view), doing);
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
    RETURN_IF_ERROR(HandleFailedRead(view, status, attempt, doing));
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

absl::StatusOr<WindowRecord> DocumentStoreImpl::FindWindowBefore(Slot end) const {
  if (end == 0) return absl::NotFoundError(StrCat(folder(), ": no window begins before slot 0"));
  for (int attempt = 1;; ++attempt) {
    const std::shared_ptr<StoreView> view = this->view();
    std::unique_ptr<rocksdb::Iterator> it(
        view->db().NewIterator(WalkOptions(), view->family(ColumnFamily::kWindows)));
    it->SeekForPrev(NumberKey(end - 1));
    if (it->Valid()) return DecodeWindow(ToView(it->key()), ToView(it->value()));
    if (it->status().ok()) {
      return absl::NotFoundError(StrCat(folder(), ": no window begins before slot ", end));
    }
    RETURN_IF_ERROR(HandleFailedRead(
        view, it->status(), attempt,
        StrCat(folder(), ": reading the last window that begins before slot ", end)));
  }
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

absl::Status DocumentStoreImpl::MapBlock(Slot slot_begin, int memory_layer, BlockPart part,
                                         absl::FunctionRef<absl::Status(const BlockView&)> use,
                                         const WindowHold* hold) const {
  FOVEA_CHECK(part != BlockPart::kBoth);
  const MappedReads reads;
  return GetBlockHalf(
      slot_begin, memory_layer, part,
      [&](std::string_view key, std::string_view value,
          const StoreSettings* settings) -> absl::Status {
        // A blob's record ends with its value. What RocksDB checked is checked once more by the
        // record's own checksum, there where it will be used.
        const MappedReads::Read& read = reads.last();
        const bool is_mapped = read.file != nullptr && read.bytes.size() >= value.size();
        if (is_mapped) value = read.bytes.substr(read.bytes.size() - value.size());
        ASSIGN_OR_RETURN(BlockView view, ViewBlockHalf(key, value, settings));
        if (is_mapped) view.file = read.file;
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

}  // namespace fovea::storage
