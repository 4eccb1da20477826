#include "memory/memory.h"

#include <algorithm>
#include <system_error>

#include "absl/container/flat_hash_set.h"
#include "base/file.h"
#include "memory/versions.h"

namespace fovea::memory {
namespace {

namespace fs = std::filesystem;
using storage::OpenMode;

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
  ASSIGN_OR_RETURN(Opened opened, options.version.empty() ? memory->OpenCurrent()
                                                          : memory->OpenVersion(options.version));
  memory->Take(std::move(opened));
  return memory;
}

absl::StatusOr<Memory::Opened> Memory::OpenCurrent() const {
  const bool writes = options_.mode != OpenMode::kRead;
  for (;;) {
    const bool is_new = options_.mode == OpenMode::kCreate && IsNew(folder_);
    std::string version = kFirstVersion;
    if (is_new) {
      RETURN_IF_ERROR(CheckUsableForCreation(folder_));
    } else {
      ASSIGN_OR_RETURN(version, CurrentVersion(folder_));
    }
    absl::StatusOr<Opened> opened = OpenVersion(version);
    // Another process may have put the next version in the place of this one after CURRENT was
    // read. Then this one is being removed: a reader may find it half gone, and what a writer
    // stored in it would be lost.
    if (!is_new || !IsNew(folder_)) {
      ASSIGN_OR_RETURN(const std::string current, CurrentVersion(folder_));
      if (current != version) continue;
    }
    RETURN_IF_ERROR(opened.status());
    if (is_new) RETURN_IF_ERROR(WriteFileAtomic(folder_ / "CURRENT", StrCat(version, "\n")));
    if (writes) RETURN_IF_ERROR(FinishMakeCurrent(folder_, version));
    return opened;
  }
}

absl::StatusOr<Memory::Opened> Memory::OpenVersion(const std::string& version) const {
  ASSIGN_OR_RETURN(std::shared_ptr<OpenedVersion> opened,
                   OpenedVersion::Open(folder_, version, options_));
  absl::StatusOr<std::shared_ptr<const Generation>> generation = BuildGeneration(opened, nullptr);
  if (options_.salvage && absl::IsDataLoss(generation.status())) {
    auto empty = std::make_shared<Generation>();
    empty->source = opened;
    ASSIGN_OR_RETURN(empty->settings, opened->ReadSettings());
    generation = std::move(empty);
  }
  RETURN_IF_ERROR(generation.status());
  return Opened{std::move(opened), *std::move(generation)};
}

void Memory::Take(Opened opened) {
  version_ = std::move(opened.version);
  settings_ = opened.generation->settings;
  is_behind_ = false;
  const std::lock_guard lock(mutex_);
  current_ = std::move(opened.generation);
}

absl::Status Memory::CheckModel(const model::Transformer& model) const {
  return memory::CheckModel(*Current(), model);
}

std::shared_ptr<const Generation> Memory::Current() const {
  std::lock_guard<std::mutex> lock(mutex_);
  return current_;
}

absl::StatusOr<std::shared_ptr<const Generation>> Memory::View(const IngestView& view) const {
  const std::shared_ptr<const Generation> current = Current();
  return BuildGeneration(current->source, current.get(), view);
}

absl::StatusOr<bool> Memory::Refresh() {
  if (options_.mode != OpenMode::kRead) return false;
  const std::lock_guard change(change_mutex_);
  if (options_.version.empty()) {
    ASSIGN_OR_RETURN(const std::string version, CurrentVersion(folder_));
    if (folder_ / version != version_->folder()) {
      // Beside this one, which is as good as before if it fails.
      ASSIGN_OR_RETURN(Opened next, OpenCurrent());
      Take(std::move(next));
      return true;
    }
  }
  ASSIGN_OR_RETURN(const bool changed, store().Refresh());
  if (changed) is_behind_ = true;
  // A writer makes a missing one without changing anything else.
  const bool had_text_index = text_index() != nullptr;
  if (!had_text_index) RETURN_IF_ERROR(version_->text_index().Open());
  if (!is_behind_) return !had_text_index && text_index() != nullptr;
  RETURN_IF_ERROR(PublishLocked());
  is_behind_ = false;
  return true;
}

absl::Status Memory::Publish() {
  const std::lock_guard change(change_mutex_);
  return PublishLocked();
}

absl::Status Memory::PublishLocked() {
  ASSIGN_OR_RETURN(std::shared_ptr<const Generation> generation, View({}));
  TextIndexFile& text_index = version_->text_index();
  if (generation->generation != text_index.generation()) RETURN_IF_ERROR(text_index.Open());
  settings_ = generation->settings;
  std::vector<Slot> slots;
  slots.reserve(generation->windows.size());
  for (const LiveWindow& window : generation->windows) slots.push_back(window.slot_begin);
  version_->cache().KeepOnly(slots);
  version_->cache().ForgetRemovedFiles();
  const std::lock_guard lock(mutex_);
  current_ = std::move(generation);
  return absl::OkStatus();
}

absl::Status Memory::InitializeSettings(const storage::StoreSettings& settings) {
  storage::Mutation mutation;
  mutation.PutSettings(settings);
  RETURN_IF_ERROR(store().Commit(std::move(mutation)));
  return Publish();
}

absl::Status Memory::UpdateTextIndex(const Progress& progress) {
  return version_->text_index().Update(progress);
}

absl::Status Memory::RebuildTextIndex(const Progress& progress) {
  return version_->text_index().Rebuild(progress);
}

absl::Status Memory::PrepareTextIndex(uint64_t generation, const Progress& progress) {
  return version_->text_index().Prepare(generation, progress);
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

Memory::Removed Memory::RemoveForGood(
    absl::FunctionRef<bool(const storage::DocumentRecord&, const storage::SourceReference&)> goes,
    const Progress& progress) {
  auto gone = RemoveSources(goes);
  if (!gone.ok()) return {.gone = {}, .status = gone.status()};
  Removed removed{.gone = *std::move(gone), .status = {}};
  if (!removed.gone.empty()) {
    removed.status = Annotate(EraseDeletedTexts(progress),
                              "deleted, but the text still lies in files of the memory; with some "
                              "space free, a rebuild (`fovea rebuild`) removes it");
  }
  if (removed.status.ok()) {
    removed.status = Annotate(CompactIfWorthwhile(), "deleted, but the space is not free yet");
  }
  return removed;
}

absl::Status Memory::Change(const std::vector<storage::DocumentNumber>& deleted,
                            const std::vector<storage::DocumentRecord>& updated) {
  const absl::flat_hash_set<storage::DocumentNumber> doomed(deleted.begin(), deleted.end());
  absl::flat_hash_set<Slot> freed;
  absl::flat_hash_set<Slot> kept;  // windows that another version of the document links too
  RETURN_IF_ERROR(store().ForEachLink([&](const storage::WindowLink& link) {
    (doomed.contains(link.document) ? freed : kept).insert(link.slot_begin);
    return absl::OkStatus();
  }));
  storage::Mutation mutation;
  for (const storage::DocumentRecord& document : updated) mutation.PutDocument(document);
  for (storage::DocumentNumber number : doomed) mutation.DeleteDocument(number);
  for (Slot slot : freed) {
    if (!kept.contains(slot)) mutation.DeleteWindow(slot);
  }
  RETURN_IF_ERROR(store().Commit(std::move(mutation)));
  return Publish();
}

absl::Status Memory::EraseDeletedTexts(const Progress& progress) {
  RETURN_IF_ERROR(store().CompactTexts());
  return RebuildTextIndex(progress);
}

absl::Status Memory::CompactIfWorthwhile(double min_deleted_share) {
  if (!settings_) return absl::OkStatus();
  ASSIGN_OR_RETURN(const storage::BytesByKind bytes, store().SizeByKind());
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
  RETURN_IF_ERROR(store().Compact());
  version_->cache().ForgetRemovedFiles();
  return absl::OkStatus();
}

}  // namespace fovea::memory
