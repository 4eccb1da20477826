// Reading of golden files in tests: JSON and F32 safetensors that the repository itself holds.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "model/weights/safetensors_file.h"

namespace fovea::model {

inline nlohmann::json ReadGoldenJson(const std::filesystem::path& path) {
  std::ifstream file(path);
  EXPECT_TRUE(file.good()) << path;
  return nlohmann::json::parse(file, nullptr, /*allow_exceptions=*/false);
}

// The one F32 tensor in a file, with all its rows one after the other.
inline std::vector<float> ReadGoldenTensor(const std::filesystem::path& path) {
  const auto file = SafetensorsFile::Open(path);
  EXPECT_TRUE(file.ok()) << file.status();
  if (!file.ok() || (*file)->tensors().size() != 1) return {};
  const StoredTensor& tensor = (*file)->tensors()[0];
  std::vector<float> values(tensor.size_bytes / sizeof(float));
  std::memcpy(values.data(), tensor.data, tensor.size_bytes);
  return values;
}

// What the default model and its adapter make of a text in memory (data/make_adapter_golden.py).
inline std::filesystem::path DefaultAdapterGoldenPath() {
  return FOVEA_SOURCE_DIR "/tests/model/data/default_adapter.json";
}

// Where `fovea pull` puts the default model; it may not exist.
inline std::filesystem::path DefaultModelPath() {
  const char* fovea_home = std::getenv("FOVEA_HOME");
  const char* home = std::getenv("HOME");
  const std::filesystem::path folder =
      fovea_home != nullptr
          ? std::filesystem::path(fovea_home)
          : std::filesystem::path(home != nullptr ? home : "/") / ".local/share/fovea";
  return folder / "models/SmolLM2-135M-Instruct.Q4_1.gguf";
}

}  // namespace fovea::model
