// Records to and from bytes (docs/storage-format.md is their grammar), in their envelope.
//
// Encoders answer InvalidArgument for records that break an invariant of records.h; what they
// encode decodes to the same record. Decoders trust nothing: every length is checked before
// memory is taken for it, and DataLoss names the record, what was expected and what is there.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/status.h"
#include "storage/document_store.h"
#include "storage/keys.h"
#include "storage/record_envelope.h"
#include "storage/records.h"

namespace fovea::storage {

std::string EncodeFormatVersion(int format_version);
absl::StatusOr<int> DecodeFormatVersion(std::string_view value);

// kSettings where entries are bfloat16, else kTypedSettings.
absl::StatusOr<std::string> EncodeSettings(const StoreSettings& settings);
absl::StatusOr<StoreSettings> DecodeSettings(std::string_view value);

std::string EncodeCounters(const Counters& counters);
absl::StatusOr<Counters> DecodeCounters(std::string_view value);

// Whether the sources of `document` differ in more than their collections: its record is a
// kSourcedDocument then, else a kDocument.
bool HasDifferentSources(const DocumentRecord& document);
// Whether the record says that it is a kSourcedDocument.
bool IsSourcedDocument(std::string_view value);
absl::StatusOr<std::string> EncodeDocument(const DocumentRecord& document);
absl::StatusOr<DocumentRecord> DecodeDocument(std::string_view key, std::string_view value);

// Whether the record says that it is a kRepeatsLink.
bool IsRepeatsLink(std::string_view value);
// kLink where no tokens are named, else kRepeatsLink.
absl::StatusOr<std::string> EncodeLink(const WindowLink& link);
absl::StatusOr<WindowLink> DecodeLink(std::string_view key, std::string_view value);

absl::StatusOr<std::string> EncodeWindow(const WindowRecord& window);
absl::StatusOr<WindowRecord> DecodeWindow(std::string_view key, std::string_view value);

// One half of a block; the other half of `block` is not looked at.
absl::StatusOr<std::string> EncodeBlockHalf(Slot slot_begin, int memory_layer, const Block& block,
                                            BlockHalf half);
// A view into `value`. `settings` may be null: shape and type are then not compared with it.
absl::StatusOr<BlockView> ViewBlockHalf(std::string_view key, std::string_view value,
                                        const StoreSettings* settings);
// Fills the shape of `block` and the half that `key` names from what ViewBlockHalf returns. After
// an error `block` is unspecified.
absl::Status DecodeBlockHalf(std::string_view key, std::string_view value,
                             const StoreSettings* settings, Block* block);

absl::StatusOr<std::string> EncodeQuerySample(Slot slot_begin, const QuerySample& sample);
absl::StatusOr<QuerySample> DecodeQuerySample(std::string_view key, std::string_view value,
                                              const StoreSettings* settings);

absl::StatusOr<std::string> EncodeSegment(const SegmentRecord& segment);
absl::StatusOr<SegmentRecord> DecodeSegment(std::string_view key, std::string_view value);

}  // namespace fovea::storage
