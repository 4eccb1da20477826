// SQLite's C interface as owned handles and absl::Status: what the text index needs, no more.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "index/sqlite_checksums.h"

namespace fovea::index {

// A prepared statement. Borrows its database.
class SqliteStatement {
 public:
  SqliteStatement() = default;
  absl::Status BindInt64(int parameter, int64_t value);
  // `text` must outlive the statement's next Reset.
  absl::Status BindText(int parameter, std::string_view text);
  // True for a row, false at the end.
  absl::StatusOr<bool> Step();
  void Reset() { sqlite3_reset(statement_.get()); }
  int64_t Int64(int column) const { return sqlite3_column_int64(statement_.get(), column); }
  double Double(int column) const { return sqlite3_column_double(statement_.get(), column); }
  std::string Text(int column) const;

 private:
  friend class SqliteDatabase;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
  };
  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  const class SqliteDatabase* database_ = nullptr;
};

// A connection. Used by one thread at a time.
class SqliteDatabase {
 public:
  // `uri`: SQLite's file: URI or "" for a private temporary database; `path` names it in messages.
  // Pages of files have checksums where ReserveChecksums was called when they were made.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(const std::string& uri, int flags,
                                                              const std::filesystem::path& path);
  absl::Status Execute(const char* sql) const;
  absl::StatusOr<SqliteStatement> Prepare(std::string_view sql) const;
  // The single integer (or text) that `sql` yields; DataLoss when it yields no row.
  absl::StatusOr<int64_t> QueryInt64(std::string_view sql) const;
  absl::StatusOr<std::string> QueryText(std::string_view sql) const;
  // Everything in this database → `target`.
  absl::Status CopyTo(SqliteDatabase& target) const;
  // Puts what is in the WAL into the main file and empties it, unless a reader is in the way.
  absl::Status Checkpoint() const;

  // sqlite_checksums.h, of this connection.
  absl::Status ReserveChecksums() const;
  bool has_checksums() const { return HasChecksums(db_.get()); }
  absl::Status CheckPages() const;

  // SQLITE_OK → OK; damage → DataLoss, full disk or memory → ResourceExhausted, held by another
  // process → Unavailable, not writable → PermissionDenied, else Internal. The extended code of
  // the failure stays readable in last_error().
  absl::Status ToStatus(int code, std::string_view action) const;
  int last_error() const { return sqlite3_extended_errcode(db_.get()); }
  bool in_transaction() const { return sqlite3_get_autocommit(db_.get()) == 0; }

 private:
  struct Close {
    void operator()(sqlite3* db) const { sqlite3_close_v2(db); }
  };
  std::unique_ptr<sqlite3, Close> db_;
  std::filesystem::path path_;
};

// A file: URI of `path` with `parameters` ("mode=ro&immutable=1").
std::string SqliteUri(const std::filesystem::path& path, std::string_view parameters);

}  // namespace fovea::index
