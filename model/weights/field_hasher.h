// A hash over a sequence of fields: fixed widths, and a length in front of everything that has one,
// so that different contents give different streams.
#pragma once

#include <bit>
#include <cstdint>
#include <string_view>
#include <vector>

#include "base/hash.h"

namespace fovea::model {

// Not thread-safe.
class FieldHasher {
 public:
  void Add(std::string_view text) {
    Add(static_cast<int64_t>(text.size()));
    hasher_.Update(text);
  }
  void Add(int64_t value) { hasher_.Update({reinterpret_cast<const char*>(&value), sizeof value}); }
  void Add(float value) { Add(static_cast<int64_t>(std::bit_cast<uint32_t>(value))); }
  template <typename T>
  void Add(const std::vector<T>& values) {
    Add(static_cast<int64_t>(values.size()));
    for (const T& value : values) Add(value);
  }
  Hash128 Finish() const { return hasher_.Finish(); }

 private:
  FastHasher hasher_;
};

}  // namespace fovea::model
