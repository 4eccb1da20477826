#include "cli/zip_member.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <string>
#include <vector>

#include "absl/cleanup/cleanup.h"
#include "base/file.h"

namespace fovea::cli {
namespace {

static_assert(std::endian::native == std::endian::little, "zip archives are little-endian");

constexpr size_t kEndRecordBytes = 22;
constexpr size_t kDirectoryEntryBytes = 46;
constexpr size_t kLocalHeaderBytes = 30;
constexpr uint32_t kEndRecordMagic = 0x06054b50;
constexpr uint32_t kDirectoryEntryMagic = 0x02014b50;
constexpr uint32_t kLocalHeaderMagic = 0x04034b50;
constexpr uint16_t kStored = 0;
constexpr uint16_t kDeflated = 8;
constexpr uint16_t kEncryptedFlag = 1;

template <typename T>
T Get(std::string_view bytes, size_t at) {
  T value;
  std::memcpy(&value, bytes.data() + at, sizeof(T));
  return value;
}

// `size` bytes from `at` lie inside of `bytes`; sizes of a file, so nothing may overflow.
bool Fits(std::string_view bytes, uint64_t at, uint64_t size) {
  return at <= bytes.size() && size <= bytes.size() - at;
}

struct Member {
  std::string_view packed;
  uint32_t size_bytes = 0;
  uint32_t crc32 = 0;
  uint16_t method = 0;
};

class Archive {
 public:
  Archive(std::string_view bytes, std::string_view name) : bytes_(bytes), name_(name) {}

  absl::StatusOr<Member> Find(std::string_view wanted) const {
    ASSIGN_OR_RETURN(const size_t end, FindEndRecord());
    const auto n_entries = Get<uint16_t>(bytes_, end + 10);
    const auto directory_size = Get<uint32_t>(bytes_, end + 12);
    uint64_t at = Get<uint32_t>(bytes_, end + 16);
    if (n_entries == 0xFFFF || at == 0xFFFFFFFF) return Damaged("Zip64, want a plain zip archive");
    if (Get<uint16_t>(bytes_, end + 4) != 0 || Get<uint16_t>(bytes_, end + 8) != n_entries) {
      return Damaged("one of several parts, want a whole archive");
    }
    if (!Fits(bytes_.substr(0, end), at, directory_size)) {
      return Damaged("its directory lies outside of it");
    }
    for (int i = 0; i < n_entries; ++i) {
      if (!Fits(bytes_.substr(0, end), at, kDirectoryEntryBytes) ||
          Get<uint32_t>(bytes_, at) != kDirectoryEntryMagic) {
        return Damaged(StrCat("directory entry ", i, " is broken"));
      }
      const uint64_t name_size = Get<uint16_t>(bytes_, at + 28);
      const uint64_t entry_size = kDirectoryEntryBytes + name_size +
                                  Get<uint16_t>(bytes_, at + 30) + Get<uint16_t>(bytes_, at + 32);
      if (!Fits(bytes_.substr(0, end), at, entry_size)) {
        return Damaged(StrCat("directory entry ", i, " is cut off"));
      }
      if (bytes_.substr(at + kDirectoryEntryBytes, name_size) == wanted) return MemberOf(at);
      at += entry_size;
    }
    return absl::NotFoundError(StrCat(name_, ": no member ", wanted));
  }

  absl::Status Damaged(std::string_view what) const {
    return absl::DataLossError(StrCat(name_, ": damaged zip archive: ", what));
  }

 private:
  // The end record is last, but for a comment of up to 65,535 bytes.
  absl::StatusOr<size_t> FindEndRecord() const {
    for (size_t comment = 0; comment <= 0xFFFF; ++comment) {
      if (bytes_.size() < kEndRecordBytes + comment) break;
      const size_t at = bytes_.size() - kEndRecordBytes - comment;
      if (Get<uint32_t>(bytes_, at) == kEndRecordMagic &&
          Get<uint16_t>(bytes_, at + 20) == comment) {
        return at;
      }
    }
    return Damaged("no end record: it was cut off, or is no zip archive");
  }

  absl::StatusOr<Member> MemberOf(size_t entry) const {
    if ((Get<uint16_t>(bytes_, entry + 8) & kEncryptedFlag) != 0) {
      return Damaged("the member is encrypted");
    }
    Member member;
    member.method = Get<uint16_t>(bytes_, entry + 10);
    member.crc32 = Get<uint32_t>(bytes_, entry + 16);
    const auto packed_size = Get<uint32_t>(bytes_, entry + 20);
    member.size_bytes = Get<uint32_t>(bytes_, entry + 24);
    const uint64_t header = Get<uint32_t>(bytes_, entry + 42);
    if (packed_size == 0xFFFFFFFF || member.size_bytes == 0xFFFFFFFF || header == 0xFFFFFFFF) {
      return Damaged("the member is Zip64, want a plain one");
    }
    if (!Fits(bytes_, header, kLocalHeaderBytes) ||
        Get<uint32_t>(bytes_, header) != kLocalHeaderMagic) {
      return Damaged("the member's header is broken");
    }
    const uint64_t data = header + kLocalHeaderBytes + Get<uint16_t>(bytes_, header + 26) +
                          Get<uint16_t>(bytes_, header + 28);
    if (!Fits(bytes_, data, packed_size)) return Damaged("the member is cut off");
    member.packed = bytes_.substr(data, packed_size);
    return member;
  }

  std::string_view bytes_;
  std::string_view name_;
};

// Writes to a descriptor; counts and checks what went through.
class Output {
 public:
  Output(int descriptor, const std::filesystem::path& path)
      : descriptor_(descriptor), path_(path) {}

  absl::Status Write(std::string_view bytes) {
    crc32_ = ::crc32(crc32_, reinterpret_cast<const Bytef*>(bytes.data()),
                     static_cast<uInt>(bytes.size()));
    size_bytes_ += bytes.size();
    while (!bytes.empty()) {
      const ssize_t n = ::write(descriptor_, bytes.data(), bytes.size());
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return ErrnoToStatus(errno, "write", path_);
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  uint64_t size_bytes() const { return size_bytes_; }
  uLong crc32() const { return crc32_; }

 private:
  int descriptor_;
  const std::filesystem::path& path_;
  uint64_t size_bytes_ = 0;
  uLong crc32_ = ::crc32(0, nullptr, 0);
};

constexpr size_t kPieceBytes = size_t{1} << 20;

absl::Status Inflate(const Archive& archive, const Member& member, const Progress& progress,
                     Output* output) {
  z_stream stream{};
  // A negative window: bare deflate data, without zlib's header.
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
    return absl::ResourceExhaustedError("no memory to unpack the model");
  }
  absl::Cleanup end = [&stream] { inflateEnd(&stream); };
  std::vector<char> piece(kPieceBytes);
  // At most 4 GiB: a plain archive's sizes have 32 bits.
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(member.packed.data()));
  stream.avail_in = static_cast<uInt>(member.packed.size());
  int result = Z_OK;
  while (result != Z_STREAM_END) {
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    result = inflate(&stream, Z_NO_FLUSH);
    const size_t n_bytes = piece.size() - stream.avail_out;
    if ((result != Z_OK && result != Z_STREAM_END) || (result == Z_OK && n_bytes == 0) ||
        output->size_bytes() + n_bytes > member.size_bytes) {
      return archive.Damaged("the member cannot be unpacked");
    }
    RETURN_IF_ERROR(output->Write(std::string_view(piece.data(), n_bytes)));
    RETURN_IF_ERROR(progress.Report({.stage = "unpack",
                                     .done = static_cast<int64_t>(output->size_bytes()),
                                     .total = member.size_bytes,
                                     .unit = "bytes"}));
  }
  if (stream.avail_in != 0) return archive.Damaged("bytes are left behind the member");
  return absl::OkStatus();
}

}  // namespace

absl::Status ExtractZipMember(std::string_view archive_bytes, std::string_view archive_name,
                              std::string_view name, const std::filesystem::path& path,
                              uint64_t max_size_bytes, const Progress& progress) {
  const Archive archive(archive_bytes, archive_name);
  ASSIGN_OR_RETURN(const Member member, archive.Find(name));
  if (member.size_bytes > max_size_bytes) {
    return absl::ResourceExhaustedError(StrCat(archive_name, ": member ", name, " has ",
                                               member.size_bytes, " bytes, want at most ",
                                               max_size_bytes));
  }
  if (member.method != kStored && member.method != kDeflated) {
    return archive.Damaged(StrCat("the member is packed by method ", member.method,
                                  ", want 0 (stored) or 8 (deflated)"));
  }

  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (descriptor < 0) return ErrnoToStatus(errno, "create", path);
  absl::Cleanup remove_file = [&path] { ::unlink(path.c_str()); };
  absl::Cleanup close_file = [descriptor] { ::close(descriptor); };
  Output output(descriptor, path);
  if (member.method == kDeflated) {
    RETURN_IF_ERROR(Inflate(archive, member, progress, &output));
  } else {
    for (std::string_view rest = member.packed; !rest.empty();) {
      RETURN_IF_ERROR(output.Write(rest.substr(0, kPieceBytes)));
      rest.remove_prefix(std::min(kPieceBytes, rest.size()));
      RETURN_IF_ERROR(progress.CheckCancelled());
    }
  }
  if (output.size_bytes() != member.size_bytes) {
    return archive.Damaged(
        StrCat("the member has ", output.size_bytes(), " bytes, want ", member.size_bytes));
  }
  if (output.crc32() != member.crc32) return archive.Damaged("the member's CRC-32 is wrong");
  if (::fsync(descriptor) != 0) return ErrnoToStatus(errno, "fsync", path);
  std::move(remove_file).Cancel();
  return absl::OkStatus();
}

}  // namespace fovea::cli
