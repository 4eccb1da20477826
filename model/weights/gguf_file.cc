#include "model/weights/gguf_file.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

#include "model/weights/file_checks.h"

namespace fovea::model {
namespace {

static_assert(std::endian::native == std::endian::little,
              "GGUF is read in place: little-endian machines only");

// Value types of metadata, as the format numbers them.
enum ValueType : uint32_t {
  kUint8 = 0,
  kInt8 = 1,
  kUint16 = 2,
  kInt16 = 3,
  kUint32 = 4,
  kInt32 = 5,
  kFloat32 = 6,
  kBool = 7,
  kString = 8,
  kArray = 9,
  kUint64 = 10,
  kInt64 = 11,
  kFloat64 = 12,
};

// Bytes of a value of fixed size; 0 for strings, arrays and unknown types.
size_t FixedBytes(uint32_t type) {
  switch (type) {
    case kUint8:
    case kInt8:
    case kBool:
      return 1;
    case kUint16:
    case kInt16:
      return 2;
    case kUint32:
    case kInt32:
    case kFloat32:
      return 4;
    case kUint64:
    case kInt64:
    case kFloat64:
      return 8;
    default:
      return 0;
  }
}

template <typename T>
T Load(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof value);
  return value;
}

// Nothing for other types, and for integers above 2^63.
std::optional<int64_t> LoadInteger(uint32_t type, const char* bytes) {
  switch (type) {
    case kUint8:
      return Load<uint8_t>(bytes);
    case kInt8:
      return Load<int8_t>(bytes);
    case kUint16:
      return Load<uint16_t>(bytes);
    case kInt16:
      return Load<int16_t>(bytes);
    case kUint32:
      return Load<uint32_t>(bytes);
    case kInt32:
      return Load<int32_t>(bytes);
    case kInt64:
      return Load<int64_t>(bytes);
    case kUint64: {
      const auto value = Load<uint64_t>(bytes);
      if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(value);
    }
    default:
      return std::nullopt;
  }
}

std::optional<double> LoadNumber(uint32_t type, const char* bytes) {
  if (type == kFloat32) return Load<float>(bytes);
  if (type == kFloat64) return Load<double>(bytes);
  if (auto integer = LoadInteger(type, bytes)) return static_cast<double>(*integer);
  return std::nullopt;
}

std::optional<compute::DType> ElementType(uint32_t type) {
  switch (type) {
    case 0:
      return compute::DType::kF32;
    case 1:
      return compute::DType::kF16;
    case 2:
      return compute::DType::kQ4_0;
    case 3:
      return compute::DType::kQ4_1;
    case 6:
      return compute::DType::kQ5_0;
    case 7:
      return compute::DType::kQ5_1;
    case 8:
      return compute::DType::kQ8_0;
    case 12:
      return compute::DType::kQ4_K;
    case 13:
      return compute::DType::kQ5_K;
    case 14:
      return compute::DType::kQ6_K;
    case 30:
      return compute::DType::kBF16;
    default:
      return std::nullopt;
  }
}

// How people and their tools call an element type.
std::string ElementTypeName(uint32_t type) {
  static constexpr const char* kNames[] = {
      "F32",     "F16",    "Q4_0",    "Q4_1",  "Q4_2",   "Q4_3",  "Q5_0",  "Q5_1",
      "Q8_0",    "Q8_1",   "Q2_K",    "Q3_K",  "Q4_K",   "Q5_K",  "Q6_K",  "Q8_K",
      "IQ2_XXS", "IQ2_XS", "IQ3_XXS", "IQ1_S", "IQ4_NL", "IQ3_S", "IQ2_S", "IQ4_XS",
      "I8",      "I16",    "I32",     "I64",   "F64",    "IQ1_M", "BF16"};
  if (type < std::size(kNames)) return kNames[type];
  if (type == 34) return "TQ1_0";
  if (type == 35) return "TQ2_0";
  if (type == 39) return "MXFP4";
  return StrCat("number ", type);
}

}  // namespace

// A cursor that refuses to leave the file.
class GgufFile::Reader {
 public:
  explicit Reader(std::string_view bytes) : bytes_(bytes) {}

  size_t offset() const { return offset_; }
  size_t n_left() const { return bytes_.size() - offset_; }

  absl::StatusOr<std::string_view> Bytes(uint64_t n, std::string_view what) {
    if (n > n_left()) {
      return absl::InvalidArgumentError(StrCat("truncated or damaged: ", what, " at byte ", offset_,
                                               " needs ", n, " bytes, the file has ", n_left(),
                                               " more"));
    }
    const std::string_view result = bytes_.substr(offset_, n);
    offset_ += n;
    return result;
  }

  template <typename T>
  absl::StatusOr<T> Fixed(std::string_view what) {
    ASSIGN_OR_RETURN(const std::string_view bytes, Bytes(sizeof(T), what));
    return Load<T>(bytes.data());
  }

  absl::StatusOr<std::string_view> String(std::string_view what) {
    ASSIGN_OR_RETURN(const uint64_t size, Fixed<uint64_t>(what));
    return Bytes(size, what);
  }

  absl::StatusOr<Value> ReadValue(uint32_t type, std::string_view what, int depth = 0) {
    Value value;
    value.type = type;
    if (type == kString) {
      ASSIGN_OR_RETURN(value.bytes, String(what));
      return value;
    }
    if (type != kArray) {
      const size_t size = FixedBytes(type);
      if (size == 0) {
        return absl::InvalidArgumentError(StrCat(what, ": unknown type ", type, " of metadata"));
      }
      ASSIGN_OR_RETURN(value.bytes, Bytes(size, what));
      return value;
    }
    // Nobody nests arrays today; the limit bounds the recursion.
    if (depth >= 4) return absl::InvalidArgumentError(StrCat(what, ": arrays nested too deep"));
    ASSIGN_OR_RETURN(value.element_type, Fixed<uint32_t>(what));
    ASSIGN_OR_RETURN(value.n_elements, Fixed<uint64_t>(what));
    const size_t begin = offset_;
    if (const size_t size = FixedBytes(value.element_type); size > 0) {
      if (value.n_elements > n_left() / size) {
        return absl::InvalidArgumentError(StrCat("truncated or damaged: ", what, " at byte ", begin,
                                                 " has ", value.n_elements, " elements of ", size,
                                                 " bytes, the file has ", n_left(), " bytes more"));
      }
      offset_ += value.n_elements * size;
    } else {
      // Each element takes at least its length of 8 bytes, so a wrong count ends at the file's end.
      for (uint64_t i = 0; i < value.n_elements; ++i) {
        RETURN_IF_ERROR(ReadValue(value.element_type, what, depth + 1).status());
      }
    }
    value.bytes = bytes_.substr(begin, offset_ - begin);
    return value;
  }

 private:
  std::string_view bytes_;
  size_t offset_ = 0;
};

absl::StatusOr<GgufFile> GgufFile::Parse(std::string_view bytes) {
  Reader reader(bytes);
  GgufFile file;
  ASSIGN_OR_RETURN(const std::string_view magic, reader.Bytes(4, "magic number"));
  if (magic != "GGUF") {
    return absl::InvalidArgumentError(
        StrCat("not a GGUF file: it starts with '", Printable(magic), "'"));
  }
  ASSIGN_OR_RETURN(const uint32_t version, reader.Fixed<uint32_t>("version"));
  if (version != 2 && version != 3) {
    return absl::UnimplementedError(
        (version & 0xffffu) == 0
            ? std::string("a big-endian GGUF file; convert it with gguf-convert-endian")
            : StrCat("GGUF version ", version, "; fovea reads 2 and 3"));
  }
  ASSIGN_OR_RETURN(const uint64_t n_tensors, reader.Fixed<uint64_t>("number of tensors"));
  ASSIGN_OR_RETURN(const uint64_t n_values, reader.Fixed<uint64_t>("number of metadata values"));

  // Entries take at least 13 and 24 bytes: larger counts are lies, refused before they cost time.
  if (n_values > reader.n_left() / 13) {
    return absl::InvalidArgumentError(
        StrCat("damaged: ", n_values, " metadata values in ", bytes.size(), " bytes"));
  }
  if (n_tensors > reader.n_left() / 24) {
    return absl::InvalidArgumentError(
        StrCat("damaged: ", n_tensors, " tensors in ", bytes.size(), " bytes"));
  }
  for (uint64_t i = 0; i < n_values; ++i) {
    ASSIGN_OR_RETURN(const std::string_view key, reader.String(StrCat("metadata key ", i)));
    if (key.empty() || !IsUtf8(key)) {
      return absl::InvalidArgumentError(
          StrCat("damaged: metadata key ", i, " ('", Printable(key), "') is empty or not UTF-8"));
    }
    ASSIGN_OR_RETURN(const uint32_t type, reader.Fixed<uint32_t>(Printable(key)));
    ASSIGN_OR_RETURN(const Value value, reader.ReadValue(type, Printable(key)));
    if (!file.metadata_.emplace(key, value).second) {
      return absl::InvalidArgumentError(StrCat("metadata ", Printable(key), " occurs twice"));
    }
  }

  uint64_t alignment = 32;
  if (file.Has("general.alignment")) {
    ASSIGN_OR_RETURN(const int64_t value, file.Integer("general.alignment"));
    if (value <= 0 || value > (1 << 30) || !std::has_single_bit(static_cast<uint64_t>(value))) {
      return absl::InvalidArgumentError(
          StrCat("general.alignment: ", value, ", want a power of two"));
    }
    alignment = static_cast<uint64_t>(value);
  }

  std::vector<TensorExtent> extents;
  std::set<std::string_view> names;  // views of the file
  for (uint64_t i = 0; i < n_tensors; ++i) {
    StoredTensor tensor;
    ASSIGN_OR_RETURN(const std::string_view stored_name,
                     reader.String(StrCat("name of tensor ", i)));
    if (stored_name.empty() || !IsUtf8(stored_name)) {
      return absl::InvalidArgumentError(StrCat("damaged: the name of tensor ", i, " ('",
                                               Printable(stored_name), "') is empty or not UTF-8"));
    }
    const std::string name = Printable(stored_name);
    if (!names.insert(stored_name).second) {
      return absl::InvalidArgumentError(StrCat("tensor ", name, " occurs twice"));
    }
    ASSIGN_OR_RETURN(const uint32_t n_dimensions, reader.Fixed<uint32_t>(name));
    if (n_dimensions == 0 || n_dimensions > 4) {
      return absl::InvalidArgumentError(
          StrCat(name, ": ", n_dimensions, " dimensions, want 1 to 4"));
    }
    tensor.shape.resize(n_dimensions);
    for (uint32_t d = 0; d < n_dimensions; ++d) {
      ASSIGN_OR_RETURN(const uint64_t size, reader.Fixed<uint64_t>(name));
      if (size == 0 || size > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
        return absl::InvalidArgumentError(StrCat(name, ": a dimension of ", size));
      }
      tensor.shape[n_dimensions - 1 - d] = static_cast<int64_t>(size);
    }
    ASSIGN_OR_RETURN(const uint32_t type, reader.Fixed<uint32_t>(name));
    const std::optional<compute::DType> dtype = ElementType(type);
    if (!dtype.has_value()) {
      return absl::UnimplementedError(StrCat(name, ": element type ", ElementTypeName(type),
                                             "; fovea reads F32, F16, BF16, Q4_0, Q4_1, Q5_0, "
                                             "Q5_1, Q8_0, Q4_K, Q5_K and Q6_K: get the "
                                             "model in one of them"));
    }
    tensor.dtype = *dtype;
    absl::StatusOr<size_t> size = TensorBytes(tensor.dtype, tensor.shape);
    if (!size.ok()) return Annotate(size.status(), name);
    tensor.size_bytes = *size;
    ASSIGN_OR_RETURN(const uint64_t offset, reader.Fixed<uint64_t>(name));
    if (offset % alignment != 0) {
      return absl::InvalidArgumentError(
          StrCat(name, ": offset ", offset, " is no multiple of the alignment ", alignment));
    }
    extents.push_back({stored_name, offset, tensor.size_bytes});
    tensor.name = stored_name;
    file.tensors_.push_back(std::move(tensor));
  }

  // The data part starts at the next multiple of the alignment.
  const uint64_t data_offset = (reader.offset() + alignment - 1) / alignment * alignment;
  RETURN_IF_ERROR(CheckExtents(extents, data_offset, bytes.size()));
  const auto* data = reinterpret_cast<const std::byte*>(bytes.data());
  for (size_t i = 0; i < file.tensors_.size(); ++i) {
    file.tensors_[i].data = data + data_offset + extents[i].offset;
  }
  return file;
}

absl::StatusOr<const GgufFile::Value*> GgufFile::Get(std::string_view key) const {
  const auto it = metadata_.find(key);
  if (it == metadata_.end()) return absl::NotFoundError(StrCat("metadata ", key, " is missing"));
  return &it->second;
}

absl::StatusOr<const GgufFile::Value*> GgufFile::GetArray(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Get(key));
  if (value->type != kArray) {
    return absl::InvalidArgumentError(StrCat("metadata ", key, " is no array"));
  }
  return value;
}

bool GgufFile::IsArray(std::string_view key) const {
  const auto it = metadata_.find(key);
  return it != metadata_.end() && it->second.type == kArray;
}

absl::StatusOr<int64_t> GgufFile::Integer(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Get(key));
  if (auto integer = LoadInteger(value->type, value->bytes.data())) return *integer;
  return absl::InvalidArgumentError(StrCat("metadata ", key, " is no integer below 2^63"));
}

absl::StatusOr<double> GgufFile::Number(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Get(key));
  const auto number = LoadNumber(value->type, value->bytes.data());
  if (!number.has_value() || !std::isfinite(*number)) {
    return absl::InvalidArgumentError(StrCat("metadata ", key, " is no finite number"));
  }
  return *number;
}

absl::StatusOr<bool> GgufFile::Bool(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Get(key));
  if (value->type != kBool) {
    return absl::InvalidArgumentError(StrCat("metadata ", key, " is no boolean"));
  }
  return value->bytes[0] != 0;
}

absl::StatusOr<std::string> GgufFile::String(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, Get(key));
  if (value->type != kString || !IsUtf8(value->bytes)) {
    return absl::InvalidArgumentError(StrCat("metadata ", key, " is no string of UTF-8"));
  }
  return std::string(value->bytes);
}

absl::StatusOr<std::vector<std::string>> GgufFile::Strings(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, GetArray(key));
  if (value->element_type != kString) {
    return absl::InvalidArgumentError(StrCat("metadata ", key, " is no array of strings"));
  }
  std::vector<std::string> result;
  result.reserve(value->n_elements);  // Parse walked them all: the count is true
  Reader reader(value->bytes);
  for (uint64_t i = 0; i < value->n_elements; ++i) {
    ASSIGN_OR_RETURN(const std::string_view text, reader.String(key));
    if (!IsUtf8(text)) {
      return absl::InvalidArgumentError(
          StrCat("metadata ", key, "[", i, "] ('", Printable(text), "') is not UTF-8"));
    }
    result.emplace_back(text);
  }
  return result;
}

absl::StatusOr<std::vector<int64_t>> GgufFile::Integers(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, GetArray(key));
  const size_t size = FixedBytes(value->element_type);
  std::vector<int64_t> result;
  result.reserve(size > 0 ? value->n_elements : 0);
  for (uint64_t i = 0; i < value->n_elements; ++i) {
    const auto integer =
        size > 0 ? LoadInteger(value->element_type, value->bytes.data() + i * size) : std::nullopt;
    if (!integer.has_value()) {
      return absl::InvalidArgumentError(StrCat("metadata ", key, " is no array of integers"));
    }
    result.push_back(*integer);
  }
  return result;
}

absl::StatusOr<std::vector<float>> GgufFile::Numbers(std::string_view key) const {
  ASSIGN_OR_RETURN(const Value* value, GetArray(key));
  const size_t size = FixedBytes(value->element_type);
  std::vector<float> result;
  result.reserve(size > 0 ? value->n_elements : 0);
  for (uint64_t i = 0; i < value->n_elements; ++i) {
    const auto number =
        size > 0 ? LoadNumber(value->element_type, value->bytes.data() + i * size) : std::nullopt;
    if (!number.has_value()) {
      return absl::InvalidArgumentError(StrCat("metadata ", key, " is no array of numbers"));
    }
    result.push_back(static_cast<float>(*number));
  }
  return result;
}

}  // namespace fovea::model
