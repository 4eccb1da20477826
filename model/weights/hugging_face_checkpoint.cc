#include "model/weights/hugging_face_checkpoint.h"

#include <algorithm>
#include <map>
#include <set>

#include "model/weights/file_checks.h"
#include "model/weights/hugging_face_config.h"
#include "model/weights/hugging_face_tokenizer.h"
#include "model/weights/json_file.h"
#include "model/weights/model_layout.h"
#include "model/weights/safetensors_file.h"

namespace fovea::model {
namespace {

constexpr char kIndexName[] = "model.safetensors.index.json";

// Tensor → file, as the index of a sharded model says. Files lie in the folder itself.
absl::StatusOr<std::map<std::string, std::string>> ReadIndex(const std::filesystem::path& path) {
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
    if (!file.ends_with(".safetensors") || std::filesystem::path(file).filename() != file) {
      return absl::InvalidArgumentError(
          StrCat(path, ": tensor ", Printable(tensor), " is in '", Printable(file),
                 "', want the name of a .safetensors file in the same folder"));
    }
    files.emplace(tensor, file);
  }
  return files;
}

// The one file of a model without an index.
absl::StatusOr<std::filesystem::path> FindSingleFile(const std::filesystem::path& folder) {
  std::error_code error;
  if (std::filesystem::exists(folder / "model.safetensors", error)) {
    return folder / "model.safetensors";
  }
  std::vector<std::filesystem::path> found;
  bool has_pickle = false;
  for (std::filesystem::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    if (it->path().extension() == ".safetensors") found.push_back(it->path());
    has_pickle |= it->path().extension() == ".bin";
  }
  if (error) return ErrnoToStatus(error.value(), "list", folder);
  if (found.size() == 1) return found[0];
  if (found.size() > 1) {
    return absl::InvalidArgumentError(StrCat(folder, ": ", found.size(),
                                             " safetensors files and no ", kIndexName,
                                             ": name the one to read"));
  }
  if (has_pickle) {
    return absl::UnimplementedError(
        StrCat(folder, ": the weights are a .bin file; convert them to safetensors"));
  }
  return absl::NotFoundError(StrCat(folder, ": no .safetensors file"));
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
    if (is_folder && std::filesystem::exists(folder / kIndexName, error)) {
      RETURN_IF_ERROR(OpenShards(folder));
    } else {
      std::filesystem::path file = path_;
      if (is_folder) {
        ASSIGN_OR_RETURN(file, FindSingleFile(folder));
      }
      ASSIGN_OR_RETURN(auto opened, SafetensorsFile::Open(file));
      files_.push_back(std::move(opened));
    }
    TensorTable table;
    for (const auto& file : files_) {
      for (const StoredTensor& tensor : file->tensors()) table.emplace(tensor.name, &tensor);
    }
    config_ = std::move(config.model);
    memory_config_ = std::move(config.memory);
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
    return absl::OkStatus();
  }

  // Every tensor must be in the shard that the index names, and in no other.
  absl::Status OpenShards(const std::filesystem::path& folder) {
    const std::filesystem::path index_path = folder / kIndexName;
    using FileOfTensor = std::map<std::string, std::string>;
    ASSIGN_OR_RETURN(const FileOfTensor file_of_tensor, ReadIndex(index_path));
    std::set<std::string> names;
    for (const auto& [tensor, file] : file_of_tensor) names.insert(file);
    size_t n_found = 0;
    for (const std::string& name : names) {
      ASSIGN_OR_RETURN(auto file, SafetensorsFile::Open(folder / name));
      for (const StoredTensor& tensor : file->tensors()) {
        const auto it = file_of_tensor.find(tensor.name);
        if (it == file_of_tensor.end() || it->second != name) {
          return absl::InvalidArgumentError(StrCat(
              folder / name, ": tensor ", Printable(tensor.name), " is here, but ",
              it == file_of_tensor.end() ? "not" : StrCat("in ", it->second), " in ", kIndexName));
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
                                                   " is missing, ", kIndexName, " names it"));
        }
      }
    }
    return absl::OkStatus();
  }

  std::vector<std::unique_ptr<SafetensorsFile>> files_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Checkpoint>> OpenHuggingFace(const std::filesystem::path& path) {
  return HuggingFaceCheckpoint::Open(path);
}

}  // namespace fovea::model
