// The container format safetensors: a JSON header that names tensors, and their bytes. Knows
// nothing of architectures; every length and offset in the file is distrusted.
#pragma once

#include <filesystem>
#include <memory>
#include <string_view>
#include <vector>

#include "base/file.h"
#include "base/status.h"
#include "model/weights/stored_tensor.h"

namespace fovea::model {

// Immutable and thread-safe; owns the mapping that its tensors point into.
class SafetensorsFile {
 public:
  // NotFound; InvalidArgument names the file and says where it is damaged; Unimplemented names a
  // tensor and its element type. Messages begin with the path.
  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_->path(); }
  // Sorted by name, unique; bytes lie in the file and do not overlap.
  const std::vector<StoredTensor>& tensors() const { return tensors_; }
  bool Contains(std::string_view name) const;

 private:
  absl::Status Parse();
  std::unique_ptr<MappedFile> file_;
  std::vector<StoredTensor> tensors_;
};

}  // namespace fovea::model
