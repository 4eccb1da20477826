// A file of named tensors that stays mapped: what the readers of safetensors and PyTorch files have
// in common.
#pragma once

#include <algorithm>
#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "model/weights/stored_tensor.h"

namespace fovea::model {

// Immutable and thread-safe; owns the mapping that its tensors point into.
class TensorFile {
 public:
  virtual ~TensorFile() = default;

  const std::filesystem::path& path() const { return file_->path(); }
  // Sorted by name, unique; bytes lie in the file.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  bool Contains(std::string_view name) const {
    const auto it = std::lower_bound(
        tensors_.begin(), tensors_.end(), name,
        [](const StoredTensor& tensor, std::string_view n) { return tensor.name < n; });
    return it != tensors_.end() && it->name == name;
  }

 protected:
  void SortTensors() {
    std::sort(tensors_.begin(), tensors_.end(),
              [](const StoredTensor& a, const StoredTensor& b) { return a.name < b.name; });
  }

  std::unique_ptr<MappedFile> file_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace fovea::model
