// Files of questions with the documents that they are about, in the forms in which they are passed
// on. Errors name the file, and what was wanted of it; questions are chosen by `choice`.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "base/status.h"
#include "eval/questions.h"

namespace fovea::eval {

struct Choice {
  int64_t n_questions = 100;  // at random; all where there are fewer
  uint64_t seed = 0;
};

// Records with context, question and answers (texts/record_file.h): each context is a document. The
// contexts of the questions that were chosen, and others up to `n_passages` of them.
absl::StatusOr<QuestionSet> ReadQuestions(const std::vector<std::filesystem::path>& files,
                                          const Choice& choice, int64_t n_passages);

// bAbI (Weston et al. 2015): numbered lines, questions with tabs. Each question has a document of
// its own, the story up to there, and sees no other.
absl::StatusOr<QuestionSet> ReadStories(const std::vector<std::filesystem::path>& files,
                                        const Choice& choice);

// Natural Questions with passages beside the right one (Liu et al. 2023, "Lost in the Middle"):
// JSON records with question, answers and ctxs, of which one has isgold (or hasanswer). All
// passages of the chosen questions lie in the memory.
absl::StatusOr<QuestionSet> ReadNaturalQuestions(const std::vector<std::filesystem::path>& files,
                                                 const Choice& choice);

// LoCoMo (Maharana et al. 2024): conversations over many sessions. Each session is a document, each
// conversation a collection, which its questions see. Those without an answer (category 5) or
// without evidence are left out.
absl::StatusOr<QuestionSet> ReadConversations(const std::vector<std::filesystem::path>& files,
                                              const Choice& choice);

}  // namespace fovea::eval
