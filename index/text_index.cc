#include "index/text_index.h"

#include <sys/stat.h>

#include <algorithm>
#include <limits>
#include <mutex>
#include <system_error>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "base/file.h"
#include "base/hash.h"
#include "index/sqlite.h"
#include "index/text_query.h"
#include "index/text_words.h"

namespace fovea::index {
namespace {

constexpr int64_t kApplicationId = 0x666f7674;  // "fovt"
// PRAGMA user_version: what the file has beside the words, and how those are cut and folded.
// Earlier versions had none of it, then checksums alone.
constexpr int64_t kWindowHashesVersion = 0x20000;
constexpr int64_t kNewestVersion = kWindowHashesVersion | kChecksummedVersion | kWordsVersion;
constexpr int64_t kReadVersions[] = {kNewestVersion, kChecksummedVersion | kWordsVersion,
                                     kWordsVersion};
constexpr char kCreatePassages[] =
    "CREATE VIRTUAL TABLE passages USING fts5(text, content='', tokenize=\"porter unicode61 "
    "remove_diacritics 2 categories 'L* M* N* Co'\")";
// FTS5 fills its pages up to this size, by default to 4,050 bytes: with the bytes that are reserved
// for checksums a row of that size would need a second page of the database.
constexpr char kSetPageSize[] = "INSERT INTO passages(passages, rank) VALUES('pgsz', 4040)";
constexpr char kCreateState[] =
    "CREATE TABLE state(id INTEGER PRIMARY KEY CHECK (id = 0), next_slot INTEGER NOT NULL)";
constexpr char kCreateWindows[] =
    "CREATE TABLE windows(slot_begin INTEGER PRIMARY KEY, slot_end INTEGER NOT NULL, "
    "hash_high INTEGER NOT NULL, hash_low INTEGER NOT NULL)";

// Another process may replace a file while it is copied or read; more often than this in a row
// means that it is being written all the time.
constexpr int kMaxReopens = 5;

std::filesystem::path WalPath(const std::filesystem::path& path) {
  std::filesystem::path wal = path;
  wal += "-wal";
  return wal;
}

// Which files a reader without SQLite's locks has looked at.
struct FileState {
  struct One {
    bool exists = false;
    uint64_t inode = 0;
    int64_t size_bytes = 0;
    int64_t modified_s = 0;
    int64_t modified_ns = 0;
    bool operator==(const One&) const = default;
  };
  One database;
  One wal;
  bool operator==(const FileState&) const = default;

  static FileState Of(const std::filesystem::path& path) {
    return {Look(path), Look(WalPath(path))};
  }
  static One Look(const std::filesystem::path& path) {
    struct stat info;
    if (stat(path.c_str(), &info) != 0) return {};
    return {true, info.st_ino, info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
  }
};

// A folder that goes away with its content.
class TemporaryFolder {
 public:
  static absl::StatusOr<std::unique_ptr<TemporaryFolder>> Make() {
    std::error_code error;
    const std::filesystem::path parent = std::filesystem::temp_directory_path(error);
    if (error) return ErrnoToStatus(error.value(), "find", "the folder for temporary files");
    std::string name = (parent / "fovea-text-XXXXXX").string();
    if (mkdtemp(name.data()) == nullptr) return ErrnoToStatus(errno, "create folder", name);
    auto folder = std::make_unique<TemporaryFolder>();
    folder->path_ = name;
    return folder;
  }
  TemporaryFolder() = default;
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

absl::Status CopyFile(const std::filesystem::path& from, const std::filesystem::path& to) {
  std::error_code error;
  std::filesystem::copy_file(from, to, error);
  if (error) return ErrnoToStatus(error.value(), StrCat("copy to ", to), from);
  return absl::OkStatus();
}

// OK for a text index of this format, NotFound for an empty database, DataLoss for anything else.
absl::Status CheckFormat(const SqliteDatabase& db, const std::filesystem::path& path) {
  // One view for all queries: a writer may be making the tables just now.
  RETURN_IF_ERROR(db.Execute("BEGIN"));
  const absl::Cleanup end = [&db] { (void)db.Execute("ROLLBACK"); };
  ASSIGN_OR_RETURN(const int64_t application_id, db.QueryInt64("PRAGMA application_id"));
  ASSIGN_OR_RETURN(const int64_t version, db.QueryInt64("PRAGMA user_version"));
  ASSIGN_OR_RETURN(const int64_t n_objects, db.QueryInt64("SELECT count(*) FROM sqlite_schema"));
  if (application_id == 0 && version == 0 && n_objects == 0) {
    return absl::NotFoundError(StrCat(path, ": an empty file, nothing was indexed yet"));
  }
  const bool is_known = std::ranges::find(kReadVersions, version) != std::end(kReadVersions) &&
                        db.has_checksums() == ((version & kChecksummedVersion) != 0);
  if (application_id != kApplicationId || !is_known) {
    return absl::DataLossError(StrCat(path, ": application id ", application_id, ", version ",
                                      version, ", want a text index of fovea (", kApplicationId,
                                      "), version ", kNewestVersion));
  }
  ASSIGN_OR_RETURN(SqliteStatement schema,
                   db.Prepare("SELECT count(*) FROM sqlite_schema WHERE "
                              "(name = 'passages' AND sql = ?1) OR (name = 'state' AND sql = ?2) "
                              "OR (name = 'windows' AND sql = ?3)"));
  RETURN_IF_ERROR(schema.BindText(1, kCreatePassages));
  RETURN_IF_ERROR(schema.BindText(2, kCreateState));
  RETURN_IF_ERROR(schema.BindText(3, kCreateWindows));
  RETURN_IF_ERROR(schema.Step().status());
  const int64_t n_tables = (version & kWindowHashesVersion) != 0 ? 3 : 2;
  ASSIGN_OR_RETURN(
      const int64_t n_strange,
      db.QueryInt64("SELECT count(*) FROM sqlite_schema WHERE type IN ('trigger', 'view')"));
  if (schema.Int64(0) != n_tables || n_strange != 0) {
    return absl::DataLossError(StrCat(path, ": its tables are not those of a text index"));
  }
  return absl::OkStatus();
}

absl::StatusOr<bool> HasWindowHashes(const SqliteDatabase& db) {
  ASSIGN_OR_RETURN(const int64_t version, db.QueryInt64("PRAGMA user_version"));
  return (version & kWindowHashesVersion) != 0;
}

// Of what is indexed of a window.
Hash128 HashOf(const WindowText& window) {
  FastHasher hasher;
  for (const PassageText& passage : window.passages) {
    const uint64_t head[] = {passage.slot_begin - window.slot_begin, passage.text.size()};
    hasher.Update(AsBytes(std::span<const uint64_t>(head)));
    hasher.Update(passage.text);
  }
  return hasher.Finish();
}

// Both integrity checks. Needs a database that may be written to, though nothing is written.
absl::Status CheckIntegrity(const SqliteDatabase& db, const std::filesystem::path& path) {
  ASSIGN_OR_RETURN(const std::string report, db.QueryText("PRAGMA integrity_check(1)"));
  if (report != "ok") return absl::DataLossError(StrCat(path, ": ", report));
  RETURN_IF_ERROR(db.Execute("INSERT INTO passages(passages) VALUES('integrity-check')"));
  ASSIGN_OR_RETURN(const int64_t next_slot, db.QueryInt64("SELECT next_slot FROM state"));
  ASSIGN_OR_RETURN(const int64_t last,
                   db.QueryInt64("SELECT ifnull(max(id), -1) FROM passages_docsize"));
  if (last >= next_slot) {
    return absl::DataLossError(StrCat(path, ": holds a passage at slot ", last,
                                      ", but says that it ends before slot ", next_slot));
  }
  ASSIGN_OR_RETURN(const bool has_hashes, HasWindowHashes(db));
  if (!has_hashes) return absl::OkStatus();
  ASSIGN_OR_RETURN(const int64_t end,
                   db.QueryInt64("SELECT ifnull(max(slot_end), 0) FROM windows"));
  if (end > next_slot) {
    return absl::DataLossError(StrCat(path, ": holds a window that ends at slot ", end,
                                      ", but says that it ends before slot ", next_slot));
  }
  return absl::OkStatus();
}

class SqliteTextIndex final : public TextIndex {
 public:
  SqliteTextIndex(std::filesystem::path path, Mode mode) : path_(std::move(path)), mode_(mode) {}

  absl::Status OpenForWriting();
  absl::Status OpenForReading();

  absl::Status Add(std::span<const WindowText> windows, uint64_t next_slot) override;
  absl::StatusOr<uint64_t> NextSlot() const override;
  bool is_newest_version() const override;
  absl::StatusOr<Holding> Compare(const WindowText& window) const override;
  absl::StatusOr<std::vector<uint64_t>> WindowSlots() const override;
  absl::StatusOr<std::vector<PassageHit>> Search(
      std::string_view question, int n_results,
      absl::FunctionRef<bool(uint64_t slot_begin)> allows) const override;
  absl::Status VerifyPages() const override;
  absl::Status Verify() const override;

 private:
  absl::Status OpenLive();
  absl::Status OpenWithoutLocks();
  absl::Status AddInTransaction(std::span<const WindowText> windows, uint64_t next_slot);
  // Calls `read` under the lock; again with the new files where they were replaced meanwhile and
  // nothing but looking can tell.
  absl::Status Read(absl::FunctionRef<absl::Status(const SqliteDatabase&)> read) const;

  const std::filesystem::path path_;
  const Mode mode_;
  mutable std::mutex mutex_;
  std::unique_ptr<TemporaryFolder> copy_;  // the database lies in there; outlives db_
  std::unique_ptr<SqliteDatabase> db_;
  uint64_t inode_ = 0;                 // kRead: of the file that db_ was opened from
  std::optional<FileState> unlocked_;  // set: db_ was opened without locks on these files
};

absl::Status SqliteTextIndex::OpenForWriting() {
  ASSIGN_OR_RETURN(db_, SqliteDatabase::Open(SqliteUri(path_, "mode=rwc"),
                                             SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, path_));
  // What is no text index must not be changed: look before setting the journal mode.
  absl::Status format = CheckFormat(*db_, path_);
  if (!format.ok() && !absl::IsNotFound(format)) return format;
  if (!format.ok()) {
    const absl::Status reserved = db_->ReserveChecksums();
    // Made, but not filled, by an earlier version.
    if (absl::IsFailedPrecondition(reserved)) return absl::DataLossError(reserved.message());
    RETURN_IF_ERROR(reserved);
  }
  RETURN_IF_ERROR(db_->Execute("PRAGMA journal_mode = WAL"));
  RETURN_IF_ERROR(db_->Execute("PRAGMA synchronous = NORMAL"));
  // A process that is ended leaves a WAL whose end is known for one, as long as frames are written
  // with their commit only, in order, and not behind those of a commit that was cut off.
  RETURN_IF_ERROR(db_->Execute("PRAGMA cache_spill = OFF"));
  // A full disk, say, is no reason not to open.
  if (const absl::Status status = db_->Checkpoint(); absl::IsDataLoss(status)) return status;
  if (format.ok()) return format;
  RETURN_IF_ERROR(db_->Execute("BEGIN IMMEDIATE"));
  absl::Cleanup rollback = [this] {
    if (db_->in_transaction()) (void)db_->Execute("ROLLBACK");
  };
  for (const std::string& sql :
       {std::string(kCreatePassages), std::string(kSetPageSize), std::string(kCreateState),
        std::string(kCreateWindows), std::string("INSERT INTO state VALUES (0, 0)"),
        StrCat("PRAGMA application_id = ", kApplicationId),
        StrCat("PRAGMA user_version = ", kNewestVersion), std::string("COMMIT")}) {
    RETURN_IF_ERROR(db_->Execute(sql.c_str()));
  }
  return absl::OkStatus();
}

absl::Status SqliteTextIndex::OpenForReading() {
  absl::Status status;
  for (int i = 0; i < kMaxReopens; ++i) {
    const FileState::One before = FileState::Look(path_);
    if (!before.exists) return absl::NotFoundError(StrCat(path_, ": no such text index"));
    status = OpenLive();
    inode_ = before.inode;
    // SQLite finds the files beside it by name: were they those of a new file, in the place of the
    // one that was opened?
    if (FileState::Look(path_).inode == before.inode) return status;
  }
  RETURN_IF_ERROR(status);
  return absl::UnavailableError(StrCat(path_, ": is being replaced all the time; try again"));
}

absl::Status SqliteTextIndex::OpenLive() {
  db_.reset();
  copy_.reset();
  unlocked_.reset();
  absl::StatusOr<std::unique_ptr<SqliteDatabase>> live =
      SqliteDatabase::Open(SqliteUri(path_, "mode=ro"), SQLITE_OPEN_READONLY, path_);
  absl::Status status = live.status();
  if (live.ok()) status = CheckFormat(**live, path_);
  if (status.ok()) {
    db_ = *std::move(live);
    return absl::OkStatus();
  }
  live = nullptr;
  if (!absl::IsPermissionDenied(status)) return status;
  // SQLite could not make its WAL files (or may not read the file at all, which fails again here).
  for (int i = 0; i < kMaxReopens; ++i) {
    const FileState before = FileState::Of(path_);
    status = OpenWithoutLocks();
    if (FileState::Of(path_) == before) {
      unlocked_ = before;
      return status;
    }
  }
  return absl::UnavailableError(
      StrCat(path_,
             ": is being written all the time, and this process may not make the files "
             "that let it read beside a writer; try again"));
}

absl::Status SqliteTextIndex::OpenWithoutLocks() {
  db_.reset();
  copy_.reset();
  const FileState::One wal = FileState::Look(WalPath(path_));
  if (!wal.exists || wal.size_bytes == 0) {
    // All is in the file itself.
    ASSIGN_OR_RETURN(db_, SqliteDatabase::Open(SqliteUri(path_, "mode=ro&immutable=1"),
                                               SQLITE_OPEN_READONLY, path_));
    return CheckFormat(*db_, path_);
  }
  // Part of it is in the WAL, which a reader without locks would miss.
  ASSIGN_OR_RETURN(copy_, TemporaryFolder::Make());
  const std::filesystem::path copy = copy_->path() / "text.sqlite";
  RETURN_IF_ERROR(CopyFile(path_, copy));
  RETURN_IF_ERROR(CopyFile(WalPath(path_), WalPath(copy)));
  std::error_code ignored;
  for (const std::filesystem::path& file : {copy, WalPath(copy)}) {
    std::filesystem::permissions(file, std::filesystem::perms::owner_write,
                                 std::filesystem::perm_options::add, ignored);
  }
  ASSIGN_OR_RETURN(db_,
                   SqliteDatabase::Open(SqliteUri(copy, "mode=rw"), SQLITE_OPEN_READWRITE, path_));
  return CheckFormat(*db_, path_);
}

absl::Status SqliteTextIndex::Read(
    absl::FunctionRef<absl::Status(const SqliteDatabase&)> read) const {
  std::lock_guard lock(mutex_);
  // Which connection serves is not part of the visible state.
  auto* self = const_cast<SqliteTextIndex*>(this);
  if (mode_ == Mode::kRead) {
    // Where the writer has put a new file in the place of a damaged or lost one, nothing is added
    // to this one any more. Where it is only gone, it is the best that there is.
    const FileState::One now = FileState::Look(path_);
    if (db_ == nullptr || (now.exists && now.inode != inode_)) {
      RETURN_IF_ERROR(self->OpenForReading());
    }
  }
  if (!unlocked_.has_value()) return read(*db_);
  for (int i = 0; i < kMaxReopens; ++i) {
    if (db_ == nullptr || FileState::Of(path_) != *unlocked_) {
      RETURN_IF_ERROR(self->OpenForReading());
      if (!unlocked_.has_value()) return read(*db_);
    }
    const absl::Status status = read(*db_);
    if (FileState::Of(path_) == *unlocked_) return status;
  }
  return absl::UnavailableError(
      StrCat(path_, ": changed during each of ", kMaxReopens, " attempts to read it; try again"));
}

absl::Status SqliteTextIndex::Add(std::span<const WindowText> windows, uint64_t next_slot) {
  std::lock_guard lock(mutex_);
  if (mode_ == Mode::kRead) {
    return absl::FailedPreconditionError(StrCat(path_, ": the text index is open for reading"));
  }
  if (next_slot > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
    return absl::InvalidArgumentError(
        StrCat(path_, ": next slot ", next_slot, " is beyond 2^63 - 1, the largest row number"));
  }
  RETURN_IF_ERROR(db_->Execute("BEGIN IMMEDIATE"));
  absl::Status status = AddInTransaction(windows, next_slot);
  if (status.ok()) status = db_->Execute("COMMIT");
  // A full disk may have rolled back by itself.
  if (!status.ok() && db_->in_transaction()) (void)db_->Execute("ROLLBACK");
  return status;
}

absl::Status SqliteTextIndex::AddInTransaction(std::span<const WindowText> windows,
                                               uint64_t next_slot) {
  ASSIGN_OR_RETURN(const int64_t present, db_->QueryInt64("SELECT next_slot FROM state"));
  uint64_t lowest = static_cast<uint64_t>(present);
  if (next_slot < lowest) {
    return absl::InvalidArgumentError(
        StrCat(path_, ": next slot ", next_slot, " lies before the present one, ", lowest));
  }
  ASSIGN_OR_RETURN(SqliteStatement insert_passage,
                   db_->Prepare("INSERT INTO passages(rowid, text) VALUES (?1, ?2)"));
  SqliteStatement insert_window;
  ASSIGN_OR_RETURN(const bool has_hashes, HasWindowHashes(*db_));
  if (has_hashes) {
    ASSIGN_OR_RETURN(insert_window, db_->Prepare("INSERT INTO windows VALUES (?1, ?2, ?3, ?4)"));
  }
  for (const WindowText& window : windows) {
    if (window.slot_begin < lowest || window.slot_end > next_slot) {
      return absl::InvalidArgumentError(
          StrCat(path_, ": window of slots ", window.slot_begin, " to ", window.slot_end,
                 ", want ascending ones in [", lowest, ", ", next_slot, ")"));
    }
    lowest = window.slot_begin;
    for (const PassageText& passage : window.passages) {
      if (passage.slot_begin < lowest || passage.slot_begin >= window.slot_end) {
        return absl::InvalidArgumentError(StrCat(path_, ": passage at slot ", passage.slot_begin,
                                                 ", want an ascending one in [", lowest, ", ",
                                                 window.slot_end, ")"));
      }
      lowest = passage.slot_begin + 1;
      const std::string text = PassageWords(passage.text);
      RETURN_IF_ERROR(insert_passage.BindInt64(1, static_cast<int64_t>(passage.slot_begin)));
      RETURN_IF_ERROR(insert_passage.BindText(2, text));
      RETURN_IF_ERROR(insert_passage.Step().status());
      insert_passage.Reset();
    }
    lowest = std::max(lowest, window.slot_end);
    if (!has_hashes) continue;
    const Hash128 hash = HashOf(window);
    RETURN_IF_ERROR(insert_window.BindInt64(1, static_cast<int64_t>(window.slot_begin)));
    RETURN_IF_ERROR(insert_window.BindInt64(2, static_cast<int64_t>(window.slot_end)));
    RETURN_IF_ERROR(insert_window.BindInt64(3, static_cast<int64_t>(hash.high)));
    RETURN_IF_ERROR(insert_window.BindInt64(4, static_cast<int64_t>(hash.low)));
    RETURN_IF_ERROR(insert_window.Step().status());
    insert_window.Reset();
  }
  ASSIGN_OR_RETURN(SqliteStatement update, db_->Prepare("UPDATE state SET next_slot = ?1"));
  RETURN_IF_ERROR(update.BindInt64(1, static_cast<int64_t>(next_slot)));
  return update.Step().status();
}

absl::StatusOr<TextIndex::Holding> SqliteTextIndex::Compare(const WindowText& window) const {
  Holding holding = Holding::kNothing;
  RETURN_IF_ERROR(Read([&](const SqliteDatabase& db) -> absl::Status {
    holding = Holding::kNothing;
    ASSIGN_OR_RETURN(const bool has_hashes, HasWindowHashes(db));
    if (!has_hashes) return absl::OkStatus();
    // Windows do not overlap: the last one that begins before this one's end is the only one that
    // can share a slot with it, unless there are several, and then none of them is this one.
    ASSIGN_OR_RETURN(SqliteStatement select,
                     db.Prepare("SELECT slot_begin, slot_end, hash_high, hash_low FROM windows "
                                "WHERE slot_begin < ?1 ORDER BY slot_begin DESC LIMIT 1"));
    RETURN_IF_ERROR(select.BindInt64(1, static_cast<int64_t>(window.slot_end)));
    ASSIGN_OR_RETURN(const bool has_row, select.Step());
    const auto column = [&](int i) { return static_cast<uint64_t>(select.Int64(i)); };
    if (!has_row || column(1) <= window.slot_begin) return absl::OkStatus();
    const bool is_same = column(0) == window.slot_begin && column(1) == window.slot_end &&
                         Hash128{column(2), column(3)} == HashOf(window);
    holding = is_same ? Holding::kSame : Holding::kOther;
    return absl::OkStatus();
  }));
  return holding;
}

absl::StatusOr<std::vector<uint64_t>> SqliteTextIndex::WindowSlots() const {
  std::vector<uint64_t> slots;
  RETURN_IF_ERROR(Read([&](const SqliteDatabase& db) -> absl::Status {
    slots.clear();
    ASSIGN_OR_RETURN(const bool has_hashes, HasWindowHashes(db));
    if (!has_hashes) return absl::OkStatus();
    ASSIGN_OR_RETURN(SqliteStatement select,
                     db.Prepare("SELECT slot_begin FROM windows ORDER BY slot_begin"));
    while (true) {
      ASSIGN_OR_RETURN(const bool has_row, select.Step());
      if (!has_row) return absl::OkStatus();
      slots.push_back(static_cast<uint64_t>(select.Int64(0)));
    }
  }));
  return slots;
}

absl::StatusOr<uint64_t> SqliteTextIndex::NextSlot() const {
  int64_t next_slot = 0;
  RETURN_IF_ERROR(Read([&](const SqliteDatabase& db) -> absl::Status {
    ASSIGN_OR_RETURN(next_slot, db.QueryInt64("SELECT next_slot FROM state"));
    return absl::OkStatus();
  }));
  if (next_slot < 0) {
    return absl::DataLossError(StrCat(path_, ": next slot is ", next_slot, ", want at least 0"));
  }
  return static_cast<uint64_t>(next_slot);
}

bool SqliteTextIndex::is_newest_version() const {
  std::lock_guard lock(mutex_);
  if (db_ == nullptr) return false;
  const absl::StatusOr<int64_t> version = db_->QueryInt64("PRAGMA user_version");
  return version.ok() && *version == kNewestVersion;
}

absl::StatusOr<std::vector<PassageHit>> SqliteTextIndex::Search(
    std::string_view question, int n_results,
    absl::FunctionRef<bool(uint64_t slot_begin)> allows) const {
  const std::string expression = MakeMatchExpression(question);
  std::vector<PassageHit> best;  // a heap with the worst in front
  if (expression.empty() || n_results <= 0) return best;
  const auto is_better = [](const PassageHit& a, const PassageHit& b) {
    return a.score > b.score || (a.score == b.score && a.slot_begin < b.slot_begin);
  };
  RETURN_IF_ERROR(Read([&](const SqliteDatabase& db) -> absl::Status {
    best.clear();
    // Unsorted: the few best are picked here, and only they are asked for in `allows`.
    ASSIGN_OR_RETURN(
        SqliteStatement select,
        db.Prepare("SELECT rowid, bm25(passages) FROM passages WHERE passages MATCH ?1"));
    RETURN_IF_ERROR(select.BindText(1, expression));
    while (true) {
      ASSIGN_OR_RETURN(const bool has_row, select.Step());
      if (!has_row) return absl::OkStatus();
      // bm25() is smaller for better.
      const PassageHit hit{static_cast<uint64_t>(select.Int64(0)), -select.Double(1)};
      const bool is_full = best.size() == static_cast<size_t>(n_results);
      if ((is_full && !is_better(hit, best.front())) || !allows(hit.slot_begin)) continue;
      if (is_full) {
        std::pop_heap(best.begin(), best.end(), is_better);
        best.pop_back();
      }
      best.push_back(hit);
      std::push_heap(best.begin(), best.end(), is_better);
    }
  }));
  std::sort_heap(best.begin(), best.end(), is_better);
  return best;
}

absl::Status SqliteTextIndex::VerifyPages() const {
  return Read([&](const SqliteDatabase& db) -> absl::Status {
    RETURN_IF_ERROR(CheckFormat(db, path_));
    RETURN_IF_ERROR(db.Execute("BEGIN"));
    const absl::Status pages = db.CheckPages();
    RETURN_IF_ERROR(db.Execute("ROLLBACK"));
    return pages;
  });
}

absl::Status SqliteTextIndex::Verify() const {
  RETURN_IF_ERROR(VerifyPages());
  return Read([&](const SqliteDatabase& db) -> absl::Status {
    if (mode_ == Mode::kWrite) return CheckIntegrity(db, path_);
    // FTS5's check is an INSERT: done on a temporary copy.
    ASSIGN_OR_RETURN(const std::string report, db.QueryText("PRAGMA integrity_check(1)"));
    if (report != "ok") return absl::DataLossError(StrCat(path_, ": ", report));
    ASSIGN_OR_RETURN(std::unique_ptr<SqliteDatabase> copy,
                     SqliteDatabase::Open("", SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, path_));
    RETURN_IF_ERROR(db.CopyTo(*copy));
    return CheckIntegrity(*copy, path_);
  });
}

}  // namespace

absl::StatusOr<std::unique_ptr<TextIndex>> TextIndex::Open(const std::filesystem::path& path,
                                                           Mode mode) {
  // Opening a FIFO would wait for somebody to write to it.
  for (const std::filesystem::path& file : {path, WalPath(path)}) {
    std::error_code error;
    const auto type = std::filesystem::status(file, error).type();
    if (type != std::filesystem::file_type::regular &&
        type != std::filesystem::file_type::not_found) {
      return absl::DataLossError(StrCat(file, ": is no file"));
    }
  }
  auto index = std::make_unique<SqliteTextIndex>(path, mode);
  RETURN_IF_ERROR(mode == Mode::kWrite ? index->OpenForWriting() : index->OpenForReading());
  return index;
}

}  // namespace fovea::index
