#include "storage/rocksdb_status.h"

#include <cerrno>
#include <cstring>
#include <string>

namespace fovea::storage {
namespace {

// RocksDB keeps no errno: its messages end with what strerror says of it.
bool Mentions(const std::string& message, int error) {
  return message.find(std::strerror(error)) != std::string::npos;
}

}  // namespace

bool IsMissingFile(const rocksdb::Status& status) {
  return status.IsPathNotFound() ||
         (!status.ok() && !status.IsNotFound() && Mentions(status.ToString(), ENOENT));
}

absl::Status FromRocksDb(const rocksdb::Status& status, std::string_view doing) {
  if (status.ok()) return absl::OkStatus();
  const std::string reason = status.ToString();
  const std::string message = StrCat(doing, ": ", reason);
  if (status.IsNoSpace() || Mentions(reason, ENOSPC) || Mentions(reason, EDQUOT)) {
    return absl::ResourceExhaustedError(
        StrCat(message,
               "; free space on this disk and try again (nothing that was stored is "
               "lost)"));
  }
  if (Mentions(reason, EFBIG)) {
    return absl::ResourceExhaustedError(
        StrCat(message,
               "; this file system or `ulimit -f` allows no larger file: raise the limit and try "
               "again (nothing that was stored is lost)"));
  }
  if (Mentions(reason, EACCES) || Mentions(reason, EROFS) || Mentions(reason, EPERM)) {
    return absl::PermissionDeniedError(message);
  }
  if (Mentions(reason, EMFILE) || Mentions(reason, ENFILE)) {
    return absl::ResourceExhaustedError(
        StrCat(message, "; allow more open files (`ulimit -n`) and try again"));
  }
  switch (status.code()) {
    case rocksdb::Status::kNotFound:
      return absl::NotFoundError(message);
    case rocksdb::Status::kCorruption:
      return absl::DataLossError(message);
    case rocksdb::Status::kNotSupported:
      return absl::UnimplementedError(message);
    case rocksdb::Status::kInvalidArgument:
      return absl::InvalidArgumentError(message);
    case rocksdb::Status::kShutdownInProgress:
    case rocksdb::Status::kAborted:
      return absl::AbortedError(message);
    case rocksdb::Status::kBusy:
    case rocksdb::Status::kTryAgain:
    case rocksdb::Status::kTimedOut:
      return absl::UnavailableError(message);
    default:
      return absl::InternalError(message);
  }
}

}  // namespace fovea::storage
