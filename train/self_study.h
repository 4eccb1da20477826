// Self-study: questions that a model asks itself about the documents of a memory, each with what it
// answers when it has the passage before it. Training on them teaches it to answer from the memory
// what it would answer from the text (distillation of its own answers; no labels are needed).
#pragma once

#include <cstdint>
#include <filesystem>

#include "answer/answerer.h"
#include "base/progress.h"
#include "base/status.h"
#include "memory/memory.h"

namespace fovea::train {

struct SelfStudyOptions {
  int64_t questions_per_passage = 4;
  double n_seconds = 0.0;    // at most, about; 0: until all are asked
  float temperature = 0.8f;  // of the questions; answers are the likeliest
  uint64_t seed = 0;
};

struct SelfStudyResult {
  int64_t n_passages = 0;
  int64_t n_asked = 0;
  int64_t n_kept = 0;
};

// Writes a file of records with `context`, `question`, `answers` and `source`, in one step at its
// end, as ReadTrainingTexts reads them. Each passage is asked once before any is asked again. Left
// out are questions that were asked of the passage before, and answers that say what the passage
// does not: too few of their words stand in it.
// Errors: those of the store and of the answerer; Cancelled; NotFound where the memory holds no
// passage that is long enough.
absl::StatusOr<SelfStudyResult> WriteSelfStudy(memory::Memory* memory,
                                               const answer::Answerer& answerer,
                                               const SelfStudyOptions& options,
                                               const std::filesystem::path& file,
                                               const Progress& progress);

// Writes the documents of a memory as records with `text` and `title`, in one step.
absl::Status WriteDocuments(memory::Memory* memory, const std::filesystem::path& file,
                            const Progress& progress);

}  // namespace fovea::train
