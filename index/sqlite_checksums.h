// Checksums for SQLite databases, whose pages have none: a flipped bit would be another row. It is
// a layer between SQLite and the file (a VFS, public API), used for the main file and its WAL:
//
//   main file   the last 8 bytes of each page (SQLite's reserved bytes) are XXH3-64 of the page's
//               number and the rest: written with the page, looked at whenever it is read
//   WAL         SQLite chains the checksums of its frames, but looks at them only when the WAL is
//               recovered, and takes the first wrong one for its end. Here a frame is looked at
//               when a reader reads it or when it goes to the main file, and a recovery fails where
//               the end is not one that a process that was ended can leave
//
// So whatever is on disk is either the page that was written or an error (SQLITE_IOERR_DATA), at
// any moment of a write: a checksum is in the page that it is of. A database without reserved bytes
// is read and written as it is; which kind a file is, two places of its header say (see
// kChecksummedVersion), so that no one flipped bit turns the checks off.
#pragma once

#include <sqlite3.h>

#include <cstdint>
#include <string>

#include "base/status.h"

namespace fovea::index {

inline constexpr int kPageChecksumBytes = 8;
// A bit of PRAGMA user_version, set in every database that has checksums.
inline constexpr int64_t kChecksummedVersion = 0x10000;

// The VFS's name for sqlite3_open_v2, registered with the first call. Thread-safe.
absl::StatusOr<const char*> ChecksumVfsName();

// Of a connection opened with it:
// Gives a database that has no page yet its checksums. FailedPrecondition where pages without are
// there.
absl::Status ReserveChecksums(sqlite3* db);
// Whether the main file has checksums; a file without pages has none.
bool HasChecksums(sqlite3* db);
// Reads every page of the main file, also those that no query reads. DataLoss names the first wrong
// page. For a database without checksums: OK. Call it inside a read transaction.
absl::Status CheckPages(sqlite3* db);
// What the last SQLITE_IOERR_DATA was about ("page 3 does not match its checksum"); empty: none
// yet.
std::string ChecksumDamage(sqlite3* db);

}  // namespace fovea::index
