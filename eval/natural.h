// Questions on documents of one's own: a folder with a file of questions in it.
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

// questions.jsonl in the folder has records with `question`, `answers` (a list), `document` (the
// name of a file of the folder) and `quote` (the words of it that hold the answer, but for white
// space); optional `kind`. Questions about files that are not there are left out, and counted.
struct NaturalOptions {
  CommonOptions common;  // one size, 0: the memory holds the folder alone; more: other text as well
  std::filesystem::path folder;
  int64_t n_questions = 0;  // the first of them; 0: all
};
absl::StatusOr<Report> RunNatural(const Subject& subject, const NaturalOptions& options);

}  // namespace fovea::eval
