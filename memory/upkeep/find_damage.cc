// The checks of Verify.
#include <algorithm>
#include <map>
#include <set>
#include <string>
#include <utility>

#include "base/hash.h"
#include "memory/segment_files.h"
#include "memory/upkeep/damage.h"
#include "storage/find_writer.h"

namespace fovea::memory {
namespace {

using storage::DocumentNumber;
using storage::DocumentRecord;
using storage::SegmentRecord;
using storage::WindowLink;

constexpr size_t kIdDigits = 32;

// Damage to records ends a walk over them. The store's own check reports it; the checks here go as
// far as they can.
absl::Status UnlessDataLoss(const absl::Status& status) {
  return absl::IsDataLoss(status) ? absl::OkStatus() : status;
}

class Checker {
 public:
  Checker(Memory* memory, const Progress& progress, VerifyReport* report)
      : memory_(memory), progress_(progress), report_(report) {}

  absl::StatusOr<std::vector<Damage>> Run() {
    RETURN_IF_ERROR(ReadDocuments());
    RETURN_IF_ERROR(CheckRecords());
    absl::Status unread;
    for (const auto check : {&Checker::CheckTexts, &Checker::CheckLiveWindows,
                             &Checker::CheckUnlinkedWindows, &Checker::CheckDerived}) {
      const absl::Status status = (this->*check)();
      RETURN_IF_ERROR(UnlessDataLoss(status));
      unread.Update(status);
    }
    // Damage that ended a check is among the findings; where it is not, it must not be lost.
    if (damage_.empty()) RETURN_IF_ERROR(unread);
    return std::move(damage_);
  }

 private:
  // The memory may go on to another version while it is checked (CheckDerived).
  const storage::DocumentStore& store() const { return memory_->store(); }

  absl::Status ReadDocuments() {
    RETURN_IF_ERROR(UnlessDataLoss(store().ForEachDocument([&](const DocumentRecord& document) {
      documents_[document.number] = document;
      return absl::OkStatus();
    })));
    const absl::Status status = store().ForEachLink([&](const WindowLink& link) {
      links_.push_back(link);
      return absl::OkStatus();
    });
    links_readable_ = status.ok();
    return UnlessDataLoss(status);
  }

  std::string IdOf(DocumentNumber number) const {
    const auto document = documents_.find(number);
    return document == documents_.end() ? "" : document->second.id;
  }

  // What to do where a text is lost.
  std::string IngestAgain(DocumentNumber number) const {
    const auto document = documents_.find(number);
    if (document == documents_.end()) return "delete the document and ingest it again";
    return StrCat("delete document ", document->second.id, " and ingest it again (from ",
                  document->second.source(), ")");
  }

  Damage& Add(std::string kind, DocumentNumber document, std::string what) {
    Damage& damage = damage_.emplace_back();
    damage.finding.kind = std::move(kind);
    damage.finding.document = IdOf(document);
    damage.finding.what = std::move(what);
    damage.document = document;
    return damage;
  }

  // Every record of the store: readable, and fitting the records that name it.
  absl::Status CheckRecords() {
    RETURN_IF_ERROR(progress_.Report({.stage = "verify records", .unit = "records"}));
    ASSIGN_OR_RETURN(const storage::DocumentStore::VerifyCounts counts,
                     store().Verify([&](const storage::Damage& found) {
                       AddStoreDamage(found);
                       return progress_.CheckCancelled();
                     }));
    report_->documents = counts.documents;
    report_->blocks = counts.blocks;
    n_windows_ = counts.windows;
    // Without its text a window cannot be encoded again.
    for (Damage& damage : damage_) {
      if (damage.repair == Repair::kEncodeWindow && lost_windows_.contains(damage.slot_begin)) {
        damage.repair = Repair::kNone;
        damage.finding.what += StrCat("; its text is damaged too: ", IngestAgain(damage.document));
      }
    }
    return absl::OkStatus();
  }

  void AddStoreDamage(const storage::Damage& found) {
    Damage& damage = Add(found.kind, found.document, found.what);
    damage.slot_begin = found.slot_begin;
    damage.memory_layer = found.memory_layer;
    if (found.kind == "block" || found.kind == "sample") {
      damage.repair = Repair::kEncodeWindow;
    } else if (found.kind == "document" && found.document != 0) {
      damage.repair = Repair::kRestoreRecord;
    } else if (found.kind == "link" && found.document != 0) {
      damage.repair = Repair::kRemoveDocument;
      damage.finding.what += "; what is left of the document cannot be put together";
    } else if (found.kind == "segment") {
      damage.repair = Repair::kSealAgain;
    } else if (found.kind == "window") {
      damage.finding.what += StrCat("; its text is lost: ", IngestAgain(found.document));
      lost_windows_.insert(found.slot_begin);
      damaged_documents_.insert(found.document);
    } else if (found.kind == "table" || (found.kind == "settings" && memory_->settings())) {
      report_->needs_new_store = true;
      damage.finding.what += "; `fovea verify --repair` copies what can be read to a new store";
    } else {
      damage.finding.what += "; restore the memory from a backup, or ingest into a new one";
    }
    if (found.kind == "link") damaged_documents_.insert(found.document);
  }

  // The texts of complete documents are what their ids say.
  absl::Status CheckTexts() {
    size_t begin = 0;
    while (begin < links_.size()) {
      size_t end = begin;
      while (end < links_.size() && links_[end].document == links_[begin].document) ++end;
      RETURN_IF_ERROR(progress_.Report({.stage = "verify texts",
                                        .done = static_cast<int64_t>(begin),
                                        .total = static_cast<int64_t>(links_.size()),
                                        .unit = "windows"}));
      RETURN_IF_ERROR(CheckText({links_.data() + begin, end - begin}));
      begin = end;
    }
    return absl::OkStatus();
  }

  absl::Status CheckText(std::span<const WindowLink> links) {
    const auto found = documents_.find(links[0].document);
    if (found == documents_.end() || !found->second.complete ||
        damaged_documents_.contains(links[0].document)) {
      return absl::OkStatus();
    }
    const DocumentRecord& document = found->second;
    Sha256 hasher;
    uint64_t n_bytes = 0;
    for (const WindowLink& link : links) {
      if (link.byte_begin != n_bytes) {
        Add("link", document.number,
            StrCat("window ", link.ordinal, " begins at byte ", link.byte_begin,
                   " of the text, the one before it ends at ", n_bytes, ": ",
                   IngestAgain(document.number)));
        return absl::OkStatus();
      }
      absl::StatusOr<storage::WindowRecord> window = store().GetWindow(link.slot_begin);
      // Deleted by the writer since the links were read.
      if (absl::IsNotFound(window.status())) return absl::OkStatus();
      RETURN_IF_ERROR(window.status());
      hasher.Update(window->text);
      n_bytes += window->text.size();
    }
    const std::string id = hasher.FinishHex().substr(0, kIdDigits);
    if (id != document.id || n_bytes != document.size_bytes) {
      Add("document", document.number,
          StrCat("its text has ", n_bytes, " bytes and SHA-256 ", id, "…, want ",
                 document.size_bytes, " and ", document.id, "…: ", IngestAgain(document.number)));
    }
    return absl::OkStatus();
  }

  // A slot belongs to one window of one complete document.
  absl::Status CheckLiveWindows() {
    std::vector<WindowLink> live;
    for (const WindowLink& link : links_) {
      const auto document = documents_.find(link.document);
      if (document != documents_.end() && document->second.complete) live.push_back(link);
    }
    std::sort(live.begin(), live.end(),
              [](const WindowLink& a, const WindowLink& b) { return a.slot_begin < b.slot_begin; });
    for (size_t i = 1; i < live.size(); ++i) {
      const WindowLink& before = live[i - 1];
      if (before.slot_begin + before.n_tokens <= live[i].slot_begin) continue;
      Add("link", live[i].document,
          StrCat("its window ", live[i].ordinal, " at slot ", live[i].slot_begin, " lies in the ",
                 before.n_tokens, " tokens of the window at slot ", before.slot_begin,
                 " of document ", IdOf(before.document), ": ", IngestAgain(live[i].document)));
    }
    return absl::OkStatus();
  }

  absl::Status CheckUnlinkedWindows() {
    if (!links_readable_) return absl::OkStatus();
    std::set<Slot> linked;
    for (const WindowLink& link : links_) linked.insert(link.slot_begin);
    // Looking for them is slow, counting is not.
    if (n_windows_ <= static_cast<int64_t>(linked.size())) return absl::OkStatus();
    ASSIGN_OR_RETURN(const std::vector<Slot> unlinked, FindUnlinkedWindows(store(), progress_));
    for (const Slot slot : unlinked) {
      Damage& damage = Add("window", 0, StrCat("window at slot ", slot, ": no document has it"));
      damage.repair = Repair::kRemoveWindow;
      damage.slot_begin = slot;
    }
    return absl::OkStatus();
  }

  // Beside a writer, segments are merged and all made again, and what has been replaced is removed:
  // a file that is missing is none where the records of now no longer name it.
  absl::Status CheckDerived() {
    const size_t n_found = damage_.size();
    for (;;) {
      const absl::StatusOr<DerivedNames> names = ReadDerivedNames();
      absl::Status status = CheckSegments();
      status.Update(CheckTextIndex());
      if (absl::IsCancelled(status) || (status.ok() && damage_.size() == n_found)) return status;
      // Where that fails, what was found stands.
      memory_->Refresh().IgnoreError();
      const absl::StatusOr<DerivedNames> names_now = ReadDerivedNames();
      if (!names.ok() || !names_now.ok() || *names == *names_now) return status;
      damage_.erase(damage_.begin() + static_cast<ptrdiff_t>(n_found), damage_.end());
      report_->index_files = 0;
    }
  }

  // What tells whether a writer has put other files in the place of those that were looked at.
  struct DerivedNames {
    std::filesystem::path text_index;
    std::set<uint64_t> segments;
    bool operator==(const DerivedNames&) const = default;
  };
  absl::StatusOr<DerivedNames> ReadDerivedNames() const {
    DerivedNames names;
    names.text_index = memory_->text_index_path();
    ASSIGN_OR_RETURN(const std::vector<SegmentRecord> segments, store().Segments());
    for (const SegmentRecord& segment : segments) names.segments.insert(segment.id);
    return names;
  }

  absl::Status CheckSegments() {
    absl::StatusOr<storage::Counters> counters = store().ReadCounters();
    absl::StatusOr<std::vector<SegmentRecord>> segments = store().Segments();
    for (const absl::Status& status : {counters.status(), segments.status()}) {
      if (!status.ok()) return UnlessDataLoss(status);
    }
    ASSIGN_OR_RETURN(const std::optional<storage::StoreSettings> settings, store().Settings());
    std::erase_if(*segments,
                  [&](const auto& segment) { return segment.generation != counters->generation; });
    std::sort(segments->begin(), segments->end(),
              [](const auto& a, const auto& b) { return a.slot_begin < b.slot_begin; });
    Slot end = 0;
    for (const SegmentRecord& segment : *segments) {
      // The store has reported overlaps.
      if (segment.slot_begin > end) {
        Add("segment", 0,
            StrCat("slots ", end, " to ", segment.slot_begin, " are in no segment (", segment.id,
                   " comes next)"))
            .repair = Repair::kSealAgain;
      }
      end = std::max(end, segment.slot_end);
      CheckSegmentFiles(segment, settings.has_value() ? settings->n_mem_layers : 0);
      RETURN_IF_ERROR(progress_.Report(
          {.stage = "verify index files", .done = report_->index_files, .unit = "files"}));
    }
    if (end > counters->next_slot) {
      Add("segment", 0,
          StrCat("segments end at slot ", end, ", the next slot is ", counters->next_slot))
          .repair = Repair::kSealAgain;
    }
    return absl::OkStatus();
  }

  void CheckSegmentFiles(const SegmentRecord& segment, int n_mem_layers) {
    const auto add = [&](std::string what) {
      Damage& damage = Add("index_file", 0, std::move(what));
      damage.repair = Repair::kRebuildSegment;
      damage.segment = segment.id;
    };
    if (!segment.files.empty() && static_cast<int>(segment.files.size()) != n_mem_layers) {
      add(StrCat("segment ", segment.id, ": ", segment.files.size(), " index files for ",
                 n_mem_layers, " memory layers"));
    }
    for (const storage::SegmentFile& file : segment.files) {
      ++report_->index_files;
      const absl::Status status = CheckSegmentFile(file, memory_->index_folder());
      if (!status.ok()) add(std::string(status.message()));
    }
  }

  absl::Status CheckTextIndex() {
    ASSIGN_OR_RETURN(storage::Counters counters, store().ReadCounters());
    const index::TextIndex* text_index = memory_->text_index();
    const auto add = [&](Repair repair, std::string what) {
      Add("text_index", 0, std::move(what)).repair = repair;
    };
    if (text_index == nullptr) {
      const absl::Status& status = memory_->text_index_status();
      // A full disk, say: nothing is known about the index.
      if (!absl::IsDataLoss(status) && !absl::IsNotFound(status)) return status;
      if (counters.next_slot > 0) add(Repair::kRebuildText, std::string(status.message()));
      return absl::OkStatus();
    }
    absl::Status sound = text_index->Verify();
    if (sound.ok()) sound = CheckIndexedWindows(*text_index);
    if (absl::IsDataLoss(sound)) {
      add(Repair::kRebuildText, std::string(sound.message()));
      return absl::OkStatus();
    }
    RETURN_IF_ERROR(sound);
    ASSIGN_OR_RETURN(uint64_t next_slot, text_index->NextSlot());
    // A writer adds to the index what it has committed: a reader may not have seen that yet.
    memory_->Refresh().IgnoreError();
    text_index = memory_->text_index();  // of another generation or version, maybe
    if (text_index == nullptr) return absl::OkStatus();
    ASSIGN_OR_RETURN(counters, store().ReadCounters());
    if (next_slot > counters.next_slot) {
      add(Repair::kRebuildText, StrCat(memory_->text_index_path(), ": reaches to slot ", next_slot,
                                       ", the store only to ", counters.next_slot));
      return absl::OkStatus();
    }
    // What a writer is at is for it to finish.
    if (storage::FindWriter(store().folder())) return absl::OkStatus();
    ASSIGN_OR_RETURN(next_slot, text_index->NextSlot());
    ASSIGN_OR_RETURN(const IndexedWindows windows, CompareWindows(*text_index, store()));
    if (!windows.lacking.empty()) {
      add(Repair::kRebuildText, StrCat(memory_->text_index_path(), ": lacks the words of ",
                                       windows.lacking.size(), " of ", windows.n_windows,
                                       " windows, the first at slot ", windows.lacking.front()));
    } else if (windows.n_deleted > 0) {
      add(Repair::kFillText,
          StrCat(memory_->text_index_path(), ": holds the words of ", windows.n_deleted,
                 " windows that were deleted or replaced: `fovea verify --repair` or `fovea "
                 "rebuild` takes them out"));
    }
    if (next_slot < counters.next_slot) {
      // What an interrupted ingest leaves; one that is at it makes up for it.
      add(Repair::kFillText,
          StrCat(memory_->text_index_path(), ": lacks the words of the last ",
                 counters.next_slot - next_slot, " of ", counters.next_slot,
                 " stored tokens: the next ingest adds them, or `fovea verify --repair`"));
    }
    return absl::OkStatus();
  }

  // What the index holds of windows of complete documents is their text. DataLoss: it is not.
  absl::Status CheckIndexedWindows(const index::TextIndex& text_index) {
    if (!text_index.is_newest_version()) return absl::OkStatus();
    ASSIGN_OR_RETURN(const uint64_t next_slot, text_index.NextSlot());
    int64_t n_done = 0;
    for (const WindowLink& link : links_) {
      RETURN_IF_ERROR(progress_.Report({.stage = "verify words",
                                        .done = n_done++,
                                        .total = static_cast<int64_t>(links_.size()),
                                        .unit = "windows"}));
      const auto document = documents_.find(link.document);
      if (document == documents_.end() || !document->second.complete ||
          link.slot_begin >= next_slot) {
        continue;
      }
      const absl::StatusOr<storage::WindowRecord> window = store().GetWindow(link.slot_begin);
      // Damage to it is among the findings; a writer may have deleted it.
      if (absl::IsDataLoss(window.status()) || absl::IsNotFound(window.status())) continue;
      RETURN_IF_ERROR(window.status());
      ASSIGN_OR_RETURN(const index::TextIndex::Holding holding,
                       text_index.Compare(TextOf(*window)));
      if (holding == index::TextIndex::Holding::kOther) {
        return absl::DataLossError(StrCat(memory_->text_index_path(), ": at slot ", link.slot_begin,
                                          " it has other text than document ", document->second.id,
                                          ": it is the text index of another memory"));
      }
    }
    return absl::OkStatus();
  }

  Memory* memory_;
  const Progress& progress_;
  VerifyReport* report_;

  std::map<DocumentNumber, DocumentRecord> documents_;
  std::vector<WindowLink> links_;  // by document and ordinal
  bool links_readable_ = true;
  int64_t n_windows_ = 0;
  std::set<Slot> lost_windows_;
  std::set<DocumentNumber> damaged_documents_;  // with damage to windows or links
  std::vector<Damage> damage_;
};

}  // namespace

absl::StatusOr<std::vector<Damage>> FindDamage(Memory* memory, const Progress& progress,
                                               VerifyReport* report) {
  for (;;) {
    const std::filesystem::path version = memory->version_folder();
    *report = VerifyReport();
    absl::StatusOr<std::vector<Damage>> damage = Checker(memory, progress, report).Run();
    const bool is_sound = damage.ok() && damage->empty();
    if (is_sound || absl::IsCancelled(damage.status())) return damage;
    // A re-encoding removes the version that it has replaced from under a reader.
    memory->Refresh().IgnoreError();
    if (memory->version_folder() == version) return damage;
  }
}

absl::StatusOr<std::vector<Slot>> FindUnlinkedWindows(const storage::DocumentStore& store,
                                                      const Progress& progress) {
  ASSIGN_OR_RETURN(const storage::Counters counters, store.ReadCounters());
  std::map<Slot, Slot> linked;  // slot_begin → the slot after it
  RETURN_IF_ERROR(store.ForEachLink([&](const WindowLink& link) {
    Slot& end = linked[link.slot_begin];
    end = std::max(end, link.slot_begin + link.n_tokens);
    return absl::OkStatus();
  }));
  std::vector<Slot> unlinked;
  Slot slot = 0;
  while (slot < counters.next_slot) {
    if (const auto window = linked.find(slot); window != linked.end()) {
      slot = std::max(slot + 1, window->second);
      continue;
    }
    const absl::StatusOr<storage::WindowRecord> window = store.GetWindow(slot);
    if (!absl::IsNotFound(window.status())) {
      RETURN_IF_ERROR(UnlessDataLoss(window.status()));
      unlinked.push_back(slot);
    }
    ++slot;
    if (slot % 4096 == 0) {
      RETURN_IF_ERROR(progress.Report({.stage = "look for lost windows",
                                       .done = static_cast<int64_t>(slot),
                                       .total = static_cast<int64_t>(counters.next_slot),
                                       .unit = "tokens"}));
    }
  }
  return unlinked;
}

}  // namespace fovea::memory
