#include "model/weights/safetensors_file.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "model/weights/file_checks.h"
#include "model/weights/json_file.h"

namespace fovea::model {
namespace {

static_assert(std::endian::native == std::endian::little,
              "safetensors are read in place: little-endian machines only");

// The format's own limit.
constexpr uint64_t kMaxHeaderBytes = 100'000'000;

std::optional<compute::DType> ElementType(std::string_view name) {
  if (name == "F32") return compute::DType::kF32;
  if (name == "F16") return compute::DType::kF16;
  if (name == "BF16") return compute::DType::kBF16;
  return std::nullopt;
}

// Whole numbers of at least 0.
std::optional<std::vector<int64_t>> Integers(const Json* array) {
  if (array == nullptr || !array->is_array()) return std::nullopt;
  std::vector<int64_t> result;
  for (const Json& element : *array) {
    const auto number = JsonToInteger(element);
    if (!number.has_value() || *number < 0) return std::nullopt;
    result.push_back(*number);
  }
  return result;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SafetensorsFile>> SafetensorsFile::Open(
    const std::filesystem::path& path, IntegerTensors integers) {
  auto file = std::make_unique<SafetensorsFile>();
  ASSIGN_OR_RETURN(file->file_, MappedFile::Open(path));
  const absl::Status status = file->Parse(integers);
  if (!status.ok()) return Annotate(status, path.native());
  return file;
}

int64_t StoredIntegers::Value(int64_t i) const {
  if (bytes_per_value == 4) {
    int32_t value = 0;
    std::memcpy(&value, data + i * 4, sizeof value);
    return value;
  }
  int64_t value = 0;
  std::memcpy(&value, data + i * 8, sizeof value);
  return value;
}

absl::Status SafetensorsFile::Parse(IntegerTensors integers) {
  const std::string_view bytes = file_->bytes();
  uint64_t header_size = 0;
  if (bytes.size() < sizeof header_size) {
    return absl::InvalidArgumentError(
        StrCat("truncated: ", bytes.size(), " bytes are less than the header's length takes"));
  }
  std::memcpy(&header_size, bytes.data(), sizeof header_size);
  if (header_size > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(StrCat("no safetensors file, or a damaged one: a header of ",
                                             header_size, " bytes, the limit is ",
                                             kMaxHeaderBytes));
  }
  const uint64_t data_offset = sizeof header_size + header_size;
  if (data_offset > bytes.size()) {
    return absl::InvalidArgumentError(StrCat("truncated: the header ends at byte ", data_offset,
                                             ", the file has ", bytes.size(),
                                             "; copy or download it again"));
  }
  absl::StatusOr<Json> header = ParseJson(bytes.substr(sizeof header_size, header_size));
  if (!header.ok()) return Annotate(header.status(), "header");
  if (!header->is_object()) return absl::InvalidArgumentError("header: want a JSON object");

  std::vector<TensorExtent> extents;
  std::vector<size_t> tensor_extents, integer_extents;  // [tensors_], [integers_]: in extents
  tensors_.reserve(header->size());
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") continue;
    const std::string printable = Printable(name);
    if (!entry.is_object()) {
      return absl::InvalidArgumentError(StrCat(printable, ": want a JSON object"));
    }
    ASSIGN_OR_RETURN(const std::string type, JsonString(entry, "dtype", ""));
    const std::optional<compute::DType> dtype = ElementType(type);
    const int integer_bytes = type == "I32" ? 4 : type == "I64" ? 8 : 0;
    const bool is_integer = integer_bytes > 0 && integers == IntegerTensors::kRead;
    if (!dtype.has_value() && !is_integer) {
      return absl::UnimplementedError(StrCat(printable, ": element type '", Printable(type),
                                             "'; fovea reads F32, F16 and BF16"));
    }
    const auto shape = Integers(JsonFind(entry, "shape"));
    const auto offsets = Integers(JsonFind(entry, "data_offsets"));
    if (!shape.has_value() || shape->size() > 8) {
      return absl::InvalidArgumentError(StrCat(printable, ": shape: want up to 8 whole numbers"));
    }
    if (!offsets.has_value() || offsets->size() != 2 || (*offsets)[0] > (*offsets)[1]) {
      return absl::InvalidArgumentError(
          StrCat(printable, ": data_offsets: want two whole numbers, the smaller one first"));
    }
    // Whole numbers take as much room as one or two floats.
    std::vector<int64_t> sized_shape = *shape;
    if (integer_bytes == 8 && is_integer) sized_shape.push_back(2);
    const absl::StatusOr<size_t> size =
        TensorBytes(dtype.value_or(compute::DType::kF32), sized_shape);
    if (!size.ok()) return Annotate(size.status(), printable);
    const auto extent_size = static_cast<uint64_t>((*offsets)[1] - (*offsets)[0]);
    if (*size != extent_size) {
      return absl::InvalidArgumentError(StrCat(printable, ": ", extent_size, " bytes, a shape of ",
                                               ShapeString(*shape), " of type ", type, " wants ",
                                               *size));
    }
    if (is_integer) {
      integers_.push_back({name, *shape, integer_bytes, nullptr});
      integer_extents.push_back(extents.size());
    } else {
      tensors_.push_back({name, *dtype, *shape, nullptr, *size});
      tensor_extents.push_back(extents.size());
    }
    extents.push_back({name, static_cast<uint64_t>((*offsets)[0]), extent_size});
  }
  // Names are views of the header's keys, which live until here.
  RETURN_IF_ERROR(CheckExtents(extents, data_offset, bytes.size()));
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  for (size_t i = 0; i < tensors_.size(); ++i) {
    tensors_[i].data = data + data_offset + extents[tensor_extents[i]].offset;
  }
  for (size_t i = 0; i < integers_.size(); ++i) {
    integers_[i].data = data + data_offset + extents[integer_extents[i]].offset;
  }
  SortTensors();
  return absl::OkStatus();
}

}  // namespace fovea::model
