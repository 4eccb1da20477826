#include "storage/record_envelope.h"

#include <cstring>

#include "absl/strings/escaping.h"
#include "absl/strings/str_format.h"
#include "storage/byte_io.h"
#include "storage/keys.h"

namespace fovea::storage {
namespace {

std::string_view TypeName(RecordType type) {
  switch (type) {
    case RecordType::kFormat:
      return "format version";
    case RecordType::kSettings:
    case RecordType::kTypedSettings:
      return "settings";
    case RecordType::kCounters:
      return "counters";
    case RecordType::kDocument:
    case RecordType::kSourcedDocument:
      return "document";
    case RecordType::kLink:
    case RecordType::kRepeatsLink:
      return "link";
    case RecordType::kWindow:
      return "window";
    case RecordType::kBlockKeys:
    case RecordType::kFloat32BlockKeys:
      return "keys";
    case RecordType::kBlockValues:
    case RecordType::kFloat32BlockValues:
      return "values";
    case RecordType::kQuerySample:
      return "query sample";
    case RecordType::kSegment:
      return "segment";
  }
  return "record of no known type";
}

}  // namespace

std::string DescribeRecord(RecordType type, std::string_view key) {
  switch (type) {
    case RecordType::kDocument:
    case RecordType::kSourcedDocument:
      if (const auto number = ParseNumberKey(key)) return StrCat("document number ", *number);
      break;
    case RecordType::kLink:
    case RecordType::kRepeatsLink:
      if (const auto link = ParseLinkKey(key)) {
        return StrCat("link to window ", link->ordinal, " of document number ", link->document);
      }
      break;
    case RecordType::kWindow:
      if (const auto slot = ParseNumberKey(key)) return StrCat("window at slot ", *slot);
      break;
    case RecordType::kQuerySample:
      if (const auto slot = ParseNumberKey(key)) {
        return StrCat("query sample of the window at slot ", *slot);
      }
      break;
    case RecordType::kSegment:
      if (const auto id = ParseNumberKey(key)) return StrCat("segment ", *id);
      break;
    case RecordType::kBlockKeys:
    case RecordType::kBlockValues:
    case RecordType::kFloat32BlockKeys:
    case RecordType::kFloat32BlockValues:
      if (const auto block = ParseBlockKey(key)) {
        return StrCat(TypeName(type), " of memory layer ", block->memory_layer,
                      " of the window at slot ", block->slot_begin);
      }
      break;
    case RecordType::kFormat:
    case RecordType::kSettings:
    case RecordType::kTypedSettings:
    case RecordType::kCounters:
      return std::string(TypeName(type));
  }
  return StrCat(TypeName(type), " under the key 0x", ToStd(absl::BytesToHexString(ToAbsl(key))));
}

uint64_t RecordChecksum(std::string_view key, std::string_view type_and_payload) {
  return Checksum64(type_and_payload) ^ Checksum64(key);
}

std::string SealRecord(RecordType type, std::string_view key, std::string_view payload) {
  std::string value;
  value.reserve(kTypeBytes + payload.size() + kChecksumBytes);
  value.push_back(static_cast<char>(type));
  value.append(payload);
  ByteWriter(&value).U64(RecordChecksum(key, value));
  return value;
}

absl::StatusOr<std::string_view> OpenRecord(RecordType type, std::string_view key,
                                            std::string_view value) {
  if (value.size() < kTypeBytes + kChecksumBytes) {
    return Damaged(type, key,
                   StrCat(value.size(), " bytes, want at least ", kTypeBytes + kChecksumBytes));
  }
  const std::string_view content = value.substr(0, value.size() - kChecksumBytes);
  uint64_t stored = 0;
  std::memcpy(&stored, value.data() + content.size(), sizeof(stored));
  const uint64_t computed = RecordChecksum(key, content);
  if (stored != computed) {
    return Damaged(type, key,
                   absl::StrFormat("its bytes have checksum %016x, want %016x", computed, stored));
  }
  if (static_cast<uint8_t>(content[0]) != static_cast<uint8_t>(type)) {
    return Damaged(type, key,
                   StrCat("record type ", static_cast<int>(static_cast<uint8_t>(content[0])),
                          ", want ", static_cast<int>(type)));
  }
  return content.substr(kTypeBytes);
}

absl::Status Damaged(RecordType type, std::string_view key, std::string_view what) {
  return absl::DataLossError(ToAbsl(StrCat(DescribeRecord(type, key), ": damaged: ", what)));
}

absl::Status Invalid(RecordType type, std::string_view key, std::string_view what) {
  return absl::InvalidArgumentError(ToAbsl(StrCat(DescribeRecord(type, key), ": ", what)));
}

absl::Status Malformed(RecordType type, std::string_view key) {
  return Damaged(type, key, "its checksum is right, but its fields do not end where it ends");
}

absl::Status BadKey(RecordType type, std::string_view key) {
  return Damaged(type, key, "its key does not have the form of such a key");
}

bool ClaimsToBe(RecordType type, std::string_view value) {
  return !value.empty() && static_cast<uint8_t>(value[0]) == static_cast<uint8_t>(type);
}

}  // namespace fovea::storage
