#include "model_home/model_home.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <system_error>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "model/weights/checkpoint.h"
#include "nlohmann/json.hpp"

namespace fovea::model_home {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kAdapterConfig = "fot_config.json";
constexpr size_t kMaxAdapterConfigBytes = size_t{1} << 20;

// Models with a name of their own, that `fovea model pull` can get.
struct KnownModel {
  std::string_view name;
  std::string_view file;
  std::string_view adapter;  // that comes with fovea
};
constexpr KnownModel kKnownModels[] = {
    {.name = kDefaultModel,
     .file = "SmolLM2-135M-Instruct.Q4_1.gguf",
     .adapter = "smollm2-135m-fot-5"},
};

bool Exists(const fs::path& path) {
  std::error_code error;
  return fs::exists(path, error);
}

fs::path Absolute(const fs::path& path) {
  std::error_code error;
  fs::path absolute = fs::absolute(path, error);
  return error ? path : absolute.lexically_normal();
}

// Entries of a folder, sorted; none when it cannot be read.
std::vector<fs::path> Entries(const fs::path& folder) {
  std::vector<fs::path> entries;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    entries.push_back(it->path());
  }
  std::sort(entries.begin(), entries.end());
  return entries;
}

// In the order in which they are looked up.
std::vector<fs::path> AdapterFolders(const ModelHome& home) {
  std::vector<fs::path> folders = {home.folder / "adapters"};
  folders.insert(folders.end(), home.adapter_folders.begin(), home.adapter_folders.end());
  return folders;
}

bool IsModel(const fs::path& path) {
  const std::string extension = path.extension().string();
  if (extension == ".gguf" || extension == ".safetensors") return true;
  return Exists(path / "config.json");
}

uint64_t SizeBytes(const fs::path& path) {
  std::error_code error;
  if (fs::is_regular_file(path, error)) {
    const uintmax_t size = fs::file_size(path, error);
    return error ? 0 : static_cast<uint64_t>(size);
  }
  uint64_t total = 0;
  for (const fs::path& entry : Entries(path)) {
    if (fs::is_regular_file(entry, error)) total += SizeBytes(entry);
  }
  return total;
}

// "base_fingerprint" of fot_config.json; empty when there is none, or the file is no JSON: loading
// the adapter is what reports that.
std::string BaseFingerprint(const fs::path& adapter) {
  const absl::StatusOr<std::string> text =
      ReadFile(adapter / kAdapterConfig, kMaxAdapterConfigBytes);
  if (!text.ok()) return "";
  const nlohmann::json config = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!config.is_object()) return "";
  const auto it = config.find("base_fingerprint");
  return it != config.end() && it->is_string() ? it->get<std::string>() : "";
}

absl::StatusOr<NamedAdapter> FindAdapter(const ModelHome& home, const std::string& adapter) {
  if (adapter.find('/') == std::string::npos) {
    for (NamedAdapter& named : ListAdapters(home)) {
      if (named.name == adapter) return std::move(named);
    }
  }
  const fs::path path = Absolute(adapter);
  if (Exists(path))
    return NamedAdapter{.name = path.string(), .path = path, .base_fingerprint = ""};
  std::string known;
  for (const NamedAdapter& named : ListAdapters(home)) known += StrCat(" ", named.name);
  return absl::NotFoundError(StrCat("adapter ", adapter, ": no such folder and no adapter of ",
                                    "this name (there are:", known.empty() ? " none" : known,
                                    "); pass --adapter DIR"));
}

// "9,15,21": ascending numbers of layers. Whether the model has them is for loading to say.
absl::StatusOr<std::vector<int>> ParseLayers(std::string_view list) {
  std::vector<int> layers;
  for (const absl::string_view part : absl::StrSplit(ToAbsl(list), ',')) {
    int layer = 0;
    if (!absl::SimpleAtoi(part, &layer) || layer < 0 ||
        (!layers.empty() && layer <= layers.back())) {
      return absl::InvalidArgumentError(
          StrCat("memory layers \"", list, "\": want ascending numbers from 0, as 9,15,21"));
    }
    layers.push_back(layer);
  }
  return layers;
}

// Whether it is the one that a model with a name of its own is used with.
bool IsKnown(const NamedAdapter& adapter) {
  return std::any_of(std::begin(kKnownModels), std::end(kKnownModels),
                     [&](const KnownModel& known) { return adapter.name == known.adapter; });
}

// The adapter that was made for exactly this checkpoint. Of several in one folder the known one,
// else the first by name: what a user has comes before what fovea brings.
absl::StatusOr<std::optional<NamedAdapter>> AdapterFor(const ModelHome& home,
                                                       const fs::path& model) {
  std::vector<NamedAdapter> adapters = ListAdapters(home);
  std::erase_if(adapters, [](const NamedAdapter& named) { return named.base_fingerprint.empty(); });
  if (adapters.empty()) return std::nullopt;  // the weights need not be read
  ASSIGN_OR_RETURN(const auto checkpoint, model::Checkpoint::Open(model));
  const std::string fingerprint = checkpoint->Fingerprint().ToHex();
  std::optional<NamedAdapter> found;
  for (NamedAdapter& named : adapters) {
    if (named.base_fingerprint != fingerprint) continue;
    const bool is_first = !found.has_value();
    const bool is_better =
        !is_first && IsKnown(named) && named.path.parent_path() == found->path.parent_path();
    if (is_first || is_better) found = std::move(named);
  }
  return found;
}

// Of a model for which no adapter was found, though one comes with fovea; empty for any other.
std::string AdapterWarning(const ModelHome& home, const fs::path& model) {
  const auto* known = std::find_if(std::begin(kKnownModels), std::end(kKnownModels),
                                   [&](const KnownModel& k) { return model.filename() == k.file; });
  if (known == std::end(kKnownModels)) return "";
  const std::string meaning =
      "without it a memory is searched by words alone; pass --adapter none "
      "if that is meant";
  for (const NamedAdapter& named : ListAdapters(home)) {
    if (named.name != known->adapter) continue;
    return StrCat("the adapter of ", known->name, ", ", named.path.string(),
                  ", was made for another file than ", model.string(), ": ", meaning,
                  ", or run `fovea model pull ", known->name, "`");
  }
  std::string folders;
  for (const fs::path& folder : AdapterFolders(home)) {
    folders += StrCat(folders.empty() ? "" : " or ", folder.string());
  }
  return StrCat("the adapter of ", known->name, ", ", known->adapter, ", is not in ", folders, ": ",
                meaning,
                ", or put share/fovea beside the folder of the program, as it is installed");
}

// The file that this code was loaded from: the program, or a shared library. Empty: it cannot be
// told.
fs::path OwnFile() {
  Dl_info info = {};
  static const char here = 0;
  return dladdr(&here, &info) != 0 && info.dli_fname != nullptr ? fs::path(info.dli_fname)
                                                                : fs::path();
}

}  // namespace

std::string DefaultModel() {
  const char* model = std::getenv("FOVEA_MODEL");
  return model != nullptr && *model != '\0' ? model : std::string(kDefaultModel);
}

ModelHome ModelHome::FromEnvironment() {
  ModelHome home;
  const char* fovea_home = std::getenv("FOVEA_HOME");
  if (fovea_home != nullptr && *fovea_home != '\0') {
    home.folder = Absolute(fovea_home);
  } else {
    const char* user_home = std::getenv("HOME");
    home.folder = fs::path(user_home != nullptr ? user_home : "/") / ".local/share/fovea";
  }
  std::error_code error;
  const fs::path program = fs::read_symlink("/proc/self/exe", error);
  if (!error) {
    home.adapter_folders.push_back(
        (program.parent_path() / ".." / "share/fovea/adapters").lexically_normal());
  }
  const fs::path own = OwnFile();
  if (own.extension() == ".so") home.adapter_folders.push_back(own.parent_path() / "adapters");
  home.adapter_folders.push_back(fs::path(FOVEA_DATA_FOLDER) / "adapters");
  return home;
}

std::vector<NamedModel> ListModels(const ModelHome& home) {
  std::vector<NamedModel> models;
  std::set<fs::path> known_paths;
  for (const KnownModel& known : kKnownModels) {
    NamedModel model{.name = std::string(known.name), .path = home.models() / known.file};
    model.installed = Exists(model.path);
    if (model.installed) model.size_bytes = SizeBytes(model.path);
    known_paths.insert(model.path);
    models.push_back(std::move(model));
  }
  for (const fs::path& entry : Entries(home.models())) {
    if (known_paths.contains(entry) || !IsModel(entry)) continue;
    std::error_code error;
    const bool is_folder = fs::is_directory(entry, error);
    models.push_back({.name = (is_folder ? entry.filename() : entry.stem()).string(),
                      .path = entry,
                      .installed = true,
                      .size_bytes = SizeBytes(entry)});
  }
  return models;
}

std::vector<NamedAdapter> ListAdapters(const ModelHome& home) {
  std::vector<NamedAdapter> adapters;
  for (const fs::path& folder : AdapterFolders(home)) {
    for (const fs::path& entry : Entries(folder)) {
      if (!Exists(entry / kAdapterConfig)) continue;
      adapters.push_back({.name = entry.filename().string(),
                          .path = entry,
                          .base_fingerprint = BaseFingerprint(entry)});
    }
  }
  return adapters;
}

absl::StatusOr<fs::path> FindModel(const ModelHome& home, const std::string& model) {
  std::string listed;
  const bool may_be_name = model.find('/') == std::string::npos;
  for (const NamedModel& named : ListModels(home)) {
    if (may_be_name && (named.name == model || named.path.filename() == model)) {
      if (named.installed) return named.path;
      if (Exists(model)) break;  // a file or folder of this name lies here
      return absl::NotFoundError(StrCat("model ", model, " is not installed (", named.path,
                                        "): run `fovea model pull ", model, "`"));
    }
    if (named.installed) listed += StrCat(" ", named.name);
  }
  if (Exists(model)) return Absolute(model);
  return absl::NotFoundError(StrCat(
      "model ", model, ": no such file and no model of this name (in ", home.models(), ":",
      listed.empty() ? " none" : listed, "); pass a GGUF file or a safetensors folder, or run ",
      "`fovea model pull ", kDefaultModel, "`"));
}

absl::StatusOr<ModelChoice> ChooseModel(const ModelHome& home, const std::string& model,
                                        const std::optional<std::string>& adapter) {
  ModelChoice choice;
  ASSIGN_OR_RETURN(choice.model, FindModel(home, model));
  // A name stays right when the home moves; a path is remembered so that it does not depend on the
  // folder that the command was started in.
  const bool is_name =
      choice.model.parent_path() == home.models() && model.find('/') == std::string::npos;
  choice.model_name = is_name ? model : Absolute(choice.model).string();

  choice.adapter_name = std::string(kNoAdapter);
  std::optional<NamedAdapter> found;
  if (!adapter.has_value()) {
    ASSIGN_OR_RETURN(found, AdapterFor(home, choice.model));
    if (!found.has_value()) choice.adapter_warning = AdapterWarning(home, choice.model);
  } else if (adapter->starts_with(kLayersPrefix)) {
    ASSIGN_OR_RETURN(choice.mem_layers, ParseLayers(adapter->substr(kLayersPrefix.size())));
    choice.adapter_name = *adapter;
  } else if (*adapter != kNoAdapter && !adapter->empty()) {
    ASSIGN_OR_RETURN(found, FindAdapter(home, *adapter));
  }
  if (found.has_value()) {
    choice.adapter = found->path;
    choice.adapter_name = found->name;
  }
  return choice;
}

absl::StatusOr<ModelChoice> RememberedModel(const ModelHome& home,
                                            const storage::StoreSettings& settings,
                                            const std::optional<std::string>& model,
                                            const std::optional<std::string>& adapter) {
  const std::string remembered_adapter =
      settings.adapter.empty() ? std::string(kNoAdapter) : settings.adapter;
  absl::StatusOr<ModelChoice> choice =
      ChooseModel(home, model.value_or(settings.model), adapter.value_or(remembered_adapter));
  if (choice.ok() || !absl::IsNotFound(choice.status())) return choice;
  return absl::NotFoundError(StrCat(
      "the memory was made with model ", settings.model, " and adapter ", remembered_adapter, ": ",
      ToStd(choice.status().message()),
      ". If it lies elsewhere now, pass --model PATH and --adapter DIR; if it is gone, `fovea "
      "rebuild --reencode --memory DIR --model ",
      settings.model,
      "` encodes the stored texts again with that model and its own adapter, or with another one "
      "that --model names"));
}

model::LoadOptions ToLoadOptions(const ModelChoice& choice) {
  model::LoadOptions options;
  options.model = choice.model;
  options.adapter = choice.adapter;
  options.mem_layers = choice.mem_layers;
  return options;
}

}  // namespace fovea::model_home
