#include "model/weights/file_checks.h"

#include <algorithm>
#include <limits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"

namespace fovea::model {

bool IsUtf8(std::string_view text) {
  size_t i = 0;
  while (i < text.size()) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    int n_continuation;
    uint32_t code;
    if ((lead & 0xe0) == 0xc0) {
      n_continuation = 1;
      code = lead & 0x1f;
    } else if ((lead & 0xf0) == 0xe0) {
      n_continuation = 2;
      code = lead & 0x0f;
    } else if ((lead & 0xf8) == 0xf0) {
      n_continuation = 3;
      code = lead & 0x07;
    } else {
      return false;
    }
    if (text.size() - i <= static_cast<size_t>(n_continuation)) return false;
    for (int k = 1; k <= n_continuation; ++k) {
      const auto byte = static_cast<unsigned char>(text[i + k]);
      if ((byte & 0xc0) != 0x80) return false;
      code = (code << 6) | (byte & 0x3f);
    }
    // Overlong forms, surrogates and what lies behind Unicode's end are not characters.
    static constexpr uint32_t kSmallest[] = {0, 0x80, 0x800, 0x10000};
    if (code < kSmallest[n_continuation] || code > 0x10ffff) return false;
    if (code >= 0xd800 && code <= 0xdfff) return false;
    i += n_continuation + 1;
  }
  return true;
}

std::string Printable(std::string_view text) {
  constexpr size_t kMaxBytes = 100;
  if (text.size() <= kMaxBytes) return absl::CHexEscape(ToAbsl(text));
  return absl::CHexEscape(ToAbsl(text.substr(0, kMaxBytes))) + "…";
}

std::string ShapeString(std::span<const int64_t> shape) {
  return StrCat("[", absl::StrJoin(shape.begin(), shape.end(), ","), "]");
}

absl::StatusOr<size_t> TensorBytes(compute::DType dtype, std::span<const int64_t> shape) {
  ASSIGN_OR_RETURN(size_t size, compute::RowBytes(dtype, shape.empty() ? 1 : shape.back()));
  for (size_t i = 0; i + 1 < shape.size(); ++i) {
    uint64_t product;
    if (shape[i] < 0 || __builtin_mul_overflow(size, static_cast<uint64_t>(shape[i]), &product) ||
        product > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return absl::InvalidArgumentError(
          StrCat("shape ", ShapeString(shape), " is larger than any memory"));
    }
    size = product;
  }
  return size;
}

absl::Status CheckExtents(std::vector<TensorExtent> extents, uint64_t data_offset,
                          uint64_t file_size_bytes) {
  const TensorExtent* last = nullptr;
  for (const TensorExtent& extent : extents) {
    uint64_t end;
    uint64_t file_size;
    if (__builtin_add_overflow(extent.offset, extent.size_bytes, &end) ||
        __builtin_add_overflow(end, data_offset, &file_size)) {
      return absl::InvalidArgumentError(StrCat(Printable(extent.name), ": offset ", extent.offset,
                                               " and size ", extent.size_bytes, " overflow"));
    }
    if (last == nullptr || end > last->offset + last->size_bytes) last = &extent;
  }
  if (last != nullptr && data_offset + last->offset + last->size_bytes > file_size_bytes) {
    return absl::InvalidArgumentError(StrCat("truncated: ", Printable(last->name), " ends at byte ",
                                             data_offset + last->offset + last->size_bytes,
                                             ", the file has ", file_size_bytes,
                                             "; copy or download it again"));
  }
  std::sort(extents.begin(), extents.end(), [](const TensorExtent& a, const TensorExtent& b) {
    return a.offset != b.offset ? a.offset < b.offset : a.size_bytes < b.size_bytes;
  });
  for (size_t i = 1; i < extents.size(); ++i) {
    const TensorExtent& previous = extents[i - 1];
    if (previous.offset + previous.size_bytes > extents[i].offset) {
      return absl::InvalidArgumentError(
          StrCat(Printable(previous.name), " (bytes ", previous.offset, " to ",
                 previous.offset + previous.size_bytes, ") and ", Printable(extents[i].name),
                 " (from ", extents[i].offset, ") overlap"));
    }
  }
  return absl::OkStatus();
}

}  // namespace fovea::model
