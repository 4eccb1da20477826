// The members of a zip archive (APPNOTE 6.3, Zip64 among it): where they lie, and their bytes,
// unpacked in pieces. An archive may be anyone's: what it claims is checked before it is believed.
//
//   ASSIGN_OR_RETURN(const ZipArchive archive, ZipArchive::Open(file->bytes()));
//   const ZipMember* member = archive.Find("word/document.xml");
//   ASSIGN_OR_RETURN(const std::string xml, archive.Read(*member, kMaxBytes));
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status.h"

namespace fovea {

struct ZipMember {
  std::string name;
  uint64_t offset = 0;             // of its first byte in the archive
  uint64_t packed_size_bytes = 0;  // there
  uint64_t size_bytes = 0;         // unpacked, as the directory says
  uint32_t crc32 = 0;              // of the unpacked bytes, likewise
  uint16_t method = 0;             // 0: stored as it is, 8: deflated; others cannot be unpacked
  bool encrypted = false;
};

// Immutable and thread-safe. Messages do not name the archive.
class ZipArchive {
 public:
  // Reads the directory: every member lies inside of the archive, none shares bytes or a name with
  // another. `bytes` outlive the archive. DataLoss: no archive, or a damaged one; InvalidArgument:
  // two members of one name; Unimplemented: an archive of several parts.
  static absl::StatusOr<ZipArchive> Open(std::string_view bytes);

  // In the order of the directory.
  const std::vector<ZipMember>& members() const { return members_; }
  // Null when there is none of this name.
  const ZipMember* Find(std::string_view name) const;

  // As they lie in the archive: the member itself, where it is stored as it is.
  std::string_view PackedBytes(const ZipMember& member) const {
    return bytes_.substr(member.offset, member.packed_size_bytes);
  }

  // Gives a member's bytes to `take`, in order, and then compares size and CRC-32 with what the
  // directory says; never gives more bytes than that. ResourceExhausted when it says more than
  // `max_size_bytes`; Unimplemented: encrypted, or packed in another way; DataLoss: damaged. Else
  // the first error of `take`.
  absl::Status Unpack(const ZipMember& member, uint64_t max_size_bytes,
                      absl::FunctionRef<absl::Status(std::string_view piece)> take) const;
  // The same, as a whole.
  absl::StatusOr<std::string> Read(const ZipMember& member, uint64_t max_size_bytes) const;

 private:
  std::string_view bytes_;
  std::vector<ZipMember> members_;
  std::vector<size_t> by_name_;  // places in members_, in the order of their names
};

}  // namespace fovea
