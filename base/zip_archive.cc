#include "base/zip_archive.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <optional>

#include "absl/strings/escaping.h"

namespace fovea {
namespace {

// Records of the zip format (APPNOTE 6.3): signatures, and sizes without names and extra fields.
constexpr uint32_t kLocalHeader = 0x04034b50;
constexpr uint32_t kCentralHeader = 0x02014b50;
constexpr uint32_t kEnd = 0x06054b50;
constexpr uint32_t kEnd64 = 0x06064b50;
constexpr uint32_t kEnd64Locator = 0x07064b50;
constexpr size_t kLocalHeaderBytes = 30;
constexpr size_t kCentralHeaderBytes = 46;
constexpr size_t kEndBytes = 22;
constexpr size_t kEnd64Bytes = 56;
constexpr size_t kEnd64LocatorBytes = 20;
constexpr size_t kMaxCommentBytes = 0xffff;
constexpr uint16_t kZip64Extra = 1;
// "In the Zip64 field".
constexpr uint32_t kElsewhere32 = 0xffffffff;
constexpr uint16_t kElsewhere16 = 0xffff;

constexpr uint16_t kEncrypted = 1;
constexpr uint16_t kStored = 0;
constexpr uint16_t kDeflated = 8;

constexpr size_t kPieceBytes = size_t{1} << 18;

absl::Status Damaged(std::string_view what) {
  return absl::DataLossError(
      StrCat("truncated or damaged zip archive: ", what, "; copy or download it again"));
}

// A member's name, fit for a message.
std::string Named(const ZipMember& member) {
  return "member " + absl::Utf8SafeCHexEscape(ToAbsl(std::string_view(member.name).substr(0, 100)));
}

// Little-endian numbers of a record that is known to be there.
uint64_t Number(std::string_view bytes, size_t offset, size_t n_bytes) {
  uint64_t number = 0;
  for (size_t i = 0; i < n_bytes; ++i) {
    number |= uint64_t{static_cast<uint8_t>(bytes[offset + i])} << (8 * i);
  }
  return number;
}

// [offset, offset + size) of the archive; nullopt where it ends earlier.
std::optional<std::string_view> Slice(std::string_view archive, uint64_t offset, uint64_t size) {
  if (offset > archive.size() || archive.size() - offset < size) return std::nullopt;
  return archive.substr(offset, size);
}

struct Directory {
  uint64_t n_members = 0;
  uint64_t offset = 0;
  uint64_t size_bytes = 0;
};

absl::StatusOr<Directory> FindDirectory(std::string_view archive) {
  if (archive.size() < kEndBytes) return Damaged("no end of a zip archive");
  // The end record is the last, but for a comment.
  const size_t first = archive.size() - std::min(archive.size(), kEndBytes + kMaxCommentBytes);
  size_t at = archive.size() - kEndBytes;
  while (Number(archive, at, 4) != kEnd ||
         at + kEndBytes + Number(archive, at + 20, 2) != archive.size()) {
    if (at == first) return Damaged("no end of a zip archive");
    --at;
  }
  Directory directory{.n_members = Number(archive, at + 10, 2),
                      .offset = Number(archive, at + 16, 4),
                      .size_bytes = Number(archive, at + 12, 4)};
  uint64_t disks = Number(archive, at + 4, 2) | Number(archive, at + 6, 2);
  const bool elsewhere = directory.n_members == kElsewhere16 || directory.offset == kElsewhere32 ||
                         directory.size_bytes == kElsewhere32;
  if (elsewhere && at >= kEnd64LocatorBytes &&
      Number(archive, at - kEnd64LocatorBytes, 4) == kEnd64Locator) {
    const auto end = Slice(archive, Number(archive, at - kEnd64LocatorBytes + 8, 8), kEnd64Bytes);
    if (!end || Number(*end, 0, 4) != kEnd64) return Damaged("no Zip64 end record");
    disks = Number(*end, 16, 4) | Number(*end, 20, 4);
    directory = {.n_members = Number(*end, 32, 8),
                 .offset = Number(*end, 48, 8),
                 .size_bytes = Number(*end, 40, 8)};
  }
  if (disks != 0) return absl::UnimplementedError("a zip archive of several parts");
  return directory;
}

// Sizes and offsets that did not fit are in the extra field, in this order.
absl::Status ReadZip64(std::string_view extra, uint64_t* size, uint64_t* compressed_size,
                       uint64_t* offset) {
  while (extra.size() >= 4) {
    const uint64_t id = Number(extra, 0, 2);
    const uint64_t field_size = Number(extra, 2, 2);
    if (extra.size() - 4 < field_size) break;
    std::string_view field = extra.substr(4, field_size);
    extra.remove_prefix(4 + field_size);
    if (id != kZip64Extra) continue;
    for (uint64_t* number : {size, compressed_size, offset}) {
      if (*number != kElsewhere32) continue;
      if (field.size() < 8) return Damaged("a Zip64 field is too short");
      *number = Number(field, 0, 8);
      field.remove_prefix(8);
    }
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

// Of its directory's entry at the start of `entry`, which is whole.
absl::StatusOr<ZipMember> ReadMember(std::string_view archive, std::string_view entry,
                                     uint64_t* header) {
  const uint64_t name_size = Number(entry, 28, 2);
  ZipMember member;
  member.name = std::string(entry.substr(kCentralHeaderBytes, name_size));
  member.encrypted = (Number(entry, 8, 2) & kEncrypted) != 0;
  member.method = static_cast<uint16_t>(Number(entry, 10, 2));
  member.crc32 = static_cast<uint32_t>(Number(entry, 16, 4));
  member.packed_size_bytes = Number(entry, 20, 4);
  member.size_bytes = Number(entry, 24, 4);
  *header = Number(entry, 42, 4);
  RETURN_IF_ERROR(ReadZip64(entry.substr(kCentralHeaderBytes + name_size, Number(entry, 30, 2)),
                            &member.size_bytes, &member.packed_size_bytes, header));
  // The local header has a name and an extra field of its own lengths.
  const auto local = Slice(archive, *header, kLocalHeaderBytes);
  if (!local || Number(*local, 0, 4) != kLocalHeader) {
    return Damaged(StrCat("no header of ", Named(member)));
  }
  member.offset = *header + kLocalHeaderBytes + Number(*local, 26, 2) + Number(*local, 28, 2);
  if (!Slice(archive, member.offset, member.packed_size_bytes)) {
    return Damaged(StrCat(Named(member), " ends behind the archive"));
  }
  if (member.method == kStored && member.packed_size_bytes != member.size_bytes) {
    return Damaged(StrCat(Named(member), " has two sizes"));
  }
  return member;
}

struct Extent {
  uint64_t begin = 0;
  uint64_t end = 0;
  const ZipMember* member = nullptr;
};

// Members lie before the directory. Those that share bytes would be read as both, which is how a
// few kilobytes unpack to petabytes.
absl::Status CheckExtents(std::vector<Extent> extents, uint64_t directory_offset) {
  std::sort(extents.begin(), extents.end(),
            [](const Extent& a, const Extent& b) { return a.begin < b.begin; });
  for (size_t i = 0; i < extents.size(); ++i) {
    const bool is_last = i + 1 == extents.size();
    if (extents[i].end <= (is_last ? directory_offset : extents[i + 1].begin)) continue;
    return Damaged(StrCat(Named(*extents[i].member), " and ",
                          is_last ? "the directory" : Named(*extents[i + 1].member), " overlap"));
  }
  return absl::OkStatus();
}

struct EndInflate {
  void operator()(z_stream* stream) const { inflateEnd(stream); }
};

// Gives what `packed` stands for to `take`, until that says no.
absl::Status Inflate(std::string_view packed, const ZipMember& member,
                     absl::FunctionRef<absl::Status(std::string_view)> take) {
  z_stream stream{};
  // A negative window: bare deflate data, without zlib's header.
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) {
    return absl::ResourceExhaustedError(StrCat("no memory to unpack ", Named(member)));
  }
  const std::unique_ptr<z_stream, EndInflate> end(&stream);
  std::vector<char> piece(kPieceBytes);
  int result = Z_OK;
  while (result != Z_STREAM_END) {
    if (stream.avail_in == 0) {
      const size_t n = std::min<size_t>(packed.size(), std::numeric_limits<uInt>::max());
      stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
      stream.avail_in = static_cast<uInt>(n);
      packed.remove_prefix(n);
    }
    stream.next_out = reinterpret_cast<Bytef*>(piece.data());
    stream.avail_out = static_cast<uInt>(piece.size());
    result = inflate(&stream, Z_NO_FLUSH);
    const size_t n_bytes = piece.size() - stream.avail_out;
    if ((result != Z_OK && result != Z_STREAM_END) || (result == Z_OK && n_bytes == 0)) {
      return Damaged(StrCat(Named(member), " cannot be unpacked"));
    }
    RETURN_IF_ERROR(take(std::string_view(piece.data(), n_bytes)));
  }
  if (stream.avail_in != 0 || !packed.empty()) {
    return Damaged(StrCat("bytes are left behind ", Named(member)));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ZipArchive> ZipArchive::Open(std::string_view bytes) {
  ASSIGN_OR_RETURN(const Directory directory, FindDirectory(bytes));
  std::optional<std::string_view> rest = Slice(bytes, directory.offset, directory.size_bytes);
  if (!rest) return Damaged("its directory is not inside of it");

  ZipArchive archive;
  archive.bytes_ = bytes;
  std::vector<uint64_t> headers;
  while (!rest->empty()) {
    if (rest->size() < kCentralHeaderBytes || Number(*rest, 0, 4) != kCentralHeader) {
      return Damaged("its directory");
    }
    const uint64_t entry_size =
        kCentralHeaderBytes + Number(*rest, 28, 2) + Number(*rest, 30, 2) + Number(*rest, 32, 2);
    if (rest->size() < entry_size) return Damaged("its directory");
    ASSIGN_OR_RETURN(ZipMember member,
                     ReadMember(bytes, rest->substr(0, entry_size), &headers.emplace_back()));
    archive.members_.push_back(std::move(member));
    rest->remove_prefix(entry_size);
  }
  const std::vector<ZipMember>& members = archive.members_;
  if (members.size() != directory.n_members) {
    return Damaged(StrCat("its directory has ", members.size(), " members, its end says ",
                          directory.n_members));
  }
  std::vector<Extent> extents;
  std::vector<size_t>& by_name = archive.by_name_;
  for (size_t i = 0; i < members.size(); ++i) {
    extents.push_back({headers[i], members[i].offset + members[i].packed_size_bytes, &members[i]});
    by_name.push_back(i);
  }
  std::sort(by_name.begin(), by_name.end(),
            [&](size_t a, size_t b) { return members[a].name < members[b].name; });
  const auto twice = std::adjacent_find(by_name.begin(), by_name.end(), [&](size_t a, size_t b) {
    return members[a].name == members[b].name;
  });
  if (twice != by_name.end()) {
    return absl::InvalidArgumentError(StrCat(Named(members[*twice]), " is there twice"));
  }
  RETURN_IF_ERROR(CheckExtents(std::move(extents), directory.offset));
  return archive;
}

const ZipMember* ZipArchive::Find(std::string_view name) const {
  const auto found = std::lower_bound(
      by_name_.begin(), by_name_.end(), name,
      [&](size_t i, std::string_view wanted) { return members_[i].name < wanted; });
  return found == by_name_.end() || members_[*found].name != name ? nullptr : &members_[*found];
}

absl::Status ZipArchive::Unpack(
    const ZipMember& member, uint64_t max_size_bytes,
    absl::FunctionRef<absl::Status(std::string_view piece)> take) const {
  if (member.encrypted) {
    return absl::UnimplementedError(StrCat(Named(member), " is encrypted"));
  }
  if (member.method != kStored && member.method != kDeflated) {
    return absl::UnimplementedError(StrCat(Named(member), " is packed by method ", member.method,
                                           ", want 0 (stored) or 8 (deflated)"));
  }
  if (member.size_bytes > max_size_bytes) {
    return absl::ResourceExhaustedError(
        StrCat(Named(member), " has ", member.size_bytes, " bytes, want at most ", max_size_bytes));
  }
  uint64_t size_bytes = 0;
  uLong checksum = ::crc32(0, nullptr, 0);
  const auto check = [&](std::string_view piece) -> absl::Status {
    size_bytes += piece.size();
    if (size_bytes > member.size_bytes) {
      return Damaged(StrCat(Named(member), " has more than the ", member.size_bytes,
                            " bytes that its directory says"));
    }
    checksum = ::crc32(checksum, reinterpret_cast<const Bytef*>(piece.data()),
                       static_cast<uInt>(piece.size()));
    return take(piece);
  };
  const std::string_view packed = PackedBytes(member);
  if (member.method == kDeflated) {
    RETURN_IF_ERROR(Inflate(packed, member, check));
  } else {
    for (size_t at = 0; at < packed.size(); at += kPieceBytes) {
      RETURN_IF_ERROR(check(packed.substr(at, kPieceBytes)));
    }
  }
  if (size_bytes != member.size_bytes) {
    return Damaged(StrCat(Named(member), " has ", size_bytes, " bytes, want ", member.size_bytes));
  }
  if (checksum != member.crc32)
    return Damaged(StrCat("the CRC-32 of ", Named(member), " is wrong"));
  return absl::OkStatus();
}

absl::StatusOr<std::string> ZipArchive::Read(const ZipMember& member,
                                             uint64_t max_size_bytes) const {
  std::string bytes;
  RETURN_IF_ERROR(Unpack(member, max_size_bytes, [&](std::string_view piece) {
    bytes += piece;
    return absl::OkStatus();
  }));
  return bytes;
}

}  // namespace fovea
