#include "base/entries.h"

#include <algorithm>

namespace fovea {

std::string_view EntryTypeName(EntryType type) {
  return type == EntryType::kFloat32 ? "float32" : "bfloat16";
}

size_t EntryBytes(EntryType type) {
  return type == EntryType::kFloat32 ? sizeof(float) : sizeof(BFloat16);
}

void EntriesToFloat(EntryPointer from, float* out, size_t n) {
  if (from.type() == EntryType::kFloat32) {
    std::copy_n(from.As<float>(), n, out);
  } else {
    BFloat16ToFloat(from.As<BFloat16>(), out, n);
  }
}

EntryVector::EntryVector(EntryType type, size_t n) {
  if (type == EntryType::kFloat32) {
    numbers_.emplace<std::vector<float>>(n);
  } else {
    numbers_.emplace<std::vector<BFloat16>>(n);
  }
}

std::span<std::byte> EntryVector::bytes() {
  return std::visit([](auto& numbers) { return std::as_writable_bytes(std::span(numbers)); },
                    numbers_);
}

float EntryVector::operator[](size_t i) const {
  return std::visit([i](const auto& numbers) { return static_cast<float>(numbers[i]); }, numbers_);
}

void EntryVector::Set(size_t begin, EntryPointer from, size_t n) {
  FOVEA_CHECK(begin <= size() && n <= size() - begin);
  if (auto* floats = std::get_if<std::vector<float>>(&numbers_)) {
    EntriesToFloat(from, floats->data() + begin, n);
    return;
  }
  BFloat16* const to = std::get<std::vector<BFloat16>>(numbers_).data() + begin;
  if (from.type() == EntryType::kFloat32) {
    FloatToBFloat16(from.As<float>(), to, n);
  } else {
    std::copy_n(from.As<BFloat16>(), n, to);
  }
}

}  // namespace fovea
