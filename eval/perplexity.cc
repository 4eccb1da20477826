#include "eval/perplexity.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/strings.h"
#include "eval/books.h"
#include "memory/search/searcher.h"
#include "texts/record_file.h"

namespace fovea::eval {
namespace {

// Logits of so many tokens are held at a time.
constexpr size_t kPieceTokens = 64;

struct Excerpt {
  std::string before;          // the text before the part
  std::vector<uint64_t> ends;  // of its tokens
  std::vector<int32_t> part;   // [part_tokens]
};

// Books that are long enough, from the first on.
absl::StatusOr<std::vector<Excerpt>> ReadExcerpts(const Subject& subject,
                                                  const PerplexityOptions& options,
                                                  int64_t n_before) {
  const int64_t n_wanted = n_before + options.part_tokens;
  // The encoder is spared the rest of a long book: no token is longer on average.
  constexpr size_t kMostBytesPerToken = 12;
  std::vector<Excerpt> excerpts;
  const auto add = [&](const texts::Record& record) -> absl::StatusOr<bool> {
    const std::string text =
        record.text.substr(0, static_cast<size_t>(n_wanted) * kMostBytesPerToken);
    const model::Encoding encoding = subject.model->tokenizer().Encode(text);
    if (static_cast<int64_t>(encoding.ids.size()) < n_wanted) return true;
    Excerpt excerpt;
    excerpt.ends.assign(encoding.ends.begin(), encoding.ends.begin() + n_before);
    excerpt.before = text.substr(0, n_before == 0 ? 0 : excerpt.ends.back());
    excerpt.part.assign(encoding.ids.begin() + n_before, encoding.ids.begin() + n_wanted);
    excerpts.push_back(std::move(excerpt));
    return static_cast<int64_t>(excerpts.size()) < options.n_books;
  };
  for (const std::filesystem::path& file : options.common.texts) {
    if (static_cast<int64_t>(excerpts.size()) >= options.n_books) break;
    RETURN_IF_ERROR(texts::ReadRecords(file, add));
  }
  if (static_cast<int64_t>(excerpts.size()) < options.n_books) {
    return absl::InvalidArgumentError(StrCat(
        "the texts have ", excerpts.size(), " books of ", n_wanted, " tokens, and ",
        options.n_books,
        " are wanted: pass more files with --texts, or a smaller --tokens, --part or --books"));
  }
  return excerpts;
}

// Which of the memory a row's windows see.
struct Seen {
  const char* name;
  bool own;
  bool others;
};
constexpr Seen kSeen[] = {
    {"same book", true, false}, {"other books", false, true}, {"all books", true, true}};

std::string SourceOf(size_t book) { return StrCat("book ", book); }

}  // namespace

absl::StatusOr<double> MeanNegativeLogLikelihood(model::Transformer* model,
                                                 std::span<const int32_t> ids,
                                                 model::MemorySource* memory) {
  if (ids.size() < 2) return absl::InvalidArgumentError("want two tokens or more");
  const auto vocabulary = static_cast<size_t>(model->config().vocab_size);
  model::LocalContext context;
  std::vector<float> logits;
  double sum = 0.0;
  // The last token foretells nothing that is asked for.
  const std::span<const int32_t> given = ids.first(ids.size() - 1);
  for (size_t begin = 0; begin < given.size(); begin += kPieceTokens) {
    const auto piece = given.subspan(begin, std::min(kPieceTokens, given.size() - begin));
    RETURN_IF_ERROR(model->Forward(piece, &context, memory, &logits, /*all_logits=*/true));
    for (size_t i = 0; i < piece.size(); ++i) {
      const float* const row = logits.data() + i * vocabulary;
      const float largest = *std::max_element(row, row + vocabulary);
      double total = 0.0;
      for (size_t j = 0; j < vocabulary; ++j) total += std::exp(double{row[j]} - largest);
      sum += std::log(total) + largest - row[ids[begin + i + 1]];
    }
  }
  return sum / static_cast<double>(given.size());
}

absl::StatusOr<Report> RunPerplexity(const Subject& subject, const PerplexityOptions& options) {
  const CommonOptions& common = options.common;
  if (common.tokens.empty() || options.local_tokens < 2 ||
      options.part_tokens < options.local_tokens) {
    return absl::InvalidArgumentError(StrCat("a part of ", options.part_tokens,
                                             " tokens in windows of ", options.local_tokens,
                                             ": want at least one window, of two tokens or more"));
  }
  WayOptions memory_ways = common.ways;
  memory_ways.ways = {"memory"};
  ASSIGN_OR_RETURN(const std::vector<Way> ways, MakeWays(memory_ways, *subject.model));
  const int64_t n_before = *std::max_element(common.tokens.begin(), common.tokens.end());
  ASSIGN_OR_RETURN(const std::vector<Excerpt> excerpts, ReadExcerpts(subject, options, n_before));

  const int64_t n_windows = options.part_tokens / options.local_tokens;
  int64_t n_done = 0;
  // Of the windows of all books; `memory` of a book is made for it.
  using MemoryOf =
      std::function<absl::StatusOr<std::unique_ptr<memory::MemorySearcher>>(size_t book)>;
  const auto measure = [&](const std::string& stage,
                           const MemoryOf& memory_of) -> absl::StatusOr<std::vector<double>> {
    std::vector<double> losses;
    n_done = 0;
    for (size_t book = 0; book < excerpts.size(); ++book) {
      ASSIGN_OR_RETURN(const auto memory, memory_of(book));
      for (int64_t window = 0; window < n_windows; ++window) {
        const std::span<const int32_t> part = excerpts[book].part;
        ASSIGN_OR_RETURN(const double loss,
                         MeanNegativeLogLikelihood(
                             subject.model,
                             part.subspan(static_cast<size_t>(window * options.local_tokens),
                                          static_cast<size_t>(options.local_tokens)),
                             memory.get()));
        losses.push_back(loss);
        RETURN_IF_ERROR(
            subject.progress.Report({.stage = stage,
                                     .done = ++n_done,
                                     .total = n_windows * static_cast<int64_t>(excerpts.size()),
                                     .unit = "windows"}));
      }
    }
    return losses;
  };
  const auto perplexity_of = [](std::span<const double> losses) {
    double sum = 0.0;
    for (const double loss : losses) sum += loss;
    return std::exp(sum / static_cast<double>(losses.size()));
  };

  Report report{.evaluation = "perplexity",
                .settings = {{"books", options.n_books},
                             {"part", options.part_tokens},
                             {"local", options.local_tokens}},
                .text_hashes = {},
                .rows = {},
                .plot = {.x = "tokens", .y = "perplexity", .series = "memory"}};
  ASSIGN_OR_RETURN(const std::vector<double> without,
                   measure("without memory", [](size_t) { return nullptr; }));
  report.rows.push_back({{"memory", "none"},
                         {"tokens", int64_t{0}},
                         {"way", "closed"},
                         {"perplexity", perplexity_of(without)}});
  for (const int64_t tokens : common.tokens) {
    if (tokens == 0) continue;
    std::vector<Document> documents;
    for (const Excerpt& excerpt : excerpts) {
      const size_t begin =
          tokens == n_before ? 0 : excerpt.ends[static_cast<size_t>(n_before - tokens) - 1];
      documents.push_back(
          {.source = SourceOf(documents.size()), .text = excerpt.before.substr(begin)});
    }
    ASSIGN_OR_RETURN(const auto memory, TestMemory::Open(&subject, StrCat("perplexity-", tokens)));
    RETURN_IF_ERROR(memory->Fill(documents));
    report.text_hashes.emplace_back(StrCat(tokens), memory->TextHash());
    for (const Seen& seen : kSeen) {
      if (seen.others && excerpts.size() < 2) continue;
      for (const Way& way : ways) {
        int64_t n_seen = 0;
        const auto memory_of =
            [&](size_t book) -> absl::StatusOr<std::unique_ptr<memory::MemorySearcher>> {
          memory::SearchOptions search;
          search.mode = *way.options.mode;
          search.top_k =
              way.options.top_k > 0 ? way.options.top_k : subject.model->memory_config().top_k;
          search.progress = subject.progress;
          for (size_t other = 0; other < excerpts.size(); ++other) {
            if (other == book ? !seen.own : !seen.others) continue;
            search.scope.documents.push_back(memory->IdOf(SourceOf(other)));
          }
          ASSIGN_OR_RETURN(auto searcher, memory::MemorySearcher::Create(
                                              subject.device, memory->memory().Current(), search));
          n_seen = static_cast<int64_t>(searcher->n_tokens());
          return searcher;
        };
        ASSIGN_OR_RETURN(const std::vector<double> losses,
                         measure(StrCat(seen.name, ", ", tokens), memory_of));
        // By book: windows of one are not independent of each other.
        std::vector<double> differences(excerpts.size(), 0.0);
        for (size_t i = 0; i < losses.size(); ++i) {
          differences[i / static_cast<size_t>(n_windows)] +=
              (losses[i] - without[i]) / static_cast<double>(n_windows);
        }
        report.rows.push_back({{"memory", seen.name},
                               {"tokens", n_seen},
                               {"way", way.name},
                               {"perplexity", perplexity_of(losses)},
                               {"ratio", RatioScore(differences)}});
      }
    }
  }
  return report;
}

}  // namespace fovea::eval
