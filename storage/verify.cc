// DocumentStore::Verify: reads every record, checks that the records fit each other, and goes on
// after damage. Also DocumentStore::CopyReadable, which walks in the same way.
#include <algorithm>
#include <functional>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <utility>
#include <vector>

#include "rocksdb/metadata.h"
#include "rocksdb/sst_file_reader.h"
#include "storage/document_store_impl.h"
#include "storage/keys.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_slice.h"
#include "storage/rocksdb_status.h"
#include "storage/settings_copy.h"

namespace fovea::storage {
namespace {

// The number that `key` begins with; a key of a wrong form, which is damage that is reported where
// it is decoded, counts as the number that its bytes begin.
uint64_t LeadingNumber(std::string_view key) {
  std::string padded(key.substr(0, 8));
  padded.resize(8, '\0');
  return *ParseNumberKey(padded);
}

std::string Text(const absl::Status& status) { return std::string(ToStd(status.message())); }

}  // namespace

// One run. What it remembers is a few dozen bytes for each window and document.
class Verifier {
 public:
  using Report = std::function<absl::Status(const Damage&)>;
  // A record as it is stored, damaged or not.
  using OnRecord = std::function<absl::Status(ColumnFamily family, std::string_view key,
                                              std::string_view value)>;

  // `on_record` gets the records of the families that are walked; it may be empty.
  Verifier(const DocumentStoreImpl& store, const Report& report, const OnRecord& on_record = {})
      : store_(store), report_(report), on_record_(on_record) {}

  absl::StatusOr<DocumentStore::VerifyCounts> Run() {
    RETURN_IF_ERROR(CheckCommits());
    RETURN_IF_ERROR(CheckMeta());
    RETURN_IF_ERROR(CheckDocuments());
    RETURN_IF_ERROR(CheckLinks());
    RETURN_IF_ERROR(CheckUnlinkedWindows());
    RETURN_IF_ERROR(CheckWindows());
    RETURN_IF_ERROR(CheckSamples());
    RETURN_IF_ERROR(CheckSegments());
    RETURN_IF_ERROR(CheckTableFiles());
    return counts_;
  }

  // Only the walks; blocks and meta are read by their keys.
  absl::Status WalkRecords() {
    RETURN_IF_ERROR(CheckMeta());
    RETURN_IF_ERROR(CheckDocuments());
    RETURN_IF_ERROR(CheckLinks());
    RETURN_IF_ERROR(CheckUnlinkedWindows());
    RETURN_IF_ERROR(CheckSamples());
    return CheckSegments();
  }

 private:
  struct ExpectedWindow {
    DocumentNumber document = 0;  // 0: no link names it
    uint64_t ordinal = 0;
    uint32_t n_tokens = 0;
    uint32_t n_bytes = 0;
  };
  // What is known of a document; a record that cannot be read leaves the sums unknown.
  struct KnownDocument {
    bool complete = false;
    uint64_t n_windows = 0;
    uint64_t n_tokens = 0;
    uint64_t size_bytes = 0;
  };
  // The next key worth a try after reading failed at or after `key`; empty: none.
  using NextKey = std::function<std::optional<std::string>(const std::string& key)>;

  // The smallest key of a known window after `key`.
  std::optional<std::string> NextWindowKey(const std::string& key) const {
    const auto following =
        key.empty() ? windows_.begin() : windows_.upper_bound(LeadingNumber(key));
    if (following == windows_.end()) return std::nullopt;
    return NumberKey(following->first);
  }

  // Walks a column family. Where RocksDB cannot read on, reports a gap of kind `kind` and goes on
  // at the next key that may exist.
  absl::Status Walk(ColumnFamily family, RecordType type, const char* kind, const NextKey& next,
                    const DocumentStoreImpl::Use& use);

  absl::Status CheckCommits();
  absl::Status CheckMeta();
  absl::Status CheckDocuments();
  absl::Status CheckLinks();
  absl::Status CheckDocumentLinks(DocumentNumber number, const std::vector<WindowLink>& links);
  absl::Status CheckUnlinkedWindows();
  absl::Status CheckWindows();
  absl::Status CheckSamples();
  absl::Status CheckWindow(Slot slot_begin, const ExpectedWindow& expected);
  absl::Status CheckSegments();
  absl::Status CheckTableFiles();

  // Whether a window whose record was found missing or damaged is gone altogether: deleted since
  // the walk began, by another thread or by the writer that a reader has caught up with.
  bool WasDeleted(const ExpectedWindow& expected, Slot slot_begin) const;

  const DocumentStoreImpl& store_;
  const Report& report_;
  const OnRecord& on_record_;
  DocumentStore::VerifyCounts counts_;
  std::shared_ptr<const StoreSettings> settings_;
  Counters counters_;
  bool counters_known_ = false;
  std::map<DocumentNumber, KnownDocument> documents_;
  std::map<Slot, ExpectedWindow> windows_;
};

absl::Status Verifier::Walk(ColumnFamily family, RecordType type, const char* kind,
                            const NextKey& next, const DocumentStoreImpl::Use& use) {
  std::string position;
  bool in_gap = false;
  for (;;) {
    const std::shared_ptr<StoreView> view = store_.view();
    std::unique_ptr<rocksdb::Iterator> it(
        view->db().NewIterator(WalkOptions(), view->family(family)));
    for (it->Seek(position); it->Valid(); it->Next()) {
      in_gap = false;
      if (on_record_) RETURN_IF_ERROR(on_record_(family, ToView(it->key()), ToView(it->value())));
      RETURN_IF_ERROR(use(ToView(it->key()), ToView(it->value())));
      position.assign(it->key().data(), it->key().size());
      position.push_back('\0');
    }
    const rocksdb::Status status = it->status();
    if (status.ok()) return absl::OkStatus();
    if (IsMissingFile(status) && store_.context_->is_reader()) {
      RETURN_IF_ERROR(store_.ReplaceView(view));
      // A view that stays the same means that the file is missing for good.
      if (store_.view() != view && !in_gap) {
        in_gap = true;
        continue;
      }
    } else if (!status.IsCorruption() && !IsMissingFile(status)) {
      return FromRocksDb(status, StrCat(store_.folder(), ": verifying"));
    }
    if (!in_gap || IsMissingFile(status)) {
      in_gap = true;
      std::string where = "from the first one on";
      if (!position.empty()) {
        std::string last = position;
        if (last.back() == '\0' && last.size() % 8 == 1) last.pop_back();
        where = StrCat("after the ", DescribeRecord(type, last));
      }
      RETURN_IF_ERROR(
          report_({.kind = kind,
                   .what = StrCat("records ", where, " cannot be read: ", status.ToString())}));
    }
    const std::optional<std::string> candidate = next(position);
    if (!candidate || *candidate <= position) return absl::OkStatus();
    position = *candidate;
  }
}

absl::Status Verifier::CheckCommits() {
  const absl::Status missing = store_.view()->missing_commits();
  if (missing.ok()) return absl::OkStatus();
  return report_({.kind = "file", .what = Text(missing)});
}

absl::Status Verifier::CheckMeta() {
  const absl::Status format = store_.CheckFormat();  // a store with damage here opens in salvage
  if (!format.ok()) RETURN_IF_ERROR(report_({.kind = "settings", .what = Text(format)}));
  const absl::Status stored = store_.Get(
      ColumnFamily::kMeta, RecordType::kSettings, std::string(kSettingsKey),
      [](std::string_view, std::string_view value) { return DecodeSettings(value).status(); });
  if (!stored.ok() && !absl::IsNotFound(stored)) {
    RETURN_IF_ERROR(report_({.kind = "settings", .what = Text(stored)}));
  }
  // In salvage there may be a copy of the settings, and counters as far as records tell.
  const auto settings = store_.Settings();
  if (settings.ok() && *settings) settings_ = std::make_shared<const StoreSettings>(**settings);
  const absl::Status counted = store_.view()->ReadCounters().status();
  if (!counted.ok()) RETURN_IF_ERROR(report_({.kind = "settings", .what = Text(counted)}));
  const auto counters = store_.ReadCounters();
  counters_known_ = counters.ok();
  if (counters.ok()) counters_ = *counters;
  return absl::OkStatus();
}

absl::Status Verifier::CheckDocuments() {
  const NextKey next = [this](const std::string& key) -> std::optional<std::string> {
    const uint64_t number = key.empty() ? 0 : LeadingNumber(key);
    // Any number below the next free one may have a record.
    if (!counters_known_ || number + 1 >= counters_.next_document) return std::nullopt;
    return NumberKey(number + 1);
  };
  return Walk(
      ColumnFamily::kDocuments, RecordType::kDocument, "document", next,
      [this](std::string_view key, std::string_view value) -> absl::Status {
        ++counts_.documents;
        const uint64_t number = ParseNumberKey(key).value_or(0);
        const auto document = DecodeDocument(key, value);
        if (!document.ok()) {
          documents_[number] = {};
          return report_({.kind = "document", .document = number, .what = Text(document.status())});
        }
        if (counters_known_ && number >= counters_.next_document) {
          RETURN_IF_ERROR(
              report_({.kind = "settings",
                       .document = number,
                       .what = StrCat("the next document number is ", counters_.next_document,
                                      ", but document number ", number, " exists")}));
        }
        documents_[number] = {.complete = document->complete,
                              .n_windows = document->n_windows,
                              .n_tokens = document->n_tokens,
                              .size_bytes = document->size_bytes};
        return absl::OkStatus();
      });
}

absl::Status Verifier::CheckLinks() {
  const NextKey next = [this](const std::string& key) -> std::optional<std::string> {
    DocumentNumber document = 0;
    uint64_t ordinal = 0;
    bool has_ordinal = false;
    if (key.size() >= 16) {
      const auto parts = ParseLinkKey(std::string_view(key).substr(0, 16));
      document = parts->document;
      ordinal = parts->ordinal;
      has_ordinal = true;
    }
    const auto known = documents_.find(document);
    if (has_ordinal && known != documents_.end() && ordinal + 1 < known->second.n_windows) {
      return LinkKey(document, ordinal + 1);
    }
    const auto following = has_ordinal ? documents_.upper_bound(document) : documents_.begin();
    if (following == documents_.end()) return std::nullopt;
    return LinkKey(following->first, 0);
  };
  // The links of one document lie together: they are checked when the next document begins.
  std::vector<WindowLink> links;
  std::set<DocumentNumber> linked;
  const auto finish = [&]() -> absl::Status {
    if (links.empty()) return absl::OkStatus();
    linked.insert(links[0].document);
    RETURN_IF_ERROR(CheckDocumentLinks(links[0].document, links));
    links.clear();
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(Walk(ColumnFamily::kLinks, RecordType::kLink, "link", next,
                       [&](std::string_view key, std::string_view value) -> absl::Status {
                         const auto link = DecodeLink(key, value);
                         if (!link.ok()) {
                           const auto parts = ParseLinkKey(key);
                           return report_({.kind = "link",
                                           .document = parts ? parts->document : 0,
                                           .what = Text(link.status())});
                         }
                         if (!links.empty() && links[0].document != link->document)
                           RETURN_IF_ERROR(finish());
                         links.push_back(*link);
                         windows_[link->slot_begin] = {.document = link->document,
                                                       .ordinal = link->ordinal,
                                                       .n_tokens = link->n_tokens,
                                                       .n_bytes = link->n_bytes};
                         return absl::OkStatus();
                       }));
  RETURN_IF_ERROR(finish());
  for (const auto& [number, document] : documents_) {
    if (linked.contains(number) || document.n_windows == 0 || !document.complete) continue;
    RETURN_IF_ERROR(report_(
        {.kind = "link",
         .document = number,
         .what = StrCat("document number ", number, ": no links, want ", document.n_windows)}));
  }
  return absl::OkStatus();
}

absl::Status Verifier::CheckDocumentLinks(DocumentNumber number,
                                          const std::vector<WindowLink>& links) {
  const auto known = documents_.find(number);
  if (known == documents_.end()) {
    return report_({.kind = "document",
                    .slot_begin = links[0].slot_begin,
                    .document = number,
                    .what = StrCat("document number ", number, ": ", links.size(),
                                   " links, but no record that can be read")});
  }
  if (!known->second.complete) return absl::OkStatus();  // still being ingested
  const KnownDocument& document = known->second;
  uint64_t n_tokens = 0;
  for (size_t i = 0; i < links.size(); ++i) {
    n_tokens += links[i].n_tokens;
    if (links[i].byte_begin > document.size_bytes ||
        links[i].n_bytes > document.size_bytes - links[i].byte_begin) {
      RETURN_IF_ERROR(
          report_({.kind = "link",
                   .slot_begin = links[i].slot_begin,
                   .document = number,
                   .what = StrCat("document number ", number, ", window ", links[i].ordinal,
                                  ": bytes ", links[i].byte_begin, " + ", links[i].n_bytes,
                                  " of a text of ", document.size_bytes)}));
    }
  }
  if (links.size() != document.n_windows || links.back().ordinal + 1 != document.n_windows) {
    return report_({.kind = "link",
                    .slot_begin = links[0].slot_begin,
                    .document = number,
                    .what = StrCat("document number ", number, ": ", links.size(),
                                   " links that can be read, the last to window ",
                                   links.back().ordinal, "; want ", document.n_windows)});
  }
  if (n_tokens != document.n_tokens) {
    return report_({.kind = "link",
                    .slot_begin = links[0].slot_begin,
                    .document = number,
                    .what = StrCat("document number ", number, ": its links have ", n_tokens,
                                   " tokens, its record ", document.n_tokens)});
  }
  return absl::OkStatus();
}

absl::Status Verifier::CheckUnlinkedWindows() {
  // Windows that a link names are read by their key below; this finds the others, by key alone.
  const auto known = [this](const std::string& key) -> std::optional<std::string> {
    return NextWindowKey(key);
  };
  return Walk(ColumnFamily::kWindows, RecordType::kWindow, "window", known,
              [this](std::string_view key, std::string_view /*value*/) {
                const auto slot = ParseNumberKey(key);
                if (slot) windows_.try_emplace(*slot);
                return absl::OkStatus();
              });
}

absl::Status Verifier::CheckWindows() {
  for (const auto& [slot_begin, expected] : windows_) {
    RETURN_IF_ERROR(CheckWindow(slot_begin, expected));
  }
  return absl::OkStatus();
}

absl::Status Verifier::CheckSamples() {
  // Read for themselves: not every window has one.
  const NextKey next = [this](const std::string& key) -> std::optional<std::string> {
    return NextWindowKey(key);
  };
  return Walk(ColumnFamily::kSamples, RecordType::kQuerySample, "sample", next,
              [this](std::string_view key, std::string_view value) -> absl::Status {
                const auto sample = DecodeQuerySample(key, value, settings_.get());
                if (sample.ok()) return absl::OkStatus();
                const Slot slot_begin = ParseNumberKey(key).value_or(0);
                const auto window = windows_.find(slot_begin);
                return report_({.kind = "sample",
                                .slot_begin = slot_begin,
                                .document = window == windows_.end() ? 0 : window->second.document,
                                .what = Text(sample.status())});
              });
}

bool Verifier::WasDeleted(const ExpectedWindow& expected, Slot slot_begin) const {
  if (expected.document == 0) return absl::IsNotFound(store_.GetWindow(slot_begin).status());
  const absl::Status link = store_.Get(
      ColumnFamily::kLinks, RecordType::kLink, LinkKey(expected.document, expected.ordinal),
      [](std::string_view, std::string_view) { return absl::OkStatus(); });
  return absl::IsNotFound(link);
}

absl::Status Verifier::CheckWindow(Slot slot_begin, const ExpectedWindow& expected) {
  const auto damage = [&](const char* kind, int memory_layer, std::string what) -> absl::Status {
    if (WasDeleted(expected, slot_begin)) return absl::OkStatus();
    return report_({.kind = kind,
                    .slot_begin = slot_begin,
                    .memory_layer = memory_layer,
                    .document = expected.document,
                    .what = std::move(what)});
  };
  ++counts_.windows;
  int64_t n_tokens = expected.document == 0 ? -1 : static_cast<int64_t>(expected.n_tokens);
  const auto window = store_.GetWindow(slot_begin);
  if (!window.ok()) {
    RETURN_IF_ERROR(damage("window", -1, Text(window.status())));
  } else {
    if (expected.document != 0 &&
        (window->ids.size() != expected.n_tokens || window->text.size() != expected.n_bytes)) {
      RETURN_IF_ERROR(damage("window", -1,
                             StrCat("window at slot ", slot_begin, ": ", window->ids.size(),
                                    " tokens and ", window->text.size(), " bytes, its link says ",
                                    expected.n_tokens, " and ", expected.n_bytes)));
    }
    if (counters_known_ && slot_begin + window->ids.size() > counters_.next_slot) {
      RETURN_IF_ERROR(
          damage("settings", -1,
                 StrCat("the next slot is ", counters_.next_slot, ", but the window at slot ",
                        slot_begin, " has ", window->ids.size(), " tokens")));
    }
    n_tokens = static_cast<int64_t>(window->ids.size());
  }
  if (settings_ == nullptr) return absl::OkStatus();
  for (int layer = 0; layer < settings_->n_mem_layers; ++layer) {
    ++counts_.blocks;
    // Each half for itself: damage of both is two findings, and a repair wants to know.
    for (const auto part : {DocumentStore::BlockPart::kKeys, DocumentStore::BlockPart::kValues}) {
      const auto block = store_.GetBlock(slot_begin, layer, part);
      if (!block.ok()) {
        RETURN_IF_ERROR(damage("block", layer, Text(block.status())));
      } else if (n_tokens >= 0 && block->n_tokens != n_tokens) {
        RETURN_IF_ERROR(
            damage("block", layer,
                   StrCat(part == DocumentStore::BlockPart::kKeys ? "keys" : "values",
                          " of memory layer ", layer, " of the window at slot ", slot_begin, ": ",
                          block->n_tokens, " tokens, want ", n_tokens)));
      }
    }
  }
  return absl::OkStatus();
}

absl::Status Verifier::CheckSegments() {
  const NextKey next = [this](const std::string& key) -> std::optional<std::string> {
    const uint64_t id = key.empty() ? 0 : LeadingNumber(key) + 1;
    if (!counters_known_ || id >= counters_.next_segment) return std::nullopt;
    return key.empty() ? std::string(8, '\0') : NumberKey(id);
  };
  std::vector<SegmentRecord> current;
  RETURN_IF_ERROR(Walk(ColumnFamily::kSegments, RecordType::kSegment, "segment", next,
                       [&](std::string_view key, std::string_view value) -> absl::Status {
                         const auto segment = DecodeSegment(key, value);
                         if (!segment.ok()) {
                           return report_({.kind = "segment", .what = Text(segment.status())});
                         }
                         if (segment->generation == counters_.generation) {
                           current.push_back(*segment);
                         }
                         return absl::OkStatus();
                       }));
  std::sort(current.begin(), current.end(), [](const SegmentRecord& a, const SegmentRecord& b) {
    return a.slot_begin < b.slot_begin;
  });
  for (size_t i = 1; i < current.size(); ++i) {
    if (current[i].slot_begin >= current[i - 1].slot_end) continue;
    RETURN_IF_ERROR(report_(
        {.kind = "segment",
         .slot_begin = current[i].slot_begin,
         .what = StrCat("segments ", current[i - 1].id, " and ", current[i].id, " overlap: slots [",
                        current[i - 1].slot_begin, ", ", current[i - 1].slot_end, ") and [",
                        current[i].slot_begin, ", ", current[i].slot_end, ")")}));
  }
  return absl::OkStatus();
}

absl::Status Verifier::CheckTableFiles() {
  // Parts of table files that no record above had to be read from: indexes, what newer records
  // hide, properties. Blob files have no such parts.
  const std::shared_ptr<StoreView> view = store_.view();
  const auto live_files = [&view] {
    std::vector<rocksdb::LiveFileMetaData> files;
    view->db().GetLiveFilesMetaData(&files);
    return files;
  };
  // A compaction may remove a file that was listed; in a reader's view it stays listed, and what
  // its records say was checked above.
  const auto was_removed = [&](const rocksdb::LiveFileMetaData& file) {
    if (store_.context_->is_reader()) return !view->IsCurrent();
    const std::vector<rocksdb::LiveFileMetaData> files = live_files();
    return std::none_of(files.begin(), files.end(),
                        [&](const auto& other) { return other.name == file.name; });
  };
  rocksdb::Options options;
  options.env = store_.context_->env.get();
  for (const rocksdb::LiveFileMetaData& file : live_files()) {
    rocksdb::SstFileReader reader(options);
    rocksdb::Status status = reader.Open(file.db_path + file.name);
    if (status.ok()) status = reader.VerifyChecksum();
    if (status.ok() || (IsMissingFile(status) && was_removed(file))) continue;
    RETURN_IF_ERROR(report_({.kind = "table",
                             .what = StrCat("table file ", file.name, " (", file.column_family_name,
                                            "): ", status.ToString())}));
  }
  return absl::OkStatus();
}

absl::StatusOr<DocumentStore::VerifyCounts> DocumentStoreImpl::Verify(
    const std::function<absl::Status(const Damage&)>& report) const {
  return Verifier(*this, report).Run();
}

absl::Status DocumentStoreImpl::CopyReadable(
    DocumentStore* to, const std::function<absl::Status(uint64_t n_bytes)>& progress) {
  auto* target = static_cast<DocumentStoreImpl*>(to);
  FOVEA_CHECK(!context_->is_reader() && !target->context_->is_reader());
  constexpr size_t kBatchBytes = size_t{8} << 20;
  uint64_t n_bytes = 0;
  rocksdb::WriteBatch batch;
  const auto write = [&]() -> absl::Status {
    RETURN_IF_ERROR(FromRocksDb(target->WriteAlone(&batch), StrCat(target->folder(), ": copying")));
    n_bytes += batch.GetDataSize();
    batch.Clear();
    return progress(n_bytes);
  };
  const auto put = [&](ColumnFamily family, std::string_view key,
                       std::string_view value) -> absl::Status {
    RETURN_IF_ERROR(FromRocksDb(batch.Put(target->view_->family(family), {key.data(), key.size()},
                                          {value.data(), value.size()}),
                                StrCat(target->folder(), ": copying")));
    return batch.GetDataSize() < kBatchBytes ? absl::OkStatus() : write();
  };
  const auto unless_damaged = [](const absl::Status& status) {
    return absl::IsDataLoss(status) || absl::IsNotFound(status) ? absl::OkStatus() : status;
  };

  const absl::StatusOr<std::optional<StoreSettings>> settings = Settings();
  const bool is_known = settings.ok() && settings->has_value();
  if (is_known) {
    ASSIGN_OR_RETURN(const std::string record, EncodeSettings(**settings));
    RETURN_IF_ERROR(put(ColumnFamily::kMeta, kSettingsKey, record));
    WriteSettingsCopy(*target->context_->file_system, target->folder(), **settings);
  }
  RETURN_IF_ERROR(put(ColumnFamily::kMeta, kFormatKey,
                      EncodeFormatVersion(FormatVersionFor(is_known ? &**settings : nullptr))));
  std::vector<Slot> windows;
  const Verifier::OnRecord on_record = [&](ColumnFamily family, std::string_view key,
                                           std::string_view value) {
    if (family == ColumnFamily::kWindows) windows.push_back(ParseNumberKey(key).value_or(0));
    return put(family, key, value);
  };
  // What is damaged or missing is found where the copy is verified.
  const Verifier::Report ignore = [](const Damage&) { return absl::OkStatus(); };
  RETURN_IF_ERROR(Verifier(*this, ignore, on_record).WalkRecords());
  for (const Slot slot : windows) {
    // What follows a damaged block of a window is not copied: the window is encoded again anyway.
    RETURN_IF_ERROR(unless_damaged(ForEach(ColumnFamily::kBlocks, RecordType::kBlockKeys,
                                           NumberKey(slot), NumberKey(slot + 1),
                                           [&](std::string_view key, std::string_view value) {
                                             return put(ColumnFamily::kBlocks, key, value);
                                           })));
  }

  RETURN_IF_ERROR(write());
  // The source's may be lower bounds, or the very record that is damaged.
  ASSIGN_OR_RETURN(Counters counters, target->RecoverCounters());
  const std::scoped_lock lock(commit_mutex_, target->commit_mutex_);
  counters.next_slot = std::max(counters.next_slot, counters_.next_slot);
  counters.next_document = std::max(counters.next_document, counters_.next_document);
  counters.next_segment = std::max(counters.next_segment, counters_.next_segment);
  counters.generation = std::max(counters.generation, counters_.generation);
  counters.epoch = counters_.epoch + 1;
  RETURN_IF_ERROR(put(ColumnFamily::kMeta, kCountersKey, EncodeCounters(counters)));
  RETURN_IF_ERROR(write());
  target->counters_ = counters;
  target->written_epoch_ = target->durable_epoch_ = counters.epoch;
  target->witness_->Write(counters.epoch);
  return target->LoadSettings();
}

}  // namespace fovea::storage
