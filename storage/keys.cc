#include "storage/keys.h"

#include "base/status.h"

namespace fovea::storage {
namespace {

void AppendBigEndian(uint64_t value, int n_bytes, std::string* out) {
  for (int shift = (n_bytes - 1) * 8; shift >= 0; shift -= 8) {
    out->push_back(static_cast<char>(value >> shift));
  }
}

uint64_t ReadBigEndian(std::string_view bytes) {
  uint64_t value = 0;
  for (const char byte : bytes) value = value << 8 | static_cast<uint8_t>(byte);
  return value;
}

}  // namespace

std::string NumberKey(uint64_t number) {
  std::string key;
  AppendBigEndian(number, 8, &key);
  return key;
}

std::string LinkKey(DocumentNumber document, uint64_t ordinal) {
  std::string key;
  AppendBigEndian(document, 8, &key);
  AppendBigEndian(ordinal, 8, &key);
  return key;
}

std::string BlockKey(Slot slot_begin, int memory_layer, BlockHalf half) {
  FOVEA_CHECK(memory_layer >= 0 && memory_layer < kMaxMemoryLayers);
  std::string key;
  AppendBigEndian(slot_begin, 8, &key);
  AppendBigEndian(static_cast<uint64_t>(memory_layer), 2, &key);
  AppendBigEndian(static_cast<uint64_t>(half), 1, &key);
  return key;
}

std::optional<uint64_t> ParseNumberKey(std::string_view key) {
  if (key.size() != 8) return std::nullopt;
  return ReadBigEndian(key);
}

std::optional<LinkKeyParts> ParseLinkKey(std::string_view key) {
  if (key.size() != 16) return std::nullopt;
  return LinkKeyParts{.document = ReadBigEndian(key.substr(0, 8)),
                      .ordinal = ReadBigEndian(key.substr(8))};
}

std::optional<BlockKeyParts> ParseBlockKey(std::string_view key) {
  if (key.size() != 11 || static_cast<uint8_t>(key[10]) > 1) return std::nullopt;
  return BlockKeyParts{.slot_begin = ReadBigEndian(key.substr(0, 8)),
                       .memory_layer = static_cast<int>(ReadBigEndian(key.substr(8, 2))),
                       .half = static_cast<BlockHalf>(key[10])};
}

}  // namespace fovea::storage
