// RocksDB's slices and ours.
#pragma once

#include <string_view>

#include "rocksdb/slice.h"

namespace fovea::storage {

inline rocksdb::Slice ToSlice(std::string_view bytes) { return {bytes.data(), bytes.size()}; }
inline std::string_view ToView(const rocksdb::Slice& slice) { return {slice.data(), slice.size()}; }

}  // namespace fovea::storage
