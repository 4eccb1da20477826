#include "model/weights/zip_directory.h"

#include <algorithm>
#include <optional>
#include <set>

#include "model/weights/file_checks.h"

namespace fovea::model {
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

absl::Status Truncated(std::string_view what) {
  return absl::InvalidArgumentError(
      StrCat("truncated or damaged: ", what, "; copy or download it again"));
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
  if (archive.size() < kEndBytes) return Truncated("no end of a zip archive");
  // The end record is the last, but for a comment.
  const size_t first = archive.size() - std::min(archive.size(), kEndBytes + kMaxCommentBytes);
  size_t at = archive.size() - kEndBytes;
  while (Number(archive, at, 4) != kEnd ||
         at + kEndBytes + Number(archive, at + 20, 2) != archive.size()) {
    if (at == first) return Truncated("no end of a zip archive");
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
    if (!end || Number(*end, 0, 4) != kEnd64) return Truncated("no Zip64 end record");
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
      if (field.size() < 8) return Truncated("a Zip64 field is too short");
      *number = Number(field, 0, 8);
      field.remove_prefix(8);
    }
    return absl::OkStatus();
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<ZipMember>> ReadZipDirectory(std::string_view archive) {
  ASSIGN_OR_RETURN(const Directory directory, FindDirectory(archive));
  std::optional<std::string_view> rest = Slice(archive, directory.offset, directory.size_bytes);
  if (!rest) return Truncated("the zip directory is not inside the file");

  std::vector<ZipMember> members;
  std::vector<TensorExtent> extents;
  while (!rest->empty()) {
    if (rest->size() < kCentralHeaderBytes || Number(*rest, 0, 4) != kCentralHeader) {
      return Truncated("the zip directory");
    }
    const uint64_t name_size = Number(*rest, 28, 2);
    const uint64_t extra_size = Number(*rest, 30, 2);
    const uint64_t entry_size = kCentralHeaderBytes + name_size + extra_size + Number(*rest, 32, 2);
    if (rest->size() < entry_size) return Truncated("the zip directory");
    ZipMember member;
    member.name = std::string(rest->substr(kCentralHeaderBytes, name_size));
    member.crc32 = static_cast<uint32_t>(Number(*rest, 16, 4));
    uint64_t compressed_size = Number(*rest, 20, 4);
    uint64_t header = Number(*rest, 42, 4);
    member.size_bytes = Number(*rest, 24, 4);
    RETURN_IF_ERROR(ReadZip64(rest->substr(kCentralHeaderBytes + name_size, extra_size),
                              &member.size_bytes, &compressed_size, &header));
    if ((Number(*rest, 8, 2) & kEncrypted) != 0 || Number(*rest, 10, 2) != 0 ||
        compressed_size != member.size_bytes) {
      return absl::UnimplementedError(StrCat("member ", Printable(member.name),
                                             " is compressed or encrypted; torch.save stores "
                                             "members as they are"));
    }
    // The local header has a name and an extra field of its own lengths.
    const auto local = Slice(archive, header, kLocalHeaderBytes);
    if (!local || Number(*local, 0, 4) != kLocalHeader) {
      return Truncated(StrCat("no header of member ", Printable(member.name)));
    }
    member.offset = header + kLocalHeaderBytes + Number(*local, 26, 2) + Number(*local, 28, 2);
    members.push_back(std::move(member));
    rest->remove_prefix(entry_size);
  }
  if (members.size() != directory.n_members) {
    return Truncated(StrCat("the zip directory has ", members.size(), " members, its end says ",
                            directory.n_members));
  }
  std::set<std::string_view> names;
  for (const ZipMember& member : members) {
    if (!names.insert(member.name).second) {
      return absl::InvalidArgumentError(
          StrCat("member ", Printable(member.name), " is there twice"));
    }
    extents.push_back({member.name, member.offset, member.size_bytes});
  }
  // Members lie before the directory.
  RETURN_IF_ERROR(CheckExtents(std::move(extents), 0, directory.offset));
  return members;
}

}  // namespace fovea::model
