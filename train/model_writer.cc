#include "train/model_writer.h"

#include <system_error>

#include "base/file.h"
#include "base/strings.h"
#include "train/safetensors_writer.h"

namespace fovea::train {

absl::StatusOr<ModelFiles> ReadModelFiles(const std::filesystem::path& checkpoint) {
  if (checkpoint.extension() == ".gguf") {
    return absl::UnimplementedError(
        StrCat(checkpoint,
               ": a model that is trained whole is written as a Hugging Face folder, "
               "with the configuration and the tokenizer of the one that it was: a GGUF file has "
               "no such files; name the model's folder with safetensors, or train a LoRA"));
  }
  std::error_code error;
  const std::filesystem::path folder =
      std::filesystem::is_directory(checkpoint, error) ? checkpoint : checkpoint.parent_path();
  ModelFiles files;
  for (const char* name :
       {"config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json",
        "merges.txt", "special_tokens_map.json", "added_tokens.json", "chat_template.jinja",
        "generation_config.json"}) {
    if (!std::filesystem::exists(folder / name, error)) continue;
    ASSIGN_OR_RETURN(files[name], ReadFile(folder / name));
  }
  return files;
}

absl::Status WriteModel(const TrainableModel& model, const ModelFiles& files,
                        const AdapterDescription& description,
                        const std::filesystem::path& folder) {
  FOVEA_CHECK(model.is_trained_whole() && !model.options().trains_key_gain);
  SafetensorsWriter writer;
  for (const auto& [name, tensor] : model.CheckpointTensors()) {
    writer.Add(name, tensor, tensor.scalar_type());
  }
  AdapterDescription own = description;
  own.base_fingerprint.clear();
  RETURN_IF_ERROR(CreateDirectories(folder));
  RETURN_IF_ERROR(writer.Write(folder / "model.safetensors"));
  for (const auto& [name, content] : files) {
    RETURN_IF_ERROR(WriteFileAtomic(folder / name, content));
  }
  return WriteFileAtomic(folder / "fot_config.json", FotConfigText(model, own));
}

}  // namespace fovea::train
