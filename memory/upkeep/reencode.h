// A memory for another model: every stored text encoded again.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>

#include "base/progress.h"
#include "base/status.h"
#include "memory/memory.h"
#include "model/transformer.h"

namespace fovea::memory {

struct ReencodeOptions {
  std::string model_name;  // remembered in the settings
  std::string adapter_name;
  std::string index_spec;  // empty: as it was
  Progress progress;
};

struct ReencodeResult {
  uint64_t documents = 0;
  uint64_t tokens = 0;
};

// Encodes every stored text again with `model` into the next version folder, then makes that one
// current and removes the old one. Titles, sources, collections and times are kept; window, overlap
// and encoding too, as far as the model allows. Interrupted, the next call with the same model goes
// on. The memory must be open for writing by nobody (Unavailable); readers serve the old version
// until their next Refresh.
// DataLoss when a stored text is damaged: nothing is swapped.
absl::StatusOr<ReencodeResult> Reencode(const std::filesystem::path& folder,
                                        model::Transformer* model, const ReencodeOptions& options);

}  // namespace fovea::memory
