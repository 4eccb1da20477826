#include "answer/reread.h"

#include <algorithm>
#include <utility>

namespace fovea::answer {
namespace {

// What measured best on ordinary documents (bench/natural.py --half wide), by kind of model. With
// the memory on beside the passage a small model mixes what it reads with what it remembers (F1 13
// against 32 with it off); where no passage shares a word with the question it answers from the
// memory. Three passages confuse it (35 against 39 with one, after training with one to three);
// those of half a billion parameters and more find the answer more often in three (59 against 46
// with an adapter).
constexpr int64_t kSmallModelParameters = 300'000'000;
RereadPlan DefaultPlan(const model::ModelConfig& config, const model::MemoryConfig& memory) {
  const bool reads_one = model::NumParameters(config) < kSmallModelParameters;
  return {.n_passages = reads_one ? 1 : 3,
          .by = memory.rereads_by_both ? RereadBy::kBoth : RereadBy::kBm25,
          .with_memory = false};
}

// How deep each ranking is read before they are fused: a passage that one of them has below this
// is no serious candidate of it.
constexpr int kFusionDepth = 50;

}  // namespace

absl::StatusOr<RereadBy> ParseRereadBy(std::string_view name) {
  for (RereadBy by : {RereadBy::kAttention, RereadBy::kBm25, RereadBy::kBoth}) {
    if (name == RereadByName(by)) return by;
  }
  return absl::InvalidArgumentError(
      StrCat("re-reading by \"", name, "\": want attention, bm25 or both"));
}

std::string_view RereadByName(RereadBy by) {
  switch (by) {
    case RereadBy::kAttention:
      return "attention";
    case RereadBy::kBm25:
      return "bm25";
    case RereadBy::kBoth:
      return "both";
  }
  FOVEA_CHECK(false);
}

absl::StatusOr<RereadPlan> PlanReread(const AskOptions& options, const model::ModelConfig& config,
                                      const model::MemoryConfig& memory_config, bool attends) {
  RereadPlan plan = DefaultPlan(config, memory_config);
  // Without a memory, and for a text that is to be continued as it is, nothing is added unless it
  // was asked for.
  if (options.raw || !options.use_memory) plan.n_passages = 0;
  if (!attends) plan.by = RereadBy::kBm25;
  if (options.reread.has_value()) plan.n_passages = *options.reread;
  if (options.reread_memory.has_value()) plan.with_memory = *options.reread_memory;
  if (plan.n_passages < 0) {
    return absl::InvalidArgumentError(
        StrCat("re-reading ", plan.n_passages, " passages: want 0 (off) or more"));
  }
  if (options.reread_by.has_value()) {
    plan.by = *options.reread_by;
    if (plan.by != RereadBy::kBm25 && !attends && plan.n_passages > 0) {
      return absl::InvalidArgumentError(
          StrCat("re-reading by ", RereadByName(plan.by),
                 options.use_memory ? " needs a model with memory layers, this one has none"
                                    : " needs the memory, which is off",
                 ": re-read by bm25"));
    }
  }
  return plan;
}

namespace {

// One pass over the prompt; what its last token attends to counts, where the question is whole.
absl::StatusOr<std::vector<memory::Passage>> PassagesByAttention(const RereadArgs& args, int depth,
                                                                 const Progress& progress) {
  const std::span<const int32_t> ids = args.prompt_ids;
  if (!args.is_reference && ids.size() > 1) {
    RETURN_IF_ERROR(args.context->Run(ids.first(ids.size() - 1), *args.model, args.searcher,
                                      nullptr, progress));
  }
  args.searcher->ResetMass();
  RETURN_IF_ERROR(args.context->Run(ids, *args.model, args.searcher, nullptr, progress));
  const model::MemoryConfig& config = args.model->memory_config();
  const std::vector<int>& named =
      config.reread_layers.empty() ? config.mem_layers : config.reread_layers;
  std::vector<int> layers;
  for (size_t i = 0; i < config.mem_layers.size(); ++i) {
    if (std::find(named.begin(), named.end(), config.mem_layers[i]) != named.end()) {
      layers.push_back(static_cast<int>(i));
    }
  }
  ASSIGN_OR_RETURN(std::vector<memory::Passage> passages,
                   memory::PassagesByLogMass(*args.searcher, args.searcher->Mass(), layers, depth));
  args.searcher->ResetMass();
  return passages;
}

}  // namespace

absl::StatusOr<std::vector<memory::Passage>> ChoosePassages(const RereadArgs& args,
                                                            const Progress& progress) {
  const RereadPlan& plan = args.plan;
  if (plan.n_passages == 0) return std::vector<memory::Passage>();
  const int depth =
      plan.by == RereadBy::kBoth ? std::max(kFusionDepth, plan.n_passages) : plan.n_passages;

  std::vector<memory::Passage> by_mass;
  if (plan.by != RereadBy::kBm25) {
    ASSIGN_OR_RETURN(by_mass, PassagesByAttention(args, depth, progress));
    if (plan.by == RereadBy::kAttention) return by_mass;
  }
  ASSIGN_OR_RETURN(std::vector<memory::Passage> by_words,
                   memory::PassagesByWords(*args.searcher, args.question, depth));
  if (plan.by == RereadBy::kBm25) return by_words;
  return memory::FuseScores(std::move(by_mass), std::move(by_words), plan.n_passages);
}

}  // namespace fovea::answer
