#include "eval/context_share.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "base/strings.h"
#include "eval/books.h"
#include "memory/search/searcher.h"
#include "texts/random.h"

namespace fovea::eval {
namespace {

constexpr float kNothing = -std::numeric_limits<float>::infinity();

// log(exp(a) + exp(b)).
float LogAdd(float a, float b) {
  const float most = std::max(a, b);
  return most == kNothing ? kNothing : most + std::log1p(std::exp(std::min(a, b) - most));
}

// Several contexts as one memory, each attended to densely by itself: their partials are merged by
// log-sum-exp, and the shares that they have in the whole softmax are added up.
class ContextProbe final : public model::MemorySource {
 public:
  ContextProbe(std::vector<std::unique_ptr<memory::MemorySearcher>> contexts, int64_t n_mem_layers)
      : contexts_(std::move(contexts)),
        shares_(static_cast<size_t>(n_mem_layers), std::vector<double>(contexts_.size(), 0.0)) {}

  absl::Status Attend(const model::MemoryQuery& query, float* output, float* lse) override {
    const auto n_rows = static_cast<size_t>(query.n_queries * query.n_heads);
    const auto dim = static_cast<size_t>(query.head_dim);
    std::vector<std::vector<float>> lses(contexts_.size(), std::vector<float>(n_rows));
    std::vector<float> partial(n_rows * dim);
    std::fill_n(output, n_rows * dim, 0.0f);
    std::fill_n(lse, n_rows, kNothing);
    for (size_t i = 0; i < contexts_.size(); ++i) {
      RETURN_IF_ERROR(contexts_[i]->Attend(query, partial.data(), lses[i].data()));
      for (size_t row = 0; row < n_rows; ++row) {
        const float merged = LogAdd(lse[row], lses[i][row]);
        if (merged == kNothing) continue;
        const float old_share = std::exp(lse[row] - merged);
        const float new_share = std::exp(lses[i][row] - merged);
        float* const out = output + row * dim;
        const float* const in = partial.data() + row * dim;
        for (size_t j = 0; j < dim; ++j) out[j] = old_share * out[j] + new_share * in[j];
        lse[row] = merged;
      }
    }
    std::vector<double>& shares = shares_[static_cast<size_t>(query.memory_layer)];
    for (size_t i = 0; i < contexts_.size(); ++i) {
      for (size_t row = 0; row < n_rows; ++row) {
        const float local = query.local_lse == nullptr ? kNothing : query.local_lse[row];
        const float whole = LogAdd(lse[row], local);
        if (whole != kNothing) shares[i] += std::exp(double{lses[i][row]} - whole);
      }
    }
    return absl::OkStatus();
  }

  // Of each context in a memory layer, summed over queries and heads.
  const std::vector<double>& shares(int64_t memory_layer) const {
    return shares_[static_cast<size_t>(memory_layer)];
  }

 private:
  const std::vector<std::unique_ptr<memory::MemorySearcher>> contexts_;
  std::vector<std::vector<double>> shares_;  // [n_mem_layers][contexts]
};

// A context, and the text that goes on from it.
struct Sample {
  std::string context;
  std::vector<int32_t> query;
};

// From random places of the books, which take turns.
absl::StatusOr<std::vector<Sample>> ReadSamples(const Subject& subject,
                                                const ContextShareOptions& options,
                                                int64_t n_samples) {
  constexpr size_t kMostTextBytes = size_t{256} << 20;
  constexpr size_t kMostBytesPerToken = 12;
  const int64_t n_wanted = options.context_tokens + options.query_tokens;
  const size_t n_bytes = static_cast<size_t>(n_wanted) * kMostBytesPerToken;
  ASSIGN_OR_RETURN(const std::vector<std::string> texts,
                   ReadTexts(options.common.texts, kMostTextBytes));
  std::vector<const std::string*> books;
  for (const std::string& text : texts) {
    if (text.size() > n_bytes) books.push_back(&text);
  }
  if (books.empty()) {
    return absl::InvalidArgumentError(StrCat("the texts have none of ", n_bytes, " bytes, which ",
                                             n_wanted,
                                             " tokens may take: pass longer ones with --texts"));
  }
  texts::Random random(options.common.seed, 0);
  std::vector<Sample> samples;
  for (int64_t tries = 0; static_cast<int64_t>(samples.size()) < n_samples; ++tries) {
    if (tries > 20 * n_samples) {
      return absl::InvalidArgumentError("the texts repeat themselves: pass others with --texts");
    }
    const std::string& book = *books[static_cast<size_t>(tries) % books.size()];
    const size_t place = book.find(' ', random.Below(book.size() - n_bytes));
    if (place == std::string::npos || place + n_bytes > book.size()) continue;
    const std::string piece = book.substr(place + 1, n_bytes);
    const model::Encoding encoding = subject.model->tokenizer().Encode(piece);
    if (static_cast<int64_t>(encoding.ids.size()) < n_wanted) continue;
    Sample sample{
        .context = piece.substr(0, encoding.ends[static_cast<size_t>(options.context_tokens) - 1]),
        .query = {encoding.ids.begin() + options.context_tokens, encoding.ids.begin() + n_wanted}};
    const bool is_known = std::any_of(samples.begin(), samples.end(), [&](const Sample& other) {
      return other.context == sample.context;
    });
    if (!is_known) samples.push_back(std::move(sample));
  }
  return samples;
}

std::string SourceOf(size_t context) { return StrCat("context ", context); }

}  // namespace

absl::StatusOr<Report> RunContextShare(const Subject& subject, const ContextShareOptions& options) {
  const model::MemoryConfig& config = subject.model->memory_config();
  if (config.mem_layers.empty()) {
    return absl::InvalidArgumentError(
        "the model has no memory layers: name some with --mem-layers or --adapter");
  }
  if (options.contexts.empty()) return absl::InvalidArgumentError("no number of contexts");
  const int64_t most = *std::max_element(options.contexts.begin(), options.contexts.end());
  const auto n_samples = static_cast<size_t>(options.n_samples);
  ASSIGN_OR_RETURN(const std::vector<Sample> samples,
                   ReadSamples(subject, options, std::max(options.n_samples, most)));
  std::vector<Document> documents;
  documents.reserve(samples.size());
  for (const Sample& sample : samples) {
    documents.push_back({.source = SourceOf(documents.size()), .text = sample.context});
  }
  ASSIGN_OR_RETURN(const auto memory, TestMemory::Open(&subject, "r_d"));
  RETURN_IF_ERROR(memory->Fill(documents));

  Report report{.evaluation = "r_d",
                .settings = {{"samples", options.n_samples},
                             {"context", options.context_tokens},
                             {"query", options.query_tokens}},
                .text_hashes = {{"contexts", memory->TextHash()}},
                .rows = {},
                .plot = {.x = "contexts", .y = "r_d", .series = "layer"}};
  for (const int64_t n_contexts : options.contexts) {
    const auto n_layers = static_cast<size_t>(subject.model->n_mem_layers());
    std::vector<std::vector<double>> own(n_layers);  // shares, [n_samples]
    std::vector<int64_t> n_first(n_layers, 0);
    for (size_t i = 0; i < n_samples; ++i) {
      // The own one first, the others as in the paper's crossbatch: those that follow.
      std::vector<std::unique_ptr<memory::MemorySearcher>> contexts;
      for (size_t j = 0; j < static_cast<size_t>(n_contexts); ++j) {
        memory::SearchOptions search{
            .mode = memory::SearchMode::kDense, .scope = {}, .progress = subject.progress};
        search.scope.documents = {memory->IdOf(SourceOf((i + j) % samples.size()))};
        ASSIGN_OR_RETURN(auto searcher, memory::MemorySearcher::Create(
                                            subject.device, memory->memory().Current(), search));
        if (searcher->place() != model::MemoryPlace::kHost) {
          return absl::UnimplementedError(
              "shares of contexts are measured on the CPU: leave --device out");
        }
        contexts.push_back(std::move(searcher));
      }
      ContextProbe probe(std::move(contexts), subject.model->n_mem_layers());
      model::LocalContext context;
      RETURN_IF_ERROR(subject.model->Forward(samples[i].query, &context, &probe, nullptr));
      for (size_t layer = 0; layer < n_layers; ++layer) {
        const std::vector<double>& shares = probe.shares(static_cast<int64_t>(layer));
        double sum = 0.0;
        for (const double share : shares) sum += share;
        own[layer].push_back(sum > 0.0 ? shares.front() / sum : 0.0);
        if (shares.front() >= *std::max_element(shares.begin(), shares.end())) ++n_first[layer];
      }
      RETURN_IF_ERROR(subject.progress.Report({.stage = StrCat(n_contexts, " contexts"),
                                               .done = static_cast<int64_t>(i) + 1,
                                               .total = options.n_samples,
                                               .unit = "samples"}));
    }
    for (size_t layer = 0; layer < n_layers; ++layer) {
      report.rows.push_back({{"contexts", n_contexts},
                             {"layer", StrCat(config.mem_layers[layer])},
                             {"r_d", MeanScore(own[layer])},
                             {"first", RateScore(n_first[layer], options.n_samples)},
                             {"1/d", 1.0 / static_cast<double>(n_contexts)}});
    }
  }
  return report;
}

}  // namespace fovea::eval
