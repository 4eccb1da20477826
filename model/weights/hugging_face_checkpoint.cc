#include "model/weights/hugging_face_checkpoint.h"

namespace fovea::model {

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHuggingFace(const std::filesystem::path& path) {
  return absl::UnimplementedError(StrCat(path, ": safetensors models"));
}

}  // namespace fovea::model
