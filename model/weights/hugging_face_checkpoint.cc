#include "model/weights/hugging_face_checkpoint.h"

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "model/weights/file_checks.h"
#include "model/weights/fot_config.h"
#include "model/weights/hugging_face_config.h"
#include "model/weights/hugging_face_tokenizer.h"
#include "model/weights/json_file.h"
#include "model/weights/model_layout.h"
#include "model/weights/safetensors_file.h"
#include "model/weights/torch_file.h"

namespace fovea::model {
namespace {

// A format of weight files in a model's folder.
struct WeightFormat {
  std::string_view extension;
  std::string_view file_name;   // of a model in one file
  std::string_view index_name;  // of a sharded one
};
// The first that is there is read.
constexpr WeightFormat kFormats[] = {
    {".safetensors", "model.safetensors", "model.safetensors.index.json"},
    {".bin", "pytorch_model.bin", "pytorch_model.bin.index.json"},
};

absl::StatusOr<std::unique_ptr<TensorFile>> OpenTensorFile(const std::filesystem::path& path) {
  if (path.extension() == kFormats[1].extension) return TorchFile::Open(path);
  return SafetensorsFile::Open(path);
}

// Tensor → file, as the index of a sharded model says. Files lie in the folder itself.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::filesystem::path& path,
                                                             const WeightFormat& format) {
  // Some 100 bytes a tensor.
  ASSIGN_OR_RETURN(const Json json, ReadJsonObject(path, size_t{64} << 20));
  const Json* weight_map = JsonFind(json, "weight_map");
  if (weight_map == nullptr || !weight_map->is_object() || weight_map->empty()) {
    return absl::InvalidArgumentError(
        StrCat(path, ": key weight_map: want an object of tensors and their files"));
  }
  std::map<std::string, std::string> files;
  for (const auto& [tensor, value] : weight_map->items()) {
    const std::string file = value.is_string() ? value.get<std::string>() : "";
    if (!file.ends_with(format.extension) || std::filesystem::path(file).filename() != file) {
      return absl::InvalidArgumentError(StrCat(path, ": tensor ", Printable(tensor), " is in '",
                                               Printable(file), "', want the name of a ",
                                               format.extension, " file in the same folder"));
    }
    files.emplace(tensor, file);
  }
  return files;
}

// The one safetensors file of a folder that calls it something of its own.
absl::StatusOr<std::filesystem::path> FindOtherFile(const std::filesystem::path& folder) {
  std::error_code error;
  std::vector<std::filesystem::path> found;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == kFormats[0].extension) found.push_back(it->path());
  }
  if (error) return ErrnoToStatus(error.value(), "list", folder);
  if (found.size() == 1) return found[0];
  if (found.size() > 1) {
    return absl::InvalidArgumentError(StrCat(folder, ": ", found.size(),
                                             " safetensors files and no ", kFormats[0].index_name,
                                             ": name the one to read"));
  }
  return absl::NotFoundError(
      StrCat(folder, ": no weights: want model.safetensors or pytorch_model.bin"));
}

class HuggingFaceCheckpoint : public Checkpoint {
 public:
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::filesystem::path& path) {
    auto checkpoint = std::make_unique<HuggingFaceCheckpoint>();
    checkpoint->path_ = path;
    RETURN_IF_ERROR(checkpoint->Read());
    return checkpoint;
  }

 private:
  absl::Status Read() {
    std::error_code error;
    const bool is_folder = std::filesystem::is_directory(path_, error);
    const std::filesystem::path folder = is_folder ? path_ : path_.parent_path();
    ASSIGN_OR_RETURN(HuggingFaceConfig config, ReadHuggingFaceConfig(folder / "config.json"));
    RETURN_IF_ERROR(is_folder ? OpenFolder(folder) : OpenSingle(path_));
    TensorTable table;
    for (const auto& file : files_) {
      for (const StoredTensor& tensor : file->tensors()) table.emplace(tensor.name, &tensor);
    }
    config_ = std::move(config.model);
    memory_config_ = std::move(config.memory);
    RETURN_IF_ERROR(ReadOwnMemory(folder / "fot_config.json"));
    absl::StatusOr<std::vector<Tensor>> tensors =
        TakeTensors(config_, std::move(table), TensorNames::kHuggingFace);
    if (!tensors.ok()) return Annotate(tensors.status(), path_.native());
    tensors_ = *std::move(tensors);
    ASSIGN_OR_RETURN(
        tokenizer_spec_,
        ReadHuggingFaceTokenizer(folder, {config_, memory_config_, config.bos_id, config.eos_ids}));
    if (config_.name.empty()) {
      std::filesystem::path named = std::filesystem::absolute(folder, error).lexically_normal();
      if (!named.has_filename()) named = named.parent_path();  // it ended in a slash
      config_.name = named.filename().string();
    }
    if (config_.architecture == "longllama" && tokenizer_spec_.chat_template.empty() &&
        IsInstructionTuned(config_.name)) {
      memory_config_.chat_template = "longllama";
    }
    return absl::OkStatus();
  }

  // Of a model that was trained for memory as a whole, without an adapter.
  absl::Status ReadOwnMemory(const std::filesystem::path& path) {
    if (config_.architecture == "longllama") return absl::OkStatus();  // its config.json says it
    absl::StatusOr<FotConfig> fot = ReadFotConfig(path, config_);
    if (absl::IsNotFound(fot.status())) return absl::OkStatus();
    RETURN_IF_ERROR(fot.status());
    if (fot->memory_key_gain) {
      return absl::InvalidArgumentError(
          StrCat(path,
                 ": key memory_key_gain: true beside a model; gains are an adapter's, want "
                 "false"));
    }
    memory_config_ = std::move(fot->memory);
    return absl::OkStatus();
  }

  // The published LongLLaMA-Instruct checkpoints say so in their names alone.
  static bool IsInstructionTuned(std::string name) {
    std::transform(name.begin(), name.end(), name.begin(),
                   [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return name.find("instruct") != std::string::npos;
  }

  absl::Status OpenFolder(const std::filesystem::path& folder) {
    std::error_code error;
    for (const WeightFormat& format : kFormats) {
      if (std::filesystem::exists(folder / format.index_name, error)) {
        return OpenShards(folder, format);
      }
      if (std::filesystem::exists(folder / format.file_name, error)) {
        return OpenSingle(folder / format.file_name);
      }
    }
    ASSIGN_OR_RETURN(const std::filesystem::path file, FindOtherFile(folder));
    return OpenSingle(file);
  }

  absl::Status OpenSingle(const std::filesystem::path& file) {
    ASSIGN_OR_RETURN(auto opened, OpenTensorFile(file));
    files_.push_back(std::move(opened));
    return absl::OkStatus();
  }

  // Every tensor must be in the shard that the index names, and in no other.
  absl::Status OpenShards(const std::filesystem::path& folder, const WeightFormat& format) {
    const std::filesystem::path index_path = folder / format.index_name;
    using FileOfTensor = std::map<std::string, std::string>;
    ASSIGN_OR_RETURN(const FileOfTensor file_of_tensor, ReadIndex(index_path, format));
    std::set<std::string> names;
    for (const auto& [tensor, file] : file_of_tensor) names.insert(file);
    size_t n_found = 0;
    for (const std::string& name : names) {
      ASSIGN_OR_RETURN(auto file, OpenTensorFile(folder / name));
      for (const StoredTensor& tensor : file->tensors()) {
        const auto it = file_of_tensor.find(tensor.name);
        if (it == file_of_tensor.end() || it->second != name) {
          return absl::InvalidArgumentError(
              StrCat(folder / name, ": tensor ", Printable(tensor.name), " is here, but ",
                     it == file_of_tensor.end() ? "not" : StrCat("in ", it->second), " in ",
                     format.index_name));
        }
        ++n_found;
      }
      files_.push_back(std::move(file));
    }
    if (n_found == file_of_tensor.size()) return absl::OkStatus();
    for (const auto& [tensor, name] : file_of_tensor) {
      for (const auto& file : files_) {
        if (file->path().filename() == name && !file->Contains(tensor)) {
          return absl::InvalidArgumentError(StrCat(file->path(), ": tensor ", Printable(tensor),
                                                   " is missing, ", format.index_name,
                                                   " names it"));
        }
      }
    }
    return absl::OkStatus();
  }

  std::vector<std::unique_ptr<TensorFile>> files_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHuggingFace(const std::filesystem::path& path) {
  return HuggingFaceCheckpoint::Open(path);
}

}  // namespace fovea::model
