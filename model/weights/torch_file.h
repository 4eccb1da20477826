// The container format of torch.save (pytorch_model.bin): a zip archive with a pickle that names
// tensors, and their bytes, stored as they are. The pickle is read, never executed
// (tensor_pickle.h); tensors are used where they lie.
#pragma once

#include <filesystem>
#include <memory>

#include "base/status.h"
#include "model/weights/tensor_file.h"

namespace fovea::model {

class TorchFile final : public TensorFile {
 public:
  // NotFound; InvalidArgument says where the file is damaged; PermissionDenied names what a hostile
  // pickle would have called; Unimplemented names the format of PyTorch before 1.6, compressed
  // members, other element types and tensors that are not contiguous. Messages begin with the path.
  static absl::StatusOr<std::unique_ptr<TorchFile>> Open(const std::filesystem::path& path);

 private:
  absl::Status Parse();
};

}  // namespace fovea::model
