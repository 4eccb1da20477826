// A fixture of LongLLaMA's reference: a checkpoint, calls made of it, and what came back. Running
// one shows whether this implementation gives the same logits, makes the same forward passes and
// moves the same tokens to the memory. Ids are the fixture's, also where it chose the best ones.
//
// A folder: config.json and the weights; cases.json; cases.safetensors with inputs and outputs.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "base/status.h"
#include "compute/device.h"

namespace fovea::model {

struct ParityCase {
  std::string name;
  // Absolute differences of logits over all calls of the case: largest, median, 99.9th percentile.
  double max = 0.0;
  double median = 0.0;
  double p999 = 0.0;
  double memory_max = 0.0;     // largest difference of dumped memory entries; 0: none dumped
  bool sizes_equal = true;     // forward passes, local context and memory after each call
  bool overflow_equal = true;  // the steps at which the local context overflowed
};

// One result per case. NotFound or InvalidArgument for a fixture that cannot be read.
absl::StatusOr<std::vector<ParityCase>> RunParityFixture(compute::Device* device,
                                                         const std::filesystem::path& folder);

}  // namespace fovea::model
