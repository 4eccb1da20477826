#include "index/sqlite.h"

#include <sys/resource.h>

#include <cerrno>

#include "absl/strings/str_format.h"
#include "base/file.h"

namespace fovea::index {
namespace {

// Another process holds the database for the length of a commit or a checkpoint; 10 s is far more.
constexpr int kBusyTimeoutMs = 10'000;

}  // namespace

absl::Status SqliteStatement::BindInt64(int parameter, int64_t value) {
  return database_->ToStatus(sqlite3_bind_int64(statement_.get(), parameter, value), "bind");
}

absl::Status SqliteStatement::BindText(int parameter, std::string_view text) {
  return database_->ToStatus(sqlite3_bind_text64(statement_.get(), parameter, text.data(),
                                                 text.size(), SQLITE_STATIC, SQLITE_UTF8),
                             "bind");
}

absl::StatusOr<bool> SqliteStatement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return database_->ToStatus(code, sqlite3_sql(statement_.get()));
}

std::string SqliteStatement::Text(int column) const {
  const unsigned char* text = sqlite3_column_text(statement_.get(), column);
  if (text == nullptr) return "";
  return std::string(reinterpret_cast<const char*>(text),
                     static_cast<size_t>(sqlite3_column_bytes(statement_.get(), column)));
}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(
    const std::string& uri, int flags, const std::filesystem::path& path) {
  auto database = std::make_unique<SqliteDatabase>();
  database->path_ = path;
  sqlite3* db = nullptr;
  ASSIGN_OR_RETURN(const char* vfs, ChecksumVfsName());
  const int code = sqlite3_open_v2(uri.c_str(), &db, flags | SQLITE_OPEN_URI | SQLITE_OPEN_NOMUTEX,
                                   uri.empty() ? nullptr : vfs);
  database->db_.reset(db);
  if (code != SQLITE_OK) return database->ToStatus(code, "open");
  sqlite3_extended_result_codes(db, 1);
  sqlite3_busy_timeout(db, kBusyTimeoutMs);
  // The file may come from anywhere: no schema of its making runs functions or writes FTS5's own
  // tables.
  sqlite3_db_config(db, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  RETURN_IF_ERROR(database->Execute("PRAGMA cell_size_check = ON"));
  return database;
}

absl::Status SqliteDatabase::Execute(const char* sql) const {
  return ToStatus(sqlite3_exec(db_.get(), sql, nullptr, nullptr, nullptr), sql);
}

absl::StatusOr<SqliteStatement> SqliteDatabase::Prepare(std::string_view sql) const {
  SqliteStatement statement;
  statement.database_ = this;
  sqlite3_stmt* raw = nullptr;
  const int code =
      sqlite3_prepare_v2(db_.get(), sql.data(), static_cast<int>(sql.size()), &raw, nullptr);
  statement.statement_.reset(raw);
  RETURN_IF_ERROR(ToStatus(code, sql));
  return statement;
}

absl::StatusOr<int64_t> SqliteDatabase::QueryInt64(std::string_view sql) const {
  ASSIGN_OR_RETURN(SqliteStatement statement, Prepare(sql));
  ASSIGN_OR_RETURN(const bool has_row, statement.Step());
  if (!has_row) return absl::DataLossError(StrCat(path_.string(), ": no row for ", sql));
  return statement.Int64(0);
}

absl::StatusOr<std::string> SqliteDatabase::QueryText(std::string_view sql) const {
  ASSIGN_OR_RETURN(SqliteStatement statement, Prepare(sql));
  ASSIGN_OR_RETURN(const bool has_row, statement.Step());
  if (!has_row) return absl::DataLossError(StrCat(path_.string(), ": no row for ", sql));
  return statement.Text(0);
}

absl::Status SqliteDatabase::CopyTo(SqliteDatabase& target) const {
  sqlite3_backup* backup = sqlite3_backup_init(target.db_.get(), "main", db_.get(), "main");
  if (backup == nullptr) return target.ToStatus(target.last_error(), "copy");
  sqlite3_backup_step(backup, -1);
  return target.ToStatus(sqlite3_backup_finish(backup), "copy");
}

absl::Status SqliteDatabase::Checkpoint() const {
  sqlite3_busy_timeout(db_.get(), 0);
  const int code =
      sqlite3_wal_checkpoint_v2(db_.get(), "main", SQLITE_CHECKPOINT_TRUNCATE, nullptr, nullptr);
  sqlite3_busy_timeout(db_.get(), kBusyTimeoutMs);
  return (code & 0xff) == SQLITE_BUSY ? absl::OkStatus() : ToStatus(code, "checkpoint");
}

absl::Status SqliteDatabase::ReserveChecksums() const {
  return Annotate(index::ReserveChecksums(db_.get()), path_.string());
}

absl::Status SqliteDatabase::CheckPages() const {
  return Annotate(index::CheckPages(db_.get()), path_.string());
}

absl::Status SqliteDatabase::ToStatus(int code, std::string_view action) const {
  if (code == SQLITE_OK) return absl::OkStatus();
  // FTS5 passes some codes on without their extension.
  if (const std::string damage = ChecksumDamage(db_.get());
      (code & 0xff) == SQLITE_IOERR && !damage.empty()) {
    return absl::DataLossError(StrCat(path_.string(), ": ", damage));
  }
  const std::string message = StrCat(
      path_.string(), ": ", db_ != nullptr ? sqlite3_errmsg(db_.get()) : sqlite3_errstr(code),
      " (SQLite code ", code, ")");
  switch (code & 0xff) {
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
    case SQLITE_FORMAT:
      return absl::DataLossError(message);
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(StrCat(message, "; free some space"));
    case SQLITE_NOMEM:
    case SQLITE_TOOBIG:
      return absl::ResourceExhaustedError(message);
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
    case SQLITE_PROTOCOL:
      return absl::UnavailableError(StrCat(message, "; another process holds it, try again"));
    case SQLITE_PERM:
    case SQLITE_AUTH:
    case SQLITE_CANTOPEN:
    case SQLITE_READONLY:
      return absl::PermissionDeniedError(message);
    case SQLITE_IOERR:
      if (code == SQLITE_IOERR_CORRUPTFS || code == SQLITE_IOERR_DATA) {
        return absl::DataLossError(message);
      }
      // What processes share (the file -shm) needs a few kilobytes, of readers too.
      if (code == SQLITE_IOERR_SHMSIZE || code == SQLITE_IOERR_WRITE) {
        // A full disk is SQLITE_FULL, so under a limit on the size of files it is that limit.
        rlimit limit;
        if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) {
          return ErrnoToStatus(EFBIG, StrCat("write (SQLite code ", code, ")"), path_);
        }
        return absl::ResourceExhaustedError(StrCat(message, "; free some space"));
      }
      return absl::InternalError(message);
    default:  // a fault of ours: the statement tells where
      return absl::InternalError(StrCat(message, " in ", action));
  }
}

std::string SqliteUri(const std::filesystem::path& path, std::string_view parameters) {
  std::string uri = "file:";
  const std::filesystem::path absolute = std::filesystem::absolute(path);
  for (const char c : absolute.native()) {
    const bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') ||
                          (c >= 'A' && c <= 'Z') || c == '/' || c == '.' || c == '-' || c == '_';
    uri += is_plain ? std::string(1, c) : absl::StrFormat("%%%02x", static_cast<unsigned char>(c));
  }
  return StrCat(uri, "?", parameters);
}

}  // namespace fovea::index
