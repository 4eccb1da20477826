#include "index/index_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <type_traits>

#include "absl/cleanup/cleanup.h"

namespace fovea::index {
namespace {

constexpr std::string_view kMagic = "FOVEAIX2";
constexpr std::string_view kMagicOfVersion1 = "FOVEAIX1";
constexpr size_t kHashSize = 16;
constexpr size_t kFrameSize = kMagic.size() + sizeof(uint64_t) + kHashSize;

// Far above what a model has; a hash protects from damage, not from a file made to harm.
constexpr uint32_t kMaxHeads = 1 << 16;
constexpr uint32_t kMaxDim = 1 << 16;
constexpr uint32_t kMaxEffort = 1 << 20;

static_assert(std::endian::native == std::endian::little,
              "numbers are stored as they lie in memory");

template <typename T>
void Append(T value, std::string* out) {
  static_assert(std::is_arithmetic_v<T>);
  out->append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void AppendString(std::string_view text, std::string* out) {
  Append(static_cast<uint32_t>(text.size()), out);
  out->append(text);
}

template <typename T>
bool Take(std::string_view* in, T* value) {
  static_assert(std::is_arithmetic_v<T>);
  if (in->size() < sizeof(T)) return false;
  std::memcpy(value, in->data(), sizeof(T));
  in->remove_prefix(sizeof(T));
  return true;
}

bool TakeString(std::string_view* in, std::string* text) {
  uint32_t size = 0;
  if (!Take(in, &size) || size > in->size()) return false;
  text->assign(in->substr(0, size));
  in->remove_prefix(size);
  return true;
}

std::string EncodeTrailer(const IndexFileTrailer& trailer) {
  std::string out;
  AppendString(trailer.spec, &out);
  AppendString(trailer.library, &out);
  Append(static_cast<uint32_t>(trailer.heads.size()), &out);
  Append(static_cast<uint32_t>(trailer.head_dim), &out);
  Append(static_cast<uint32_t>(trailer.index_dim), &out);
  Append(static_cast<uint32_t>(trailer.is_augmented ? 1 : 0), &out);
  Append(static_cast<uint32_t>(trailer.n_probe), &out);
  Append(static_cast<uint32_t>(trailer.n_candidates), &out);
  Append(static_cast<uint64_t>(trailer.runs.size()), &out);
  for (const IdRun& run : trailer.runs) {
    Append(static_cast<uint64_t>(run.first_id), &out);
    Append(static_cast<uint64_t>(run.n), &out);
  }
  for (const IndexFileHead& head : trailer.heads) {
    Append(head.blob_size, &out);
    Append(head.radius, &out);
    for (const float value : head.mean) Append(value, &out);
  }
  return out;
}

// What is wrong, or "" when `*trailer` holds a sound one.
std::string DecodeTrailer(std::string_view in, bool has_effort, IndexFileTrailer* trailer) {
  uint32_t n_heads = 0, head_dim = 0, index_dim = 0, is_augmented = 0;
  uint32_t n_probe = 0, n_candidates = 0;
  uint64_t n_runs = 0;
  if (!TakeString(&in, &trailer->spec) || !TakeString(&in, &trailer->library) ||
      !Take(&in, &n_heads) || !Take(&in, &head_dim) || !Take(&in, &index_dim) ||
      !Take(&in, &is_augmented) ||
      (has_effort && (!Take(&in, &n_probe) || !Take(&in, &n_candidates))) || !Take(&in, &n_runs)) {
    return "its trailer is too short";
  }
  if (n_heads == 0 || n_heads > kMaxHeads || head_dim == 0 || head_dim > kMaxDim ||
      index_dim < head_dim || index_dim > kMaxDim || is_augmented > 1) {
    return StrCat("impossible shape: ", n_heads, " heads of ", head_dim, ", index dimension ",
                  index_dim);
  }
  if (n_probe > kMaxEffort || n_candidates > kMaxEffort) {
    return StrCat("impossible effort: ", n_probe, ", ", n_candidates);
  }
  if (n_runs > in.size() / (2 * sizeof(uint64_t))) return "its runs of ids are cut off";
  trailer->runs.resize(n_runs);
  uint64_t end = 0;
  for (IdRun& run : trailer->runs) {
    uint64_t first_id = 0, n = 0;
    Take(&in, &first_id);
    Take(&in, &n);
    constexpr uint64_t kMaxId = uint64_t{1} << 62;
    if (n == 0 || first_id < end || first_id > kMaxId || n > kMaxId - first_id) {
      return StrCat("impossible run of ids: ", n, " from ", first_id, " after ", end);
    }
    end = first_id + n;
    run = {static_cast<int64_t>(first_id), static_cast<int64_t>(n)};
  }
  const uint64_t head_size = sizeof(uint64_t) + sizeof(float) * (uint64_t{1} + head_dim);
  if (in.size() != head_size * n_heads) return "the sizes of its trailer contradict each other";
  trailer->head_dim = head_dim;
  trailer->index_dim = index_dim;
  trailer->is_augmented = is_augmented == 1;
  trailer->n_probe = static_cast<int>(n_probe);
  trailer->n_candidates = static_cast<int>(n_candidates);
  trailer->heads.resize(n_heads);
  for (IndexFileHead& head : trailer->heads) {
    Take(&in, &head.blob_size);
    Take(&in, &head.radius);
    head.mean.resize(head_dim);
    for (float& value : head.mean) Take(&in, &value);
    if (!std::isfinite(head.radius)) return "a radius that is not finite";
  }
  return "";
}

std::string HashBytes(const Hash128& hash) {
  std::string out;
  Append(hash.low, &out);
  Append(hash.high, &out);
  return out;
}

}  // namespace

absl::Status WriteIndexFile(
    const std::filesystem::path& path, IndexFileTrailer trailer,
    absl::FunctionRef<absl::Status(size_t head, BlobSink sink)> write_blob) {
  std::filesystem::path temporary = path;
  temporary += StrCat(".tmp", getpid());
  const int fd = open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return ErrnoToStatus(errno, "create", temporary);
  absl::Cleanup remove_temporary = [&] { unlink(temporary.c_str()); };
  absl::Cleanup close_fd = [fd] { close(fd); };

  FastHasher hasher;
  // Libraries write numbers one by one.
  std::string buffer;
  constexpr size_t kBufferSize = 1 << 20;
  const auto flush = [&]() -> absl::Status {
    std::string_view rest = buffer;
    while (!rest.empty()) {
      const ssize_t n = write(fd, rest.data(), rest.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoToStatus(errno, "write", temporary);
      rest.remove_prefix(static_cast<size_t>(n));
    }
    buffer.clear();
    return absl::OkStatus();
  };
  const auto put = [&](std::string_view bytes) -> absl::Status {
    hasher.Update(bytes);
    while (!bytes.empty()) {
      const size_t n = std::min(bytes.size(), kBufferSize - buffer.size());
      buffer.append(bytes.substr(0, n));
      bytes.remove_prefix(n);
      if (buffer.size() == kBufferSize) RETURN_IF_ERROR(flush());
    }
    return absl::OkStatus();
  };

  RETURN_IF_ERROR(put(kMagic));
  for (size_t head = 0; head < trailer.heads.size(); ++head) {
    uint64_t& size = trailer.heads[head].blob_size;
    size = 0;
    RETURN_IF_ERROR(write_blob(head, [&](std::string_view bytes) {
      size += bytes.size();
      return put(bytes);
    }));
  }
  const std::string encoded = EncodeTrailer(trailer);
  RETURN_IF_ERROR(put(encoded));
  std::string size;
  Append(static_cast<uint64_t>(encoded.size()), &size);
  RETURN_IF_ERROR(put(size));
  RETURN_IF_ERROR(put(HashBytes(hasher.Finish())));
  RETURN_IF_ERROR(flush());
  if (fsync(fd) != 0) return ErrnoToStatus(errno, "fsync", temporary);
  if (rename(temporary.c_str(), path.c_str()) != 0) return ErrnoToStatus(errno, "rename to", path);
  std::move(remove_temporary).Cancel();
  const std::filesystem::path parent = path.parent_path();
  return SyncPath(parent.empty() ? "." : parent);
}

absl::StatusOr<IndexFile> ReadIndexFile(const std::filesystem::path& path) {
  const auto damaged = [&path](std::string_view what) {
    return absl::DataLossError(StrCat(path, ": ", what, ": rebuild the index"));
  };
  IndexFile result;
  ASSIGN_OR_RETURN(result.file, MappedFile::Open(path));
  std::string_view bytes = result.file->bytes();
  if (bytes.size() < kFrameSize) {
    return damaged(StrCat("only ", bytes.size(), " bytes, not an index file"));
  }
  const std::string_view magic = bytes.substr(0, kMagic.size());
  if (magic != kMagic && magic != kMagicOfVersion1) {
    return damaged("not an index file of this format version");
  }
  const std::string_view stored_hash = bytes.substr(bytes.size() - kHashSize);
  bytes.remove_suffix(kHashSize);
  if (stored_hash != HashBytes(FastHash128(bytes))) {
    return damaged("its hash does not fit its bytes, it is damaged or cut off");
  }
  uint64_t trailer_size = 0;
  std::string_view size = bytes.substr(bytes.size() - sizeof(trailer_size));
  bytes.remove_suffix(sizeof(trailer_size));
  bytes.remove_prefix(kMagic.size());
  Take(&size, &trailer_size);
  if (trailer_size > bytes.size()) return damaged("its trailer is larger than the file");
  std::string_view blobs = bytes.substr(0, bytes.size() - trailer_size);
  const std::string problem =
      DecodeTrailer(bytes.substr(blobs.size()), magic != kMagicOfVersion1, &result.trailer);
  if (!problem.empty()) return damaged(problem);
  for (const IndexFileHead& head : result.trailer.heads) {
    if (head.blob_size > blobs.size()) return damaged("a head's bytes are cut off");
    result.blobs.push_back(blobs.substr(0, head.blob_size));
    blobs.remove_prefix(head.blob_size);
  }
  if (!blobs.empty()) return damaged("bytes that belong to no head");
  return result;
}

}  // namespace fovea::index
