// Questions on documents that lie in one memory: answered from it, from passages that are found
// again, from the right passage in the prompt, and without any.
#pragma once

#include "eval/evaluation.h"

namespace fovea::eval {

struct QuestionSet {
  std::vector<Document> documents;
  std::vector<Question> questions;
  int64_t n_left_out = 0;  // questions that nothing can be said of
};

// For each of common.tokens the memory holds the documents, and beside them as many tokens of
// common.texts, in a collection of their own that questions with a scope see as well. Rows: tokens,
// way, F1, exact match, right, named.
absl::StatusOr<Report> RunQuestionSet(const Subject& subject, const std::string& evaluation,
                                      const QuestionSet& set, const CommonOptions& common);

}  // namespace fovea::eval
