// Questions with known answers, asked in several ways: from the memory alone, from passages that
// BM25 or the attention finds, with the right passage in the prompt, without any memory.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "answer/request.h"
#include "base/status.h"
#include "eval/report.h"
#include "eval/subject.h"

namespace fovea::eval {

struct Way {
  std::string name;  // "memory, exact"
  answer::AskOptions options;
  bool has_passage = false;  // the passage that holds the answer stands in the prompt
  bool has_memory = false;   // it answers from the memory, and names passages
};

struct WayOptions {
  // memory (by each of `modes`), passage, bm25[:N], attention[:N], both[:N] (N passages in the
  // prompt, 1 by default, the memory off), default (as `fovea ask` does), closed.
  std::vector<std::string> ways;
  std::vector<std::string> modes;  // of "memory": approximate, exact, dense
  int top_k = 0;                   // 0: the model's
  int max_tokens = 0;
};
// InvalidArgument for a name that is none, saying which there are.
absl::Status CheckWayName(const std::string& name);
// The same, and for ways that need memory layers where the model has none.
absl::StatusOr<std::vector<Way>> MakeWays(const WayOptions& options,
                                          const model::Transformer& model);

// What of an answer is judged.
enum class AnswerPart { kAll, kFirstLine, kFirstNumber };

struct Question {
  std::string text;
  std::vector<std::string> answers;  // each of them is right
  std::string passage;               // that holds the answer
  // Where that lies in the memory; no source: nobody knows.
  std::string source = {};
  uint64_t begin = 0;  // bytes of the document
  uint64_t end = std::numeric_limits<uint64_t>::max();
  std::string kind = {};
  memory::QueryScope scope = {};
  bool raw = false;  // the text is continued as it is
  AnswerPart judged = AnswerPart::kAll;
};

struct Outcome {
  std::string answer;  // all of it
  double f1 = 0.0;
  bool is_exact = false;
  bool is_held = false;   // the answer holds a reference
  bool is_named = false;  // the right passage is among the first three sources
  double seconds = 0.0;
  int64_t prompt_tokens = 0;
};
// Without sources: is_named stays false.
Outcome Grade(const Question& question, const std::string& answer);

// For who wants to see each answer.
using OutcomeVisitor =
    std::function<absl::Status(const Way& way, const Question& question, const Outcome& outcome)>;

// One after another; an error of one is the error of all.
absl::StatusOr<std::vector<Outcome>> AskAll(const Subject& subject, const TestMemory& memory,
                                            std::span<const Question> questions, const Way& way,
                                            const OutcomeVisitor& visit);

// `row`, "way", and then of `measures`, in this order: "right" (the answer holds a reference),
// "F1", "exact match", "named"; "seconds", the median.
Row Summarize(Row row, const Way& way, std::span<const Outcome> outcomes,
              const std::vector<std::string>& measures);

// The outcomes of several ways, over one memory or more.
class Tally {
 public:
  // All outlive it.
  Tally(const Subject* subject, const std::vector<Way>* ways, const OutcomeVisitor* visit)
      : subject_(*subject), ways_(*ways), visit_(*visit), outcomes_(ways->size()) {}

  // AskAll, by each of the ways.
  absl::Status Ask(const TestMemory& memory, std::span<const Question> questions);
  // One a way, each beginning with the memory's number of tokens.
  void AddRows(const TestMemory& memory, const std::vector<std::string>& measures,
               Report* report) const;

 private:
  const Subject& subject_;
  const std::vector<Way>& ways_;
  const OutcomeVisitor& visit_;
  std::vector<std::vector<Outcome>> outcomes_;  // [ways]
};

}  // namespace fovea::eval
