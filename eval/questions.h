// Questions on passages, all passages in one memory: answered from it, from passages that are found
// again, from the right passage in the prompt, and without any.
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

struct QuestionsOptions {
  CommonOptions common;
  std::vector<std::filesystem::path> questions;  // records with context, question, answers
  int64_t n_questions = 100;                     // chosen at random; all of them where it is more
  int64_t n_passages = 0;  // in the memory: those asked about, and others of the files up to these
};

// With common.tokens (0: none), as many tokens of common.texts lie in the memory beside the
// passages. Rows: tokens, way, F1, exact match, right, named.
absl::StatusOr<Report> RunQuestions(const Subject& subject, const QuestionsOptions& options);

// A folder of documents with a questions.jsonl in it: records with `question`, `answers`,
// `document` (the name of a file of the folder) and `quote` (the words of it that hold the answer,
// but for white space); optional `kind`. Questions about documents that are not there are left out,
// and counted in the report.
struct NaturalOptions {
  CommonOptions common;
  std::filesystem::path folder;
  int64_t n_questions = 0;  // the first of them; 0: all
};
absl::StatusOr<Report> RunNatural(const Subject& subject, const NaturalOptions& options);

}  // namespace fovea::eval
