// Where models and adapters lie and what they are called: names → paths, the adapter that belongs
// to a model, and what a memory remembers of both.
//
//   const ModelHome home = ModelHome::FromEnvironment();
//   ASSIGN_OR_RETURN(ModelChoice choice, ChooseModel(home, "smollm2", std::nullopt));
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/hash.h"
#include "base/status.h"
#include "model/transformer.h"
#include "storage/records.h"

namespace fovea::model_home {

// The model that is used where none is named.
constexpr std::string_view kDefaultModel = "smollm2";
// FOVEA_MODEL, where it is set, else kDefaultModel.
std::string DefaultModel();
// Given as an adapter: the model as it is.
constexpr std::string_view kNoAdapter = "none";
// Given as an adapter, followed by numbers ("layers:9,15,21"): the model as it is, with memory in
// these layers, counted from 0.
constexpr std::string_view kLayersPrefix = "layers:";

struct ModelHome {
  std::filesystem::path folder;  // models/ and adapters/ are in it
  // More folders that hold adapters: those that come with the program.
  std::vector<std::filesystem::path> adapter_folders;

  // $FOVEA_HOME, else ~/.local/share/fovea; and the adapters beside the running program
  // (<folder of the program>/../share/fovea/adapters), beside the library that this is linked into,
  // where it is one (<folder of the library>/adapters: a Python package), and of the installation.
  static ModelHome FromEnvironment();

  std::filesystem::path models() const { return folder / "models"; }
};

// A model that fovea knows by name.
struct NamedModel {
  std::string name;  // "smollm2", or the name of a file without its ending
  std::filesystem::path path;
  bool installed = false;
  uint64_t size_bytes = 0;  // of what is installed
};
// Those that can be pulled, then everything else in models/, sorted.
std::vector<NamedModel> ListModels(const ModelHome& home);

// An adapter's folder with a fot_config.json.
struct NamedAdapter {
  std::string name;  // of the folder
  std::filesystem::path path;
  std::string base_fingerprint;  // of the checkpoint that it was made for; may be empty
};
// In the order in which they are looked up.
std::vector<NamedAdapter> ListAdapters(const ModelHome& home);

// The file or folder of a model given by path or name. NotFound lists the names that would do.
absl::StatusOr<std::filesystem::path> FindModel(const ModelHome& home, const std::string& model);

// Files to load, and what to remember of them in a memory's settings.
struct ModelChoice {
  std::filesystem::path model;
  std::optional<std::filesystem::path> adapter;
  std::string model_name;       // a name, or an absolute path
  std::string adapter_name;     // a name, an absolute path, "none" or "layers:…"
  std::vector<int> mem_layers;  // of "layers:…"
  // For people: none was asked for, and the one that comes with fovea for this model was not found.
  // Who makes a memory says so. Empty: nothing.
  std::string adapter_warning;
};

// `model`: path or name. `adapter`: path, name, "none" or "layers:…"; unset: the first of
// ListAdapters that was made for this model, if there is one.
absl::StatusOr<ModelChoice> ChooseModel(const ModelHome& home, const std::string& model,
                                        const std::optional<std::string>& adapter);

// What a memory was made with. `model` and `adapter`, where given, say where it lies now.
absl::StatusOr<ModelChoice> RememberedModel(const ModelHome& home,
                                            const storage::StoreSettings& settings,
                                            const std::optional<std::string>& model,
                                            const std::optional<std::string>& adapter);

model::LoadOptions ToLoadOptions(const ModelChoice& choice);

}  // namespace fovea::model_home
