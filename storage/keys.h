// The keys of the store: big-endian numbers, so that RocksDB's byte order is their order.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "storage/records.h"

namespace fovea::storage {

// Keys of the column family meta.
inline constexpr std::string_view kFormatKey = "format";
inline constexpr std::string_view kSettingsKey = "settings";
inline constexpr std::string_view kCountersKey = "counters";

enum class BlockHalf : uint8_t { kKeys = 0, kValues = 1 };

// Documents, windows, samples, segments: the number alone. A key of one number is also the
// smallest key of everything that belongs to it (links of a document, blocks of a window).
std::string NumberKey(uint64_t number);
std::string LinkKey(DocumentNumber document, uint64_t ordinal);
std::string BlockKey(Slot slot_begin, int memory_layer, BlockHalf half);

struct LinkKeyParts {
  DocumentNumber document = 0;
  uint64_t ordinal = 0;
};
struct BlockKeyParts {
  Slot slot_begin = 0;
  int memory_layer = 0;
  BlockHalf half = BlockHalf::kKeys;
};
// Empty where `key` is not a key of this kind.
std::optional<uint64_t> ParseNumberKey(std::string_view key);
std::optional<LinkKeyParts> ParseLinkKey(std::string_view key);
std::optional<BlockKeyParts> ParseBlockKey(std::string_view key);

// Most memory layers that a block key can name.
inline constexpr int kMaxMemoryLayers = 1 << 16;

}  // namespace fovea::storage
