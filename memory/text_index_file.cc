#include "memory/text_index_file.h"

#include <algorithm>
#include <iterator>
#include <system_error>
#include <utility>

#include "base/file.h"
#include "storage/find_writer.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;
using index::TextIndex;
using storage::Slot;

// A database with what SQLite keeps beside it; whatever somebody has put there in its place.
void RemoveDatabase(const fs::path& path) {
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    std::error_code error;
    fs::remove_all(fs::path(path) += suffix, error);
  }
}

// What was deleted changes scores, and takes place. Making the index again takes about a second for
// two million tokens, too long for every edit of a large memory.
bool IsWorthMakingAgain(const IndexedWindows& windows) {
  constexpr int64_t kFewWindows = 512;
  return windows.n_deleted > 0 &&
         (windows.n_windows <= kFewWindows || windows.n_deleted * 10 > windows.n_windows);
}

// Where a new one is made before it takes the place of `path`.
fs::path UnfinishedPath(const fs::path& path) { return fs::path(path) += ".new"; }

}  // namespace

index::WindowText TextOf(const storage::WindowRecord& window) {
  index::WindowText text;
  text.slot_begin = window.slot_begin;
  text.slot_end = window.slot_begin + window.ids.size();
  const auto& begins = window.passage_begins;
  for (size_t p = 0; p < begins.size(); ++p) {
    const uint32_t first = begins[p] == 0 ? 0 : window.ends[begins[p] - 1];
    const uint32_t last = p + 1 < begins.size() ? window.ends[begins[p + 1] - 1]
                                                : static_cast<uint32_t>(window.text.size());
    text.passages.push_back(
        {window.slot_begin + begins[p], std::string_view(window.text).substr(first, last - first)});
  }
  return text;
}

absl::StatusOr<IndexedWindows> CompareWindows(const TextIndex& text_index,
                                              const storage::DocumentStore& store) {
  IndexedWindows windows;
  if (!text_index.is_newest_version()) return windows;
  ASSIGN_OR_RETURN(const uint64_t next_slot, text_index.NextSlot());
  ASSIGN_OR_RETURN(const std::vector<uint64_t> indexed, text_index.WindowSlots());
  std::vector<Slot> stored;
  RETURN_IF_ERROR(store.ForEachLink([&](const storage::WindowLink& link) {
    stored.push_back(link.slot_begin);
    return absl::OkStatus();
  }));
  std::sort(stored.begin(), stored.end());
  stored.erase(std::unique(stored.begin(), stored.end()), stored.end());
  windows.n_windows = static_cast<int64_t>(stored.size());
  std::vector<Slot> both;
  std::set_intersection(stored.begin(), stored.end(), indexed.begin(), indexed.end(),
                        std::back_inserter(both));
  windows.n_deleted = static_cast<int64_t>(indexed.size() - both.size());
  std::vector<Slot> lacking;
  std::set_difference(stored.begin(), stored.end(), both.begin(), both.end(),
                      std::back_inserter(lacking));
  for (const Slot slot : lacking) {
    if (slot >= next_slot) break;
    // What could not be read could not be indexed.
    if (store.GetWindow(slot).ok()) windows.lacking.push_back(slot);
  }
  return windows;
}

fs::path TextIndexFile::PathOf(uint64_t generation) const {
  return version_folder_ / StrCat("text-", generation, ".sqlite");
}

uint64_t TextIndexFile::generation() const {
  const std::shared_lock lock(mutex_);
  return generation_;
}

absl::Status TextIndexFile::status() const {
  const std::shared_lock lock(mutex_);
  return status_;
}

std::string TextIndexFile::made_again() const {
  const std::shared_lock lock(mutex_);
  return made_again_;
}

absl::StatusOr<std::vector<index::PassageHit>> TextIndexFile::Search(
    std::string_view question, int n_results, absl::FunctionRef<bool(uint64_t)> allows) const {
  const TextIndex* file = nullptr;
  absl::StatusOr<std::vector<index::PassageHit>> hits(std::vector<index::PassageHit>{});
  {
    const std::shared_lock lock(mutex_);
    file = open_.get();
    if (file == nullptr) return hits;
    hits = file->Search(question, n_results, allows);
    // Opening it has looked at a few windows only: what is found here is what an answer is made of.
    constexpr size_t kChecked = 8;
    for (size_t i = 0; hits.ok() && i < std::min(hits->size(), kChecked); ++i) {
      const absl::Status status = CheckHit(*file, (*hits)[i].slot_begin);
      if (!status.ok()) hits = status;
    }
  }
  Keep(file, hits.status());
  if (absl::IsDataLoss(hits.status())) return std::vector<index::PassageHit>();
  return hits;
}

absl::Status TextIndexFile::CheckHit(const TextIndex& file, Slot slot) const {
  const absl::StatusOr<storage::WindowRecord> window = store_->FindWindowBefore(slot + 1);
  if (!window.ok()) return absl::OkStatus();  // of the store, which who reads it will be told
  ASSIGN_OR_RETURN(const TextIndex::Holding holding, file.Compare(TextOf(*window)));
  if (holding != TextIndex::Holding::kOther) return absl::OkStatus();
  return absl::DataLossError(StrCat(PathOf(generation_),
                                    ": is the text index of another memory: at slot ", slot,
                                    " it has other text than this one"));
}

absl::StatusOr<uint64_t> TextIndexFile::NextSlot() const {
  const std::shared_lock lock(mutex_);
  if (open_ == nullptr) return 0;
  return open_->NextSlot();
}

void TextIndexFile::Keep(const TextIndex* file, const absl::Status& status) const {
  {
    const std::shared_lock lock(mutex_);
    if (status == status_) return;
  }
  const std::unique_lock lock(mutex_);
  // Others are of the moment: no lock could be had, say.
  if (file == open_.get() && (status.ok() || absl::IsDataLoss(status))) status_ = status;
}

absl::Status TextIndexFile::Open() {
  ASSIGN_OR_RETURN(const storage::Counters counters, store_->ReadCounters());
  const uint64_t generation = counters.generation;
  const fs::path path = PathOf(generation);
  if (options_.writes) {
    for (uint64_t old = 0; old < generation; ++old) RemoveDatabase(PathOf(old));
    RemoveDatabase(UnfinishedPath(path));
  }
  std::error_code error;
  // SQLite takes an empty file for a database that nobody has written to yet.
  const bool is_missing = !fs::exists(path, error) ||
                          (fs::is_regular_file(path, error) && fs::file_size(path, error) == 0);
  absl::Status opened;
  if (!is_missing || !makes_files()) {
    const std::unique_lock lock(mutex_);
    opened =
        OpenLocked(generation, makes_files() ? TextIndex::Mode::kWrite : TextIndex::Mode::kRead);
  }
  if (makes_files() && is_missing) {
    const bool was_there = counters.next_slot > 0;
    opened = MakeAgain(generation, was_there ? StrCat(path, ": no such file, or an empty one") : "",
                       Progress());
  } else if (makes_files() && absl::IsDataLoss(opened)) {
    opened = MakeAgain(generation, std::string(opened.message()), Progress());
  }
  if (opened.ok()) return FillOpened();
  // Derived data: a reader does without it until a writer has made it again.
  const bool is_lost = absl::IsDataLoss(opened) || absl::IsNotFound(opened);
  if (!options_.writes || (options_.is_salvage && is_lost)) return absl::OkStatus();
  return opened;
}

absl::Status TextIndexFile::OpenLocked(uint64_t generation, TextIndex::Mode mode) {
  open_.reset();
  generation_ = generation;
  has_sound_pages_ = false;
  auto opened = TextIndex::Open(PathOf(generation), mode);
  status_ = opened.status();
  if (opened.ok()) status_ = CheckIsOfStore(**opened, PathOf(generation));
  if (status_.ok()) open_ = *std::move(opened);
  return status_;
}

absl::Status TextIndexFile::CheckIsOfStore(const TextIndex& text_index,
                                           const fs::path& path) const {
  const std::string begin = StrCat(path, ": is the text index of another memory: ");
  ASSIGN_OR_RETURN(const uint64_t indexed, text_index.NextSlot());
  const absl::StatusOr<storage::Counters> counters = store_->ReadCounters();
  if (!counters.ok()) return absl::OkStatus();  // the store's damage is not the index's
  const Slot end = std::min<Slot>(indexed, counters->next_slot);
  // The last one, and others: copies of one memory that went ways of their own differ at the end.
  constexpr Slot kSamples = 8;
  for (Slot i = kSamples; i > 0; --i) {
    const absl::StatusOr<storage::WindowRecord> window =
        store_->FindWindowBefore(end / kSamples * i + end % kSamples * i / kSamples);
    if (!window.ok()) continue;
    const index::WindowText text = TextOf(*window);
    ASSIGN_OR_RETURN(const TextIndex::Holding holding, text_index.Compare(text));
    if (holding != TextIndex::Holding::kOther) continue;
    return absl::DataLossError(StrCat(begin, "at slots ", text.slot_begin, " to ", text.slot_end,
                                      " it has other text than this one"));
  }
  const auto find_fault = [&](const storage::DocumentStore& store) -> absl::Status {
    ASSIGN_OR_RETURN(const uint64_t next_slot, text_index.NextSlot());
    ASSIGN_OR_RETURN(const storage::Counters now, store.ReadCounters());
    if (next_slot > now.next_slot) {
      return absl::DataLossError(
          StrCat(begin, "it reaches to slot ", next_slot, ", this one only to ", now.next_slot));
    }
    const absl::StatusOr<IndexedWindows> windows = CompareWindows(text_index, store);
    if (!windows.ok() || windows->lacking.empty()) return absl::OkStatus();
    return absl::DataLossError(StrCat(path, ": lacks the words of ", windows->lacking.size(),
                                      " of ", windows->n_windows, " windows, the first at slot ",
                                      windows->lacking.front()));
  };
  absl::Status fault = find_fault(*store_);
  if (options_.writes || !absl::IsDataLoss(fault)) return fault;
  // A reader may not have seen yet what a writer, at work or just gone, has stored and deleted.
  if (storage::FindWriter(store_->folder()).has_value()) return absl::OkStatus();
  const auto now = storage::DocumentStore::Open(store_->folder(), {});
  return now.ok() ? find_fault(**now) : absl::OkStatus();
}

absl::Status TextIndexFile::FillOpened() {
  // What a process that was ended left undone.
  return makes_files() ? FillOrReplace(Progress()) : absl::OkStatus();
}

absl::Status TextIndexFile::FillOrReplace(const Progress& progress) {
  const absl::Status filled = Fill(open_.get(), progress);
  if (!absl::IsDataLoss(filled)) return filled;
  return MakeAgain(generation(), std::string(filled.message()), progress);
}

absl::Status TextIndexFile::MakeAgain(uint64_t generation, const std::string& reason,
                                      const Progress& progress) {
  RETURN_IF_ERROR(Replace(generation, progress));
  const std::unique_lock lock(mutex_);
  made_again_ = reason;
  return absl::OkStatus();
}

absl::Status TextIndexFile::Update(const Progress& progress) {
  if (makes_files() && open_ == nullptr) RETURN_IF_ERROR(Open());
  absl::Status sound;
  if (options_.is_salvage) {
    const std::unique_lock lock(mutex_);
    sound = OpenLocked(generation_, TextIndex::Mode::kWrite);
  } else {
    sound = CheckIsOfStore(*open_, path());
  }
  if (sound.ok() && !has_sound_pages_) sound = open_->VerifyPages();
  if (absl::IsDataLoss(sound)) {
    return MakeAgain(generation(), std::string(sound.message()), progress);
  }
  RETURN_IF_ERROR(sound);
  has_sound_pages_ = true;
  if (!open_->is_newest_version()) return Rebuild(progress);
  const absl::StatusOr<IndexedWindows> windows = CompareWindows(*open_, *store_);
  // In salvage, for a repair, whatever there is of it goes.
  if (windows.ok() &&
      (IsWorthMakingAgain(*windows) || (options_.is_salvage && windows->n_deleted > 0))) {
    return Rebuild(progress);
  }
  return FillOrReplace(progress);
}

absl::Status TextIndexFile::Fill(TextIndex* text_index, const Progress& progress) {
  ASSIGN_OR_RETURN(const storage::Counters counters, store_->ReadCounters());
  ASSIGN_OR_RETURN(const uint64_t next_slot, text_index->NextSlot());
  if (next_slot == counters.next_slot) return absl::OkStatus();
  // Windows of documents that are not complete yet are indexed too: they keep their slots when they
  // become visible.
  std::vector<Slot> missing;
  RETURN_IF_ERROR(store_->ForEachLink([&](const storage::WindowLink& link) {
    if (link.slot_begin >= next_slot) missing.push_back(link.slot_begin);
    return absl::OkStatus();
  }));
  std::sort(missing.begin(), missing.end());
  missing.erase(std::unique(missing.begin(), missing.end()), missing.end());

  constexpr size_t kWindowsInTransaction = 256;
  for (size_t begin = 0; begin < missing.size(); begin += kWindowsInTransaction) {
    const size_t end = std::min(begin + kWindowsInTransaction, missing.size());
    std::vector<storage::WindowRecord> windows;
    for (size_t i = begin; i < end; ++i) {
      absl::StatusOr<storage::WindowRecord> window = store_->GetWindow(missing[i]);
      // A damaged window cannot be found by its words; `verify` names it.
      if (absl::IsDataLoss(window.status()) || absl::IsNotFound(window.status())) continue;
      RETURN_IF_ERROR(window.status());
      windows.push_back(*std::move(window));
    }
    std::vector<index::WindowText> texts;
    for (const storage::WindowRecord& window : windows) texts.push_back(TextOf(window));
    const uint64_t covered = end < missing.size() ? missing[end] : counters.next_slot;
    RETURN_IF_ERROR(text_index->Add(texts, covered));
    RETURN_IF_ERROR(progress.Report({"index words", static_cast<int64_t>(end),
                                     static_cast<int64_t>(missing.size()), "windows"}));
  }
  if (missing.empty()) RETURN_IF_ERROR(text_index->Add({}, counters.next_slot));
  return absl::OkStatus();
}

absl::Status TextIndexFile::Rebuild(const Progress& progress) {
  // What an interrupted rebuild has prepared may hold what was deleted since.
  RemoveDatabase(PathOf(generation() + 1));
  RETURN_IF_ERROR(Replace(generation(), progress));
  return FillOpened();
}

absl::Status TextIndexFile::Replace(uint64_t generation, const Progress& progress) {
  const fs::path path = PathOf(generation);
  const fs::path unfinished = UnfinishedPath(path);
  RemoveDatabase(unfinished);
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<TextIndex> fresh,
                     TextIndex::Open(unfinished, TextIndex::Mode::kWrite));
    RETURN_IF_ERROR(Fill(fresh.get(), progress));
  }
  // Closing it has put everything into the one file.
  std::error_code error;
  if (fs::exists(fs::path(unfinished) += "-wal", error)) {
    return absl::ResourceExhaustedError(
        StrCat(unfinished, ": could not be finished; free some space and try again"));
  }
  const std::unique_lock lock(mutex_);
  open_.reset();
  // A new file under the name, but with the old one's WAL beside it, would be read with that.
  RemoveDatabase(path);
  fs::rename(unfinished, path, error);
  if (error) return ErrnoToStatus(error.value(), "rename", unfinished);
  RETURN_IF_ERROR(OpenLocked(generation, TextIndex::Mode::kWrite));
  has_sound_pages_ = true;
  return absl::OkStatus();
}

absl::Status TextIndexFile::Prepare(uint64_t generation, const Progress& progress) {
  const fs::path path = PathOf(generation);
  const absl::Status prepared = FillPrepared(path, progress);
  if (!absl::IsDataLoss(prepared)) return prepared;
  RemoveDatabase(path);
  return FillPrepared(path, progress);
}

absl::Status TextIndexFile::FillPrepared(const fs::path& path, const Progress& progress) {
  ASSIGN_OR_RETURN(const std::unique_ptr<TextIndex> text_index,
                   TextIndex::Open(path, TextIndex::Mode::kWrite));
  if (!text_index->is_newest_version()) {
    return absl::DataLossError(StrCat(path, ": of an earlier version"));
  }
  RETURN_IF_ERROR(text_index->VerifyPages());
  RETURN_IF_ERROR(CheckIsOfStore(*text_index, path));
  ASSIGN_OR_RETURN(const IndexedWindows windows, CompareWindows(*text_index, *store_));
  if (windows.n_deleted > 0) {
    return absl::DataLossError(StrCat(path, ": holds what was deleted since"));
  }
  return Fill(text_index.get(), progress);
}

}  // namespace fovea::memory
