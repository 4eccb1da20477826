#include "model/weights/adapter_base.h"

#include <algorithm>
#include <system_error>
#include <vector>

#include "base/status.h"
#include "model/weights/file_checks.h"
#include "model/weights/json_file.h"

namespace fovea::model {
namespace {

// Words behind a model's name that say in which form its weights are: q4, k, m, gguf, …
bool IsForm(std::string_view word) {
  static constexpr std::string_view kForms[] = {
      "gguf", "ggml", "safetensors", "gptq", "awq", "exl2", "mlx",  "bnb",  "hf",   "fp16",
      "bf16", "f16",  "fp32",        "f32",  "fp8", "int8", "int4", "4bit", "8bit", "quantized"};
  if (std::find(std::begin(kForms), std::end(kForms), word) != std::end(kForms)) return true;
  // Q4_1, Q4_K_M, IQ2_XXS.
  if (word.starts_with('i')) word.remove_prefix(1);
  return word.size() >= 2 && word[0] == 'q' && word[1] >= '0' && word[1] <= '9';
}

bool IsFormSuffix(std::string_view word) {
  static constexpr std::string_view kSuffixes[] = {"0", "1", "k", "s", "m", "l", "xs", "xxs", "nl"};
  return std::find(std::begin(kSuffixes), std::end(kSuffixes), word) != std::end(kSuffixes);
}

// The words of the last part of a path or a name, in lower case, without their form.
std::vector<std::string> Words(std::string_view name) {
  while (name.ends_with('/')) name.remove_suffix(1);
  name.remove_prefix(name.rfind('/') + 1);  // npos + 1 = 0
  if (const size_t at = name.rfind("--"); at != name.npos) name.remove_prefix(at + 2);  // a cache's
  std::vector<std::string> words(1);
  for (const char c : name) {
    if (c == '-' || c == '_' || c == '.' || c == ' ') {
      if (!words.back().empty()) words.emplace_back();
    } else {
      words.back().push_back(c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c);
    }
  }
  if (words.back().empty()) words.pop_back();
  for (size_t end = words.size(); end > 1; --end) {
    // "q4", "k", "m" are one form: what follows it goes with it.
    const bool all_suffixes = std::all_of(words.begin() + static_cast<std::ptrdiff_t>(end),
                                          words.end(), [](auto& w) { return IsFormSuffix(w); });
    if (!all_suffixes) break;
    if (IsForm(words[end - 1])) words.resize(end - 1);
  }
  return words;
}

}  // namespace

bool IsSameModelName(std::string_view a, std::string_view b) {
  const std::vector<std::string> words = Words(a);
  return !words.empty() && words == Words(b);
}

std::string AdapterBaseWarning(const std::filesystem::path& adapter,
                               const std::filesystem::path& model, const ModelConfig& config) {
  const auto json = ReadJsonObject(adapter / "adapter_config.json");
  if (!json.ok()) return "";
  const std::string base = JsonString(*json, "base_model_name_or_path", "").value_or(std::string());
  if (base.empty() || IsSameModelName(base, config.name)) return "";
  std::error_code error;
  std::filesystem::path path = std::filesystem::absolute(model, error).lexically_normal();
  // Of a hub's cache, a folder above has the name.
  for (; path.has_relative_path(); path = path.parent_path()) {
    if (IsSameModelName(base, path.native())) return "";
  }
  return StrCat("the adapter ", adapter, " was made for the base model ", Printable(base),
                " (adapter_config.json), and is used with ", model,
                config.name.empty() ? "" : StrCat(" (", Printable(config.name), ")"),
                ": answers may be spoiled; use the model that it names, or --adapter none");
}

}  // namespace fovea::model
