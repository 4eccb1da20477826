// Which passages are read again: found by attention mass, by words, or by both. A small
// model says more from text than from keys and values alone, so the text of what it attends to
// joins the prompt.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "answer/prompt_context.h"
#include "answer/request.h"
#include "answer/shared_model.h"
#include "memory/search/attribution.h"
#include "memory/search/searcher.h"
#include "model/config.h"

namespace fovea::answer {

struct RereadPlan {
  int n_passages = 0;  // 0: off
  RereadBy by = RereadBy::kBm25;
  // Whether the memory layers read the memory, too, while the answer is made from the passages.
  bool with_memory = false;
};

// What the options ask for, completed by the default of the model. InvalidArgument when they ask
// for attention where there is no memory to attend to (`attends` is false).
absl::StatusOr<RereadPlan> PlanReread(const AskOptions& options, const model::ModelConfig& config,
                                      const model::MemoryConfig& memory_config, bool attends);

struct RereadArgs {
  RereadPlan plan;
  std::string question;
  std::vector<int32_t> prompt_ids;  // of the question without passages: the first pass
  const SharedModel* model = nullptr;
  memory::MemorySearcher* searcher = nullptr;
  PromptContext* context = nullptr;  // holds the first pass afterwards, where one was made
  bool is_reference = false;         // the context runs prompts as LongLLaMA does
};

// Best first; fewer, or none, where the memory has no more. Resets the searcher's mass.
absl::StatusOr<std::vector<memory::Passage>> ChoosePassages(const RereadArgs& args,
                                                            const Progress& progress);

}  // namespace fovea::answer
