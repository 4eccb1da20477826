#include "storage/store_view.h"

#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <optional>
#include <set>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "base/file.h"
#include "storage/commit_witness.h"
#include "storage/find_writer.h"
#include "storage/keys.h"
#include "storage/mapped_blobs.h"
#include "storage/record_codec.h"
#include "storage/rocksdb_options.h"
#include "storage/rocksdb_status.h"

namespace fovea::storage {
namespace {

// How often a reader starts anew because the writer wrote table files meanwhile. Writers do so in
// bursts with seconds between; an attempt takes milliseconds, and the pauses grow to a total of
// several seconds.
constexpr int kMaxOpenAttempts = 60;
constexpr std::chrono::milliseconds kShortestPause(2);
constexpr std::chrono::milliseconds kLongestPause(150);
// How often after a failure though the writer moved nothing meanwhile.
constexpr int kMaxQuietAttempts = 4;

// Where CURRENT names no manifest that exists, it gets the newest one: the number in a manifest's
// name grows. Needs the store's lock no more than the removal of what a crash left behind.
absl::Status RestoreCurrent(const std::filesystem::path& folder) {
  constexpr std::string_view kPrefix = "MANIFEST-";
  const absl::StatusOr<std::string> current = ReadFile(folder / "CURRENT", 64);
  std::error_code error;
  if (current.ok() && current->starts_with(kPrefix) && current->ends_with('\n') &&
      std::filesystem::exists(folder / current->substr(0, current->size() - 1), error)) {
    return absl::OkStatus();
  }
  std::string newest;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    // Numbers have six digits, and more when they need them.
    if (std::pair(name.size(), name) > std::pair(newest.size(), newest)) newest = name;
  }
  if (newest.empty()) return absl::OkStatus();  // the opening says what is wrong
  return WriteFileAtomic(folder / "CURRENT", StrCat(newest, "\n"));
}

// All files open, so that tables which the writer removes stay readable; where there are more
// than this process may open, RocksDB's usual cache of open files.
int ReaderMaxOpenFiles(const StoreContext& context, int fallback) {
  std::vector<std::string> names;
  rlimit limit{};
  if (!context.file_system->GetChildren(context.folder, {}, &names, nullptr).ok() ||
      getrlimit(RLIMIT_NOFILE, &limit) != 0) {
    return fallback;
  }
  // Twice what is there now: the store may grow, and the program has files of its own.
  return names.size() * 2 + 128 < limit.rlim_cur ? -1 : fallback;
}

}  // namespace

StoreContext::StoreContext(std::filesystem::path folder_in, StoreOptions options_in)
    : folder(std::move(folder_in)),
      options(std::move(options_in)),
      file_system(options.file_system ? options.file_system
                                      : MapBlobFiles(rocksdb::FileSystem::Default())),
      env(rocksdb::NewCompositeEnv(file_system)),
      block_cache(rocksdb::NewLRUCache(options.block_cache_bytes)) {}

StoreView::~StoreView() {
  if (db_ == nullptr) return;
  for (rocksdb::ColumnFamilyHandle* handle : handles_) {
    db_->DestroyColumnFamilyHandle(handle).PermitUncheckedError();
  }
  db_->Close().PermitUncheckedError();
}

rocksdb::Status StoreView::OpenDatabase(rocksdb::WALRecoveryMode mode, bool read_only) {
  rocksdb::DBOptions options = DatabaseOptions(context_->options, context_->env.get());
  options.wal_recovery_mode = mode;
  std::vector<rocksdb::ColumnFamilyDescriptor> families = FamilyDescriptors(context_->block_cache);
  rocksdb::DB* db = nullptr;
  rocksdb::Status status;
  if (read_only) {
    options.create_if_missing = false;
    options.create_missing_column_families = false;
    options.max_open_files = ReaderMaxOpenFiles(*context_, options.max_open_files);
    status = rocksdb::DB::OpenForReadOnly(options, context_->folder, families, &handles_, &db);
  } else {
    status = rocksdb::DB::Open(options, context_->folder, families, &handles_, &db);
  }
  if (!status.ok()) return status;
  db_.reset(db);
  std::copy_n(handles_.begin(), families_.size(), families_.begin());
  return status;
}

absl::StatusOr<StoreView::ManifestState> StoreView::ReadManifestState(const StoreContext& context) {
  const std::string current = context.folder / "CURRENT";
  std::string name;
  rocksdb::IOStatus status = rocksdb::ReadFileToString(context.file_system.get(), current, &name);
  if (!status.ok()) return FromRocksDb(status, StrCat("reading ", current));
  while (!name.empty() && name.back() == '\n') name.pop_back();
  ManifestState state;
  status = context.file_system->GetFileSize(context.folder / name, {}, &state.size_bytes, nullptr);
  // A new manifest took the place of this one between the two calls; the next look finds it.
  if (!status.ok() && !IsMissingFile(status)) {
    return FromRocksDb(status, StrCat("reading ", context.folder / name));
  }
  state.name = std::move(name);
  return state;
}

absl::StatusOr<std::set<std::string>> StoreView::ListLogs(const StoreContext& context) {
  std::vector<std::string> names;
  const rocksdb::IOStatus status =
      context.file_system->GetChildren(context.folder, {}, &names, nullptr);
  if (!status.ok()) return FromRocksDb(status, StrCat("listing ", context.folder));
  std::erase_if(names, [](const std::string& name) { return !name.ends_with(".log"); });
  return std::set<std::string>(names.begin(), names.end());
}

absl::StatusOr<Counters> StoreView::ReadCounters() const {
  rocksdb::PinnableSlice value;
  const rocksdb::Status status =
      db_->Get({}, family(ColumnFamily::kMeta),
               rocksdb::Slice(kCountersKey.data(), kCountersKey.size()), &value);
  if (status.IsNotFound()) return Counters{};
  const std::string doing = StrCat(context_->folder, ": reading the counters");
  if (IsMissingFile(status)) {
    return absl::DataLossError(StrCat(doing, ": a file is missing: ", status.ToString()));
  }
  if (!status.ok()) return FromRocksDb(status, doing);
  return DecodeCounters({value.data(), value.size()});
}

absl::Status StoreView::CheckWitness() const {
  const std::optional<uint64_t> witness = ReadWitness(*context_->file_system, context_->folder);
  if (!witness) return absl::OkStatus();
  const absl::StatusOr<Counters> read = ReadCounters();
  if (!read.ok()) return Annotate(read.status(), context_->folder.native());
  const Counters& counters = *read;
  if (counters.epoch >= *witness) return absl::OkStatus();
  return absl::DataLossError(StrCat(
      context_->folder, ": commits ", counters.epoch + 1, " to ", *witness,
      ", which were reported as stored, are missing: the log or the manifest is damaged. Run "
      "`fovea verify --repair` to go on with the commits before them, or restore a copy (if you "
      "put an older copy back on purpose, remove ",
      context_->folder / kWitnessFileName, ")"));
}

absl::Status StoreView::OpenFailure(const rocksdb::Status& status) const {
  const std::filesystem::path& folder = context_->folder;
  const std::string reason = status.ToString();
  if (reason.find("lock hold by current process") != std::string::npos) {
    return absl::UnavailableError(
        StrCat("another part of this process is writing to ", folder, "; close it first"));
  }
  if (reason.find("While lock file") != std::string::npos) {
    const std::optional<pid_t> holder = FindWriter(folder);
    return absl::UnavailableError(StrCat("another process",
                                         holder ? StrCat(" (", *holder, ")") : std::string(),
                                         " is writing to ", folder, "; wait for it or stop it"));
  }
  const absl::Status failure = FromRocksDb(status, StrCat("opening the store ", folder));
  if (status.IsCorruption()) {
    return absl::DataLossError(
        StrCat(failure.message(),
               "; run `fovea verify --repair` to save what can be read, or restore a copy"));
  }
  return failure;
}

bool StoreView::HadCommits(const StoreContext& context) {
  if (ReadWitness(*context.file_system, context.folder).value_or(0) > 0) return true;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(context.folder, error)) {
    const std::filesystem::path extension = entry.path().extension();
    if (extension == ".sst" || extension == ".blob") return true;
  }
  return false;
}

absl::Status StoreView::LostManifest(const StoreContext& context) {
  return absl::DataLossError(
      StrCat(context.folder, ": its list of files (CURRENT, and the MANIFEST that it names) is ",
             "damaged; try `fovea verify --repair`, which can put CURRENT right; else restore a ",
             "copy, or ingest the documents into a new memory"));
}

absl::StatusOr<std::shared_ptr<StoreView>> StoreView::OpenWriter(
    std::shared_ptr<const StoreContext> context) {
  using Mode = rocksdb::WALRecoveryMode;
  std::shared_ptr<StoreView> view(new StoreView(context));
  if (context->options.salvage) {
    RETURN_IF_ERROR(RestoreCurrent(context->folder));
    {
      // A writer removes the files that the manifest does not name: not where it names none of
      // those that there are.
      StoreView peek(context);
      rocksdb::PinnableSlice value;
      if (HadCommits(*context) && peek.OpenDatabase(Mode::kPointInTimeRecovery, true).ok() &&
          peek.db()
              .Get({}, peek.family(ColumnFamily::kMeta),
                   rocksdb::Slice(kCountersKey.data(), kCountersKey.size()), &value)
              .IsNotFound()) {
        return LostManifest(*context);
      }
    }
    const rocksdb::Status status = view->OpenDatabase(Mode::kPointInTimeRecovery, false);
    if (!status.ok()) return view->OpenFailure(status);
    view->missing_commits_ = view->CheckWitness();
    return view;
  }
  rocksdb::Status status = view->OpenDatabase(Mode::kTolerateCorruptedTailRecords, false);
  if (status.IsCorruption()) {
    // The log is damaged in another way than by missing bytes at its end. After a power cut a
    // commit that was not reported may look like this (its later sectors on disk, its earlier ones
    // not). If the log is whole up to the last commit that was reported, only such a commit is
    // lost; opened read-only first, because opening for writing cuts the rest off.
    std::shared_ptr<StoreView> peek(new StoreView(context));
    if (ReadWitness(*context->file_system, context->folder) &&
        peek->OpenDatabase(Mode::kPointInTimeRecovery, /*read_only=*/true).ok()) {
      RETURN_IF_ERROR(peek->CheckWitness());
      peek.reset();
      view.reset(new StoreView(context));
      status = view->OpenDatabase(Mode::kPointInTimeRecovery, false);
    }
  }
  if (!status.ok()) return view->OpenFailure(status);
  RETURN_IF_ERROR(view->CheckWitness());
  return view;
}

absl::StatusOr<std::shared_ptr<StoreView>> StoreView::OpenReader(
    std::shared_ptr<const StoreContext> context) {
  using Mode = rocksdb::WALRecoveryMode;
  absl::Status failure;
  int n_quiet_attempts = 0;
  for (int attempt = 0; attempt < kMaxOpenAttempts; ++attempt) {
    if (attempt > 0) std::this_thread::sleep_for(std::min(kShortestPause * attempt, kLongestPause));
    // RocksDB reads the manifest and then the logs. Did the writer write table files and remove
    // their log between the two, it has read neither: a hole. Table files are written when a new
    // log is begun: where the logs are the same ones after as before, there is none.
    ASSIGN_OR_RETURN(const ManifestState manifest, ReadManifestState(*context));
    ASSIGN_OR_RETURN(const std::set<std::string> logs, ListLogs(*context));
    std::shared_ptr<StoreView> view(new StoreView(context));
    const Mode mode =
        context->options.salvage ? Mode::kPointInTimeRecovery : Mode::kTolerateCorruptedTailRecords;
    rocksdb::Status status = view->OpenDatabase(mode, /*read_only=*/true);
    if (status.IsCorruption() && ReadWitness(*context->file_system, context->folder)) {
      // As in OpenWriter: a commit that was not reported may have left more than a torn tail.
      std::shared_ptr<StoreView> prefix(new StoreView(context));
      if (prefix->OpenDatabase(Mode::kPointInTimeRecovery, /*read_only=*/true).ok()) {
        view = std::move(prefix);
        status = rocksdb::Status::OK();
      }
    }
    ASSIGN_OR_RETURN(const std::set<std::string> logs_after, ListLogs(*context));
    ASSIGN_OR_RETURN(const ManifestState manifest_after, ReadManifestState(*context));
    if (logs != logs_after) {
      failure = absl::UnavailableError(
          StrCat("the writer of ", context->folder, " works too fast to follow; try again"));
      continue;
    }
    if (status.ok()) {
      view->manifest_ = manifest;
      failure = view->CheckWitness();
      if (failure.ok()) return view;
    } else {
      failure = view->OpenFailure(status);
    }
    // The writer may have removed a file between its listing and its opening, or have committed
    // between the reading of the log and that of the witness. Either is gone at the next look.
    const bool may_pass = status.ok() ? absl::IsDataLoss(failure) : IsMissingFile(status);
    if (!may_pass) return failure;
    if (manifest != manifest_after || ++n_quiet_attempts < kMaxQuietAttempts) continue;
    if (!status.ok() || !context->options.salvage) return failure;
    view->missing_commits_ = failure;
    return view;
  }
  return failure;
}

bool StoreView::IsCurrent() const {
  const absl::StatusOr<ManifestState> manifest = ReadManifestState(*context_);
  if (!manifest.ok() || *manifest != manifest_) return false;
  const std::optional<uint64_t> witness = ReadWitness(*context_->file_system, context_->folder);
  const absl::StatusOr<Counters> counters = ReadCounters();
  return witness && counters.ok() && counters->epoch == *witness;
}

absl::StatusOr<std::string> StoreView::PeekFormatRecord(const StoreContext& context) {
  rocksdb::DBOptions options = DatabaseOptions(context.options, context.env.get());
  options.create_if_missing = false;
  options.create_missing_column_families = false;
  options.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  std::vector<rocksdb::ColumnFamilyDescriptor> families = FamilyDescriptors(context.block_cache);
  std::erase_if(families, [](const rocksdb::ColumnFamilyDescriptor& family) {
    return family.name != rocksdb::kDefaultColumnFamilyName &&
           family.name != kColumnFamilyNames[static_cast<size_t>(ColumnFamily::kMeta)];
  });
  StoreView view(nullptr);
  rocksdb::DB* db = nullptr;
  rocksdb::Status status =
      rocksdb::DB::OpenForReadOnly(options, context.folder, families, &view.handles_, &db);
  std::string value;
  if (status.ok()) {
    view.db_.reset(db);
    status =
        db->Get({}, view.handles_[0], rocksdb::Slice(kFormatKey.data(), kFormatKey.size()), &value);
  }
  if (!status.ok()) return FromRocksDb(status, StrCat("opening the store ", context.folder));
  return value;
}

}  // namespace fovea::storage
