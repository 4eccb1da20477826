// What every stored value is wrapped in (docs/storage-format.md):
//   type (1 byte) ‖ payload ‖ checksum (8 bytes)
// Its checksum covers the key too: a record under another record's key is damage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"

namespace fovea::storage {

// A record whose layout changes gets a new number; a number is never given to another layout.
enum class RecordType : uint8_t {
  kFormat = 1,
  kSettings = 2,
  kCounters = 3,
  kDocument = 4,
  kLink = 5,
  kWindow = 6,
  kBlockKeys = 7,
  kBlockValues = 8,
  kQuerySample = 9,
  kSegment = 10,
  // Of memories with float32 entries, instead of the settings and blocks above.
  kTypedSettings = 11,
  kFloat32BlockKeys = 12,
  kFloat32BlockValues = 13,
  // A document whose sources differ in more than their collections, instead of the one above.
  kSourcedDocument = 14,
  // A link to a window with tokens that are not to be selected, instead of the one above.
  kRepeatsLink = 15,
};
inline constexpr int kNumRecordTypes = 15;

inline constexpr size_t kTypeBytes = 1;
inline constexpr size_t kChecksumBytes = 8;

// XXH3-64 of type and payload, exclusive-or XXH3-64 of the key: the two are hashed where they lie.
uint64_t RecordChecksum(std::string_view key, std::string_view type_and_payload);

// The value of a record that has `payload`.
std::string SealRecord(RecordType type, std::string_view key, std::string_view payload);
// The payload of `value`, once type and checksum are found right.
absl::StatusOr<std::string_view> OpenRecord(RecordType type, std::string_view key,
                                            std::string_view value);
// Whether `value` says that it is a record of `type`; OpenRecord finds out whether that is true.
bool ClaimsToBe(RecordType type, std::string_view value);

// What people call the record under `key`: "window at slot 4096", "keys of memory layer 1 of the
// window at slot 4096".
std::string DescribeRecord(RecordType type, std::string_view key);

// DataLoss: "<the record>: damaged: <what>".
absl::Status Damaged(RecordType type, std::string_view key, std::string_view what);
// DataLoss for payloads whose checksum is right and whose content is not: written by a faulty
// program.
absl::Status Malformed(RecordType type, std::string_view key);
// DataLoss for keys of the wrong form, which can only come from a faulty program or from damage
// that RocksDB's own checksums let through.
absl::Status BadKey(RecordType type, std::string_view key);
// InvalidArgument: "<the record>: <what>", of one that is not to be stored.
absl::Status Invalid(RecordType type, std::string_view key, std::string_view what);

}  // namespace fovea::storage
