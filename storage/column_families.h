// The column families of the store: what each holds is in docs/storage-format.md.
#pragma once

#include <array>
#include <cstddef>
#include <string>

namespace fovea::storage {

enum class ColumnFamily {
  kMeta,
  kDocuments,
  kLinks,
  kWindows,
  kBlocks,
  kSamples,
  kSegments,
};

// In the order of the enumeration.
inline constexpr std::array<const char*, 7> kColumnFamilyNames = {
    "meta", "documents", "links", "windows", "blocks", "samples", "segments"};

}  // namespace fovea::storage
