// Learning from examples in the memory: questions are classified, or answered, as examples of the
// same kind were (Focused Transformer, arXiv 2307.03170, section 5.3: TREC and WebQS).
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

struct LabelledExample {
  std::string question;
  std::vector<std::string> answers;  // a label, or answers each of which is right
  bool is_label = false;
};

// TREC's lines ("LOC:city What county is …?"), a JSON list or JSON lines of objects with question
// and answers (WebQuestions) or label. InvalidArgument names file, line and what was wanted.
absl::StatusOr<std::vector<LabelledExample>> ReadExamples(const std::filesystem::path& file);

struct ExamplesOptions {
  CommonOptions common;                              // of it no tokens and texts
  std::filesystem::path examples;                    // what the memory is filled from
  std::filesystem::path questions;                   // what is asked
  std::vector<int64_t> n_examples = {0, 100, 1000};  // in the memory, chosen at random
  int64_t n_local = 8;        // examples that stand in every prompt; not with passages found again,
                              // which are examples themselves
  int64_t n_questions = 100;  // chosen at random
};

// Rows: examples, tokens, way, right (the answer's first line is a label or answer, exactly but for
// case, punctuation and articles). Without examples: what those in the prompt alone give.
absl::StatusOr<Report> RunExamples(const Subject& subject, const ExamplesOptions& options);

}  // namespace fovea::eval
