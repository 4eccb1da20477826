#include "memory/text_index_file.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/file.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;
using index::TextIndex;
using storage::Slot;

// A database with what SQLite keeps beside it.
void RemoveDatabase(const fs::path& path) {
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    std::error_code error;
    fs::remove(fs::path(path) += suffix, error);
  }
}

// Where a new one is made before it takes the place of `path`.
fs::path UnfinishedPath(const fs::path& path) { return fs::path(path) += ".new"; }

}  // namespace

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

absl::StatusOr<std::vector<index::PassageHit>> TextIndexFile::Search(
    std::string_view question, int n_results, absl::FunctionRef<bool(uint64_t)> allows) const {
  const TextIndex* file = nullptr;
  absl::StatusOr<std::vector<index::PassageHit>> hits(std::vector<index::PassageHit>{});
  {
    const std::shared_lock lock(mutex_);
    file = open_.get();
    if (file == nullptr) return hits;
    hits = file->Search(question, n_results, allows);
  }
  Keep(file, hits.status());
  if (absl::IsDataLoss(hits.status())) return std::vector<index::PassageHit>();
  return hits;
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
  const bool is_missing = !fs::exists(path, error);
  absl::Status opened;
  if (!is_missing || !makes_files()) {
    const std::unique_lock lock(mutex_);
    opened = OpenLocked(generation);
  }
  if (makes_files() && (is_missing || absl::IsDataLoss(opened))) {
    opened = Replace(generation, Progress());
  }
  if (opened.ok()) return FillOpened();
  // Derived data: a reader does without it until a writer has made it again.
  if (!options_.writes || (options_.is_salvage && absl::IsDataLoss(opened))) {
    return absl::OkStatus();
  }
  return opened;
}

absl::Status TextIndexFile::OpenLocked(uint64_t generation) {
  open_.reset();
  generation_ = generation;
  auto opened = TextIndex::Open(PathOf(generation),
                                options_.writes ? TextIndex::Mode::kWrite : TextIndex::Mode::kRead);
  status_ = opened.status();
  if (opened.ok()) open_ = *std::move(opened);
  return status_;
}

absl::Status TextIndexFile::FillOpened() {
  // What a process that was ended left undone.
  return makes_files() ? FillOrReplace(Progress()) : absl::OkStatus();
}

absl::Status TextIndexFile::FillOrReplace(const Progress& progress) {
  const absl::Status filled = Fill(open_.get(), progress);
  return absl::IsDataLoss(filled) ? Replace(generation(), progress) : filled;
}

absl::Status TextIndexFile::Update(const Progress& progress) {
  if (open_ == nullptr) RETURN_IF_ERROR(Open());
  if (open_ == nullptr) {
    return absl::DataLossError(StrCat(path(), ": damaged: run `fovea verify --repair`"));
  }
  ASSIGN_OR_RETURN(const storage::Counters counters, store_->ReadCounters());
  const absl::StatusOr<uint64_t> next_slot = open_->NextSlot();
  if (absl::IsDataLoss(next_slot.status())) return Rebuild(progress);
  RETURN_IF_ERROR(next_slot.status());
  const bool is_of_another_store = *next_slot > counters.next_slot;
  if (is_of_another_store || !open_->has_checksums()) return Rebuild(progress);
  return makes_files() ? FillOrReplace(progress) : Fill(open_.get(), progress);
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
    std::vector<index::PassageText> passages;
    for (size_t i = begin; i < end; ++i) {
      absl::StatusOr<storage::WindowRecord> window = store_->GetWindow(missing[i]);
      // A damaged window cannot be found by its words; `verify` names it.
      if (absl::IsDataLoss(window.status()) || absl::IsNotFound(window.status())) continue;
      RETURN_IF_ERROR(window.status());
      windows.push_back(*std::move(window));
    }
    for (const storage::WindowRecord& window : windows) {
      const auto& begins = window.passage_begins;
      for (size_t p = 0; p < begins.size(); ++p) {
        const uint32_t first = begins[p] == 0 ? 0 : window.ends[begins[p] - 1];
        const uint32_t last = p + 1 < begins.size() ? window.ends[begins[p + 1] - 1]
                                                    : static_cast<uint32_t>(window.text.size());
        passages.push_back({window.slot_begin + begins[p],
                            std::string_view(window.text).substr(first, last - first)});
      }
    }
    const uint64_t covered = end < missing.size() ? missing[end] : counters.next_slot;
    RETURN_IF_ERROR(text_index->Add(passages, covered));
    RETURN_IF_ERROR(progress.Report({"index words", static_cast<int64_t>(end),
                                     static_cast<int64_t>(missing.size()), "windows"}));
  }
  if (missing.empty()) RETURN_IF_ERROR(text_index->Add({}, counters.next_slot));
  return absl::OkStatus();
}

absl::Status TextIndexFile::Rebuild(const Progress& progress) {
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
  return OpenLocked(generation);
}

absl::Status TextIndexFile::Prepare(uint64_t generation, const Progress& progress) {
  const fs::path path = PathOf(generation);
  constexpr auto kWrite = TextIndex::Mode::kWrite;
  auto opened = TextIndex::Open(path, kWrite);
  if (absl::IsDataLoss(opened.status())) {
    RemoveDatabase(path);
    opened = TextIndex::Open(path, kWrite);
  }
  RETURN_IF_ERROR(opened.status());
  absl::Status filled = Fill(opened->get(), progress);
  if (!absl::IsDataLoss(filled)) return filled;
  opened->reset();
  RemoveDatabase(path);
  ASSIGN_OR_RETURN(const std::unique_ptr<TextIndex> fresh, TextIndex::Open(path, kWrite));
  return Fill(fresh.get(), progress);
}

}  // namespace fovea::memory
