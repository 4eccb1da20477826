#include "memory/memory.h"

#include <algorithm>
#include <map>
#include <system_error>

#include "absl/container/flat_hash_set.h"
#include "base/file.h"
#include "memory/segment_files.h"
#include "memory/versions.h"
#include "model/transformer.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;
using storage::OpenMode;

constexpr char kFirstVersion[] = "0001";

// A folder that holds something else must not be filled with a memory by a slip of the hand. What
// an interrupted first creation left behind is no obstacle.
absl::Status CheckUsableForCreation(const fs::path& folder) {
  std::error_code error;
  if (!fs::exists(folder, error)) return absl::OkStatus();
  if (!fs::is_directory(folder, error)) {
    return absl::FailedPreconditionError(
        StrCat(folder, ": is a file; a memory is a folder: name another"));
  }
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (name != kFirstVersion && !name.starts_with("CURRENT")) {
      return absl::FailedPreconditionError(
          StrCat(folder, ": holds \"", name, "\" and no memory; name an empty or new folder"));
    }
  }
  if (error) return ErrnoToStatus(error.value(), "list", folder);
  return absl::OkStatus();
}

// A database with what SQLite keeps beside it.
void RemoveTextIndex(const fs::path& path) {
  for (const char* suffix : {"", "-wal", "-shm", "-journal"}) {
    std::error_code error;
    fs::remove(fs::path(path) += suffix, error);
  }
}

// Where a new text index is made before it takes the place of `path`.
fs::path UnfinishedPath(const fs::path& path) { return fs::path(path) += ".new"; }

uint64_t FileBytes(const fs::path& path) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  return error ? 0 : static_cast<uint64_t>(size);
}

}  // namespace

bool Memory::Exists(const fs::path& folder) { return HasVersions(folder); }

absl::StatusOr<std::string> Memory::CurrentVersion(const fs::path& folder) {
  return memory::CurrentVersion(folder);
}

absl::StatusOr<std::unique_ptr<Memory>> Memory::Open(const fs::path& folder,
                                                     const MemoryOptions& options) {
  auto memory = std::unique_ptr<Memory>(new Memory());
  memory->folder_ = folder;
  memory->options_ = options;
  if (!options.version.empty()) {
    RETURN_IF_ERROR(memory->OpenVersion(options.version));
    return memory;
  }
  const bool writes = options.mode != OpenMode::kRead;
  for (;;) {
    const bool is_new = options.mode == OpenMode::kCreate && IsNew(folder);
    std::string version = kFirstVersion;
    if (is_new) {
      RETURN_IF_ERROR(CheckUsableForCreation(folder));
    } else {
      ASSIGN_OR_RETURN(version, CurrentVersion(folder));
    }
    const absl::Status opened = memory->OpenVersion(version);
    // Another process may have put the next version in the place of this one after CURRENT was
    // read. Then this one is being removed: a reader may find it half gone, and what a writer
    // stored in it would be lost.
    if (!is_new || !IsNew(folder)) {
      ASSIGN_OR_RETURN(const std::string current, CurrentVersion(folder));
      if (current != version) continue;
    }
    RETURN_IF_ERROR(opened);
    if (is_new) RETURN_IF_ERROR(WriteFileAtomic(folder / "CURRENT", StrCat(version, "\n")));
    if (writes) RETURN_IF_ERROR(FinishMakeCurrent(folder, version));
    return memory;
  }
}

absl::Status Memory::OpenVersion(const std::string& version) {
  // Everything that points into the old store goes first.
  {
    std::lock_guard<std::mutex> lock(mutex_);
    current_.reset();
  }
  text_index_.reset();
  cache_.reset();
  store_.reset();

  version_folder_ = folder_ / version;
  const bool writes = options_.mode != OpenMode::kRead;
  if (options_.mode == OpenMode::kCreate) {
    RETURN_IF_ERROR(CreateDirectories(version_folder_));
  }
  ASSIGN_OR_RETURN(store_, storage::DocumentStore::Open(version_folder_ / "store",
                                                        {.mode = options_.mode,
                                                         .salvage = options_.salvage,
                                                         .file_system = options_.file_system}));
  if (writes) RETURN_IF_ERROR(CreateDirectories(index_folder()));
  cache_ = std::make_unique<BlockCache>(store_.get(), options_.cache_bytes);
  absl::StatusOr<std::optional<storage::StoreSettings>> settings = store_->Settings();
  if (options_.salvage && absl::IsDataLoss(settings.status())) settings.emplace();
  RETURN_IF_ERROR(settings.status());
  settings_ = *std::move(settings);
  if (writes && !options_.salvage) {
    RETURN_IF_ERROR(RemoveOrphanFiles(*store_, index_folder()).status());
  }
  RETURN_IF_ERROR(OpenTextIndex());
  absl::StatusOr<std::shared_ptr<const Generation>> generation = BuildGeneration();
  if (options_.salvage && absl::IsDataLoss(generation.status())) {
    generation = std::make_shared<const Generation>();
  }
  RETURN_IF_ERROR(generation.status());
  std::lock_guard<std::mutex> lock(mutex_);
  current_ = *std::move(generation);
  return absl::OkStatus();
}

fs::path Memory::TextIndexPath(uint64_t generation) const {
  return version_folder_ / StrCat("text-", generation, ".sqlite");
}

absl::Status Memory::OpenTextIndex() {
  using Mode = index::TextIndex::Mode;
  const bool writes = options_.mode != OpenMode::kRead;
  text_index_.reset();
  ASSIGN_OR_RETURN(const storage::Counters counters, store_->ReadCounters());
  text_generation_ = counters.generation;
  if (writes) {
    for (uint64_t old = 0; old < text_generation_; ++old) RemoveTextIndex(TextIndexPath(old));
    RemoveTextIndex(UnfinishedPath(text_index_path()));
  }
  const bool mends = writes && !options_.salvage;
  if (std::error_code error; mends && !fs::exists(text_index_path(), error)) {
    RETURN_IF_ERROR(MakeTextIndex(Progress()));
  }
  const Mode mode = writes ? Mode::kWrite : Mode::kRead;
  auto opened = index::TextIndex::Open(text_index_path(), mode);
  if (absl::IsDataLoss(opened.status()) && mends) {
    RETURN_IF_ERROR(MakeTextIndex(Progress()));
    opened = index::TextIndex::Open(text_index_path(), mode);
  }
  text_index_status_ = opened.status();
  if (opened.ok()) {
    text_index_ = *std::move(opened);
    // What a process that was ended left undone.
    if (mends) return FillTextIndex(text_index_.get(), Progress());
    return absl::OkStatus();
  }
  // Derived data: a reader does without it until a writer has made it again.
  if (!writes || (options_.salvage && absl::IsDataLoss(opened.status()))) return absl::OkStatus();
  return opened.status();
}

absl::Status Memory::CheckModel(const model::Transformer& model) const {
  if (!settings_) return absl::OkStatus();
  if (settings_->fingerprint != model.fingerprint()) {
    return absl::FailedPreconditionError(
        StrCat(folder_, ": was made by model ", settings_->fingerprint, " (", settings_->model,
               settings_->adapter.empty() ? "" : StrCat(" with adapter ", settings_->adapter),
               "), opened with ", model.fingerprint(),
               ": pass the first model, or convert it with `fovea rebuild --reencode`"));
  }
  if (settings_->entry_type == EntryType::kFloat32 &&
      model.memory_config().entry_type != EntryType::kFloat32) {
    return absl::FailedPreconditionError(
        StrCat(folder_, ": keeps entries in float32, the model's config.json now says mem_dtype ",
               EntryTypeName(model.memory_config().entry_type),
               ": put float32 back there, or convert the memory with `fovea rebuild --reencode`"));
  }
  return absl::OkStatus();
}

std::shared_ptr<const Generation> Memory::Current() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return current_;
}

absl::StatusOr<bool> Memory::Refresh() {
  if (options_.mode != OpenMode::kRead) return false;
  if (options_.version.empty()) {
    ASSIGN_OR_RETURN(const std::string version, CurrentVersion(folder_));
    if (folder_ / version != version_folder_) {
      // Beside this one, which is as good as before if it fails.
      ASSIGN_OR_RETURN(std::unique_ptr<Memory> next, Open(folder_, options_));
      TakeVersion(next.get());
      return true;
    }
  }
  ASSIGN_OR_RETURN(const bool changed, store_->Refresh());
  if (changed) is_behind_ = true;
  // A writer makes a missing one without changing anything else.
  const bool had_text_index = text_index_ != nullptr;
  if (!had_text_index) RETURN_IF_ERROR(OpenTextIndex());
  if (!is_behind_) return !had_text_index && text_index_ != nullptr;
  ASSIGN_OR_RETURN(settings_, store_->Settings());
  RETURN_IF_ERROR(Publish());
  is_behind_ = false;
  return true;
}

void Memory::TakeVersion(Memory* other) {
  {
    std::lock_guard<std::mutex> lock(mutex_);
    current_ = other->Current();
  }
  version_folder_ = std::move(other->version_folder_);
  text_index_ = std::move(other->text_index_);
  text_index_status_ = std::move(other->text_index_status_);
  text_generation_ = other->text_generation_;
  settings_ = std::move(other->settings_);
  cache_ = std::move(other->cache_);  // before the store that it reads from
  store_ = std::move(other->store_);
  is_behind_ = false;
}

absl::Status Memory::Publish() {
  ASSIGN_OR_RETURN(std::shared_ptr<const Generation> generation, BuildGeneration());
  if (generation->generation != text_generation_) RETURN_IF_ERROR(OpenTextIndex());
  std::lock_guard<std::mutex> lock(mutex_);
  current_ = std::move(generation);
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const Generation>> Memory::BuildGeneration(
    const IngestView& view) const {
  // The store is read in several walks. Where a commit comes between them, or a reader's view moves
  // on, they tell of different states.
  constexpr int kMaxAttempts = 20;
  for (int attempt = 1;; ++attempt) {
    ASSIGN_OR_RETURN(const storage::Counters counters, store_->ReadCounters());
    absl::StatusOr<std::shared_ptr<const Generation>> generation = ReadGeneration(counters, view);
    ASSIGN_OR_RETURN(const storage::Counters after, store_->ReadCounters());
    if (after.epoch == counters.epoch || attempt == kMaxAttempts) return generation;
  }
}

absl::StatusOr<std::shared_ptr<const Generation>> Memory::ReadGeneration(
    const storage::Counters& counters, const IngestView& view) const {
  const std::shared_ptr<const Generation> previous = Current();
  auto generation = std::make_shared<Generation>();
  generation->epoch = counters.epoch;
  generation->generation = counters.generation;
  generation->next_slot = counters.next_slot;

  std::map<storage::DocumentNumber, uint32_t> index_of;
  RETURN_IF_ERROR(store_->ForEachDocument([&](const storage::DocumentRecord& document) {
    const auto named_in = [&](const std::vector<storage::DocumentNumber>& numbers) {
      return std::find(numbers.begin(), numbers.end(), document.number) != numbers.end();
    };
    if (document.complete ? !named_in(view.without) : named_in(view.with)) {
      index_of[document.number] = static_cast<uint32_t>(generation->documents.size());
      generation->documents.push_back(document);
    }
    return absl::OkStatus();
  }));
  absl::flat_hash_set<Slot> stored;
  std::vector<uint64_t> n_windows(generation->documents.size());
  RETURN_IF_ERROR(store_->ForEachLink([&](const storage::WindowLink& link) {
    stored.insert(link.slot_begin);
    const auto document = index_of.find(link.document);
    if (document == index_of.end()) return absl::OkStatus();
    ++n_windows[document->second];
    LiveWindow& window = generation->windows.emplace_back(LiveWindow{
        link.slot_begin, link.n_tokens, document->second, link.byte_begin, link.ordinal});
    window.sinks = link.repeats;
    generation->n_tokens += link.n_tokens;
    return absl::OkStatus();
  }));
  // A part of a document must not pass for the whole, whatever became of the rest.
  for (size_t i = 0; i < n_windows.size(); ++i) {
    const storage::DocumentRecord& document = generation->documents[i];
    if (!document.complete || n_windows[i] == document.n_windows) continue;
    return absl::DataLossError(StrCat(folder_, ": document ", document.id, " (", document.source(),
                                      ") has ", n_windows[i], " windows, want ", document.n_windows,
                                      ": run `fovea verify --repair`"));
  }
  generation->n_windows_stored = stored.size();
  std::sort(generation->windows.begin(), generation->windows.end(),
            [](const LiveWindow& a, const LiveWindow& b) { return a.slot_begin < b.slot_begin; });

  ASSIGN_OR_RETURN(std::vector<storage::SegmentRecord> records, store_->Segments());
  for (storage::SegmentRecord& record : records) {
    if (record.generation != counters.generation) continue;
    std::shared_ptr<const Segment> segment;
    if (previous != nullptr) {
      for (const auto& known : previous->segments) {
        if (known->record.id == record.id && known->damage.empty()) segment = known;
      }
    }
    if (segment == nullptr) {
      segment = std::make_shared<const Segment>(OpenSegment(record, index_folder()));
    }
    generation->segments.push_back(std::move(segment));
  }
  std::sort(
      generation->segments.begin(), generation->segments.end(),
      [](const auto& a, const auto& b) { return a->record.slot_begin < b->record.slot_begin; });
  if (!generation->segments.empty()) {
    generation->sealed_end = generation->segments.back()->record.slot_end;
  }
  return generation;
}

absl::Status Memory::InitializeSettings(const storage::StoreSettings& settings) {
  storage::Mutation mutation;
  mutation.PutSettings(settings);
  RETURN_IF_ERROR(store_->Commit(std::move(mutation)));
  settings_ = settings;
  return absl::OkStatus();
}

absl::Status Memory::UpdateTextIndex(const Progress& progress) {
  if (text_index_ == nullptr) RETURN_IF_ERROR(OpenTextIndex());
  if (text_index_ == nullptr) {
    return absl::DataLossError(StrCat(text_index_path(), ": damaged: run `fovea verify --repair`"));
  }
  ASSIGN_OR_RETURN(const storage::Counters counters, store_->ReadCounters());
  ASSIGN_OR_RETURN(const uint64_t next_slot, text_index_->NextSlot());
  if (next_slot > counters.next_slot) return RebuildTextIndex(progress);  // of another store
  return FillTextIndex(text_index_.get(), progress);
}

absl::Status Memory::FillTextIndex(index::TextIndex* text_index, const Progress& progress) {
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

absl::Status Memory::RebuildTextIndex(const Progress& progress) {
  RETURN_IF_ERROR(MakeTextIndex(progress));
  return OpenTextIndex();
}

absl::Status Memory::MakeTextIndex(const Progress& progress) {
  text_index_.reset();
  const fs::path path = text_index_path();
  const fs::path unfinished = UnfinishedPath(path);
  RemoveTextIndex(unfinished);
  {
    ASSIGN_OR_RETURN(const std::unique_ptr<index::TextIndex> fresh,
                     index::TextIndex::Open(unfinished, index::TextIndex::Mode::kWrite));
    RETURN_IF_ERROR(FillTextIndex(fresh.get(), progress));
  }
  // Closing it has put everything into the one file.
  std::error_code error;
  if (fs::exists(fs::path(unfinished) += "-wal", error)) {
    return absl::ResourceExhaustedError(
        StrCat(unfinished, ": could not be finished; free some space and try again"));
  }
  // A new file under the name, but with the old one's WAL beside it, would be read with that.
  RemoveTextIndex(path);
  fs::rename(unfinished, path, error);
  if (error) return ErrnoToStatus(error.value(), "rename", unfinished);
  return absl::OkStatus();
}

absl::Status Memory::PrepareTextIndex(uint64_t generation, const Progress& progress) {
  const fs::path path = TextIndexPath(generation);
  constexpr auto kWrite = index::TextIndex::Mode::kWrite;
  auto opened = index::TextIndex::Open(path, kWrite);
  if (absl::IsDataLoss(opened.status())) {
    RemoveTextIndex(path);
    opened = index::TextIndex::Open(path, kWrite);
  }
  RETURN_IF_ERROR(opened.status());
  return FillTextIndex(opened->get(), progress);
}

absl::Status Memory::ReadText(const storage::DocumentRecord& document,
                              absl::FunctionRef<absl::Status(std::string_view)> visit) {
  ASSIGN_OR_RETURN(const std::vector<storage::WindowLink> links, store_->Links(document.number));
  for (const storage::WindowLink& link : links) {
    ASSIGN_OR_RETURN(const storage::WindowRecord window, store_->GetWindow(link.slot_begin));
    RETURN_IF_ERROR(visit(window.text));
  }
  return absl::OkStatus();
}

absl::Status Memory::DeleteDocuments(const std::vector<storage::DocumentNumber>& numbers) {
  return Change(numbers, {});
}

absl::StatusOr<std::vector<storage::DocumentRecord>> Memory::RemoveSources(
    absl::FunctionRef<bool(const storage::DocumentRecord&, const storage::SourceReference&)> goes) {
  std::vector<storage::DocumentRecord> deleted;
  std::vector<storage::DocumentNumber> deleted_numbers;
  std::vector<storage::DocumentRecord> updated;
  for (const storage::DocumentRecord& document : Current()->documents) {
    storage::DocumentRecord left = document;
    std::erase_if(left.sources, [&](const auto& source) { return goes(document, source); });
    if (left.sources.empty()) {
      deleted.push_back(document);
      deleted_numbers.push_back(document.number);
    } else if (left.sources.size() < document.sources.size()) {
      updated.push_back(std::move(left));
    }
  }
  RETURN_IF_ERROR(Change(deleted_numbers, updated));
  return deleted;
}

absl::Status Memory::Change(const std::vector<storage::DocumentNumber>& deleted,
                            const std::vector<storage::DocumentRecord>& updated) {
  const absl::flat_hash_set<storage::DocumentNumber> doomed(deleted.begin(), deleted.end());
  absl::flat_hash_set<Slot> freed;
  absl::flat_hash_set<Slot> kept;  // windows that another version of the document links too
  RETURN_IF_ERROR(store_->ForEachLink([&](const storage::WindowLink& link) {
    (doomed.contains(link.document) ? freed : kept).insert(link.slot_begin);
    return absl::OkStatus();
  }));
  storage::Mutation mutation;
  for (const storage::DocumentRecord& document : updated) mutation.PutDocument(document);
  for (storage::DocumentNumber number : doomed) mutation.DeleteDocument(number);
  for (Slot slot : freed) {
    if (!kept.contains(slot)) mutation.DeleteWindow(slot);
  }
  RETURN_IF_ERROR(store_->Commit(std::move(mutation)));
  return Publish();
}

absl::Status Memory::EraseDeletedTexts(const Progress& progress) {
  RETURN_IF_ERROR(store_->CompactTexts());
  return RebuildTextIndex(progress);
}

absl::Status Memory::CompactIfWorthwhile(double min_deleted_share) {
  if (!settings_) return absl::OkStatus();
  ASSIGN_OR_RETURN(const storage::BytesByKind bytes, store_->SizeByKind());
  const std::shared_ptr<const Generation> generation = Current();
  // Keys and values of a token: what the blocks of live tokens need.
  const uint64_t token_bytes = uint64_t{2} * EntryBytes(settings_->entry_type) *
                               settings_->n_mem_layers * settings_->n_kv_heads *
                               settings_->head_dim;
  const uint64_t live_bytes = generation->n_tokens * token_bytes;
  constexpr uint64_t kNotWorthIt = 8 << 20;  // a few megabytes of write buffers and samples
  if (bytes.blocks <= live_bytes + kNotWorthIt) return absl::OkStatus();
  const auto excess = static_cast<double>(bytes.blocks - live_bytes);
  if (excess <= min_deleted_share * static_cast<double>(bytes.blocks)) return absl::OkStatus();
  return store_->Compact();
}

absl::StatusOr<Stats> ComputeStats(Memory& memory) {
  const std::shared_ptr<const Generation> generation = memory.Current();
  Stats stats;
  ASSIGN_OR_RETURN(stats.format_version, memory.store().FormatVersion());
  stats.documents = static_cast<int64_t>(generation->documents.size());
  std::map<std::string, int64_t> collections;
  for (const storage::DocumentRecord& document : generation->documents) {
    for (const std::string& name : document.collections()) ++collections[name];
  }
  stats.collections.assign(collections.begin(), collections.end());
  stats.tokens = generation->n_tokens;
  stats.slots = generation->next_slot;
  stats.deleted_slots = generation->next_slot - generation->n_tokens;
  ASSIGN_OR_RETURN(const storage::BytesByKind bytes, memory.store().SizeByKind());
  stats.text_bytes = bytes.text;
  stats.block_bytes = bytes.blocks;
  stats.index_bytes = FileBytes(memory.text_index_path());
  uint64_t growing = generation->n_tokens;
  for (const auto& segment : generation->segments) {
    uint64_t tokens = 0;
    for (const LiveWindow& window : generation->windows) {
      if (window.slot_begin >= segment->record.slot_begin &&
          window.slot_begin < segment->record.slot_end) {
        tokens += window.n_tokens;
      }
    }
    growing -= tokens;
    for (const storage::SegmentFile& file : segment->record.files) {
      stats.index_bytes += file.size_bytes;
    }
    stats.segments.push_back(
        {tokens, segment->record.spec,
         segment->damage.empty() ? "sealed" : StrCat("damaged: ", segment->damage),
         segment->record.needle_recall, segment->record.n_candidates});
  }
  if (growing > 0) stats.segments.push_back({growing, "exact", "growing", {}, 0});
  return stats;
}

}  // namespace fovea::memory
