// Whether an adapter was made for the model that it is used with, by what they are called.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include "model/config.h"

namespace fovea::model {

// A path and the name on a hub of one model, its name in a GGUF file, a file of it in another
// element type: the last part of each, whatever the case, the separators and what says how it was
// quantised.
bool IsSameModelName(std::string_view a, std::string_view b);

// For people: that adapter_config.json in `adapter` names another base model than `model` (a file
// or folder) and its name in `config`. Empty when they agree, when it names none, or when the file
// cannot be read (Adapter::Load says why).
std::string AdapterBaseWarning(const std::filesystem::path& adapter,
                               const std::filesystem::path& model, const ModelConfig& config);

}  // namespace fovea::model
