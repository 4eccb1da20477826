// The container format GGUF, versions 2 and 3, little-endian: typed metadata and a table of
// tensors. Knows nothing of architectures; every length and offset in the file is distrusted.
//
//   ASSIGN_OR_RETURN(GgufFile gguf, GgufFile::Parse(mapped->bytes()));
//   ASSIGN_OR_RETURN(int64_t n_layers, gguf.Integer("llama.block_count"));
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "model/weights/stored_tensor.h"

namespace fovea::model {

// Immutable and thread-safe; a view of the bytes it was made from, which must outlive it.
class GgufFile {
 public:
  // InvalidArgument says where the file is damaged; Unimplemented names a version, or a tensor and
  // its element type.
  static absl::StatusOr<GgufFile> Parse(std::string_view bytes);

  // Metadata. NotFound when `key` is absent, InvalidArgument when its type or value does not fit.
  bool Has(std::string_view key) const { return metadata_.contains(key); }
  absl::StatusOr<int64_t> Integer(std::string_view key) const;  // any integer type
  absl::StatusOr<double> Number(std::string_view key) const;    // any integer or float type
  absl::StatusOr<bool> Bool(std::string_view key) const;
  absl::StatusOr<std::string> String(std::string_view key) const;                // UTF-8
  absl::StatusOr<std::vector<std::string>> Strings(std::string_view key) const;  // each UTF-8
  absl::StatusOr<std::vector<int64_t>> Integers(std::string_view key) const;
  absl::StatusOr<std::vector<float>> Numbers(std::string_view key) const;
  bool IsArray(std::string_view key) const;

  // In file order, shapes outermost first (the file stores them innermost first); names are unique,
  // bytes lie in the file and do not overlap.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }

 private:
  struct Value {
    uint32_t type = 0;
    uint32_t element_type = 0;  // of an array
    uint64_t n_elements = 0;    // of an array
    std::string_view bytes;     // of the value (a string without its length), or of all elements
  };
  class Reader;
  absl::StatusOr<const Value*> Get(std::string_view key) const;
  absl::StatusOr<const Value*> GetArray(std::string_view key) const;

  std::map<std::string_view, Value> metadata_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace fovea::model
