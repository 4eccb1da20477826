#include "eval/dictionary.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/strings.h"
#include "memory/search/searcher.h"
#include "texts/dictionary.h"

namespace fovea::eval {
namespace {

using texts::DictionaryRecord;

constexpr int64_t kQuestionsOfSequence = 25;
// Some hundred kilobytes: a document is one reading.
constexpr size_t kRecordsOfDocument = 50'000;

// Of one size of the memory.
struct Dictionary {
  std::vector<Document> documents;
  std::vector<std::string> sequences;  // of questions and their answers
};

Dictionary MakeDictionary(int64_t n_records, const DictionaryOptions& options) {
  texts::Random random(options.common.seed, static_cast<uint64_t>(n_records));
  const std::vector<uint32_t> keys = texts::DrawKeys(n_records, options.n_lookalikes, random);
  std::vector<DictionaryRecord> records;
  for (const uint32_t key : keys) {
    records.push_back({key, static_cast<uint32_t>(random.Below(texts::kDictionaryWords))});
  }
  Dictionary dictionary;
  for (size_t i = 0; i < records.size(); ++i) {
    if (i % kRecordsOfDocument == 0) {
      dictionary.documents.push_back({.source = StrCat("definitions from ", i), .text = ""});
    }
    AppendRecord(records[i], texts::kDefines, &dictionary.documents.back().text);
  }
  for (int64_t n = 0; n < options.n_questions; n += kQuestionsOfSequence) {
    std::string& sequence = dictionary.sequences.emplace_back();
    const int64_t n_here = std::min(kQuestionsOfSequence, options.n_questions - n);
    for (int64_t i = 0; i < n_here; ++i) {
      AppendRecord(random.Of(records), texts::kAsks, &sequence);
    }
  }
  return dictionary;
}

absl::Status AskSequence(model::Transformer* model, const std::string& sequence,
                         model::MemorySource* memory, LookedUp* looked_up,
                         std::vector<double>* seconds) {
  const std::vector<int32_t> ids = model->tokenizer().Encode(sequence).ids;
  if (ids.size() != sequence.size()) {
    return absl::InvalidArgumentError(StrCat(
        "the model's tokenizer makes ", ids.size(), " tokens of a sequence of ", sequence.size(),
        " characters, and one of each is wanted: evaluate a model of "
        "`fovea train dictionary`"));
  }
  model::LocalContext context;
  std::vector<float> logits;
  const auto began_at = std::chrono::steady_clock::now();
  RETURN_IF_ERROR(model->Forward(ids, &context, memory, &logits, /*all_logits=*/true));
  seconds->push_back(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - began_at).count());
  CountRight(ids, logits, looked_up);
  return absl::OkStatus();
}

}  // namespace

void CountRight(std::span<const int32_t> ids, std::span<const float> logits, LookedUp* looked_up) {
  const size_t vocabulary = logits.size() / ids.size();
  const auto is_right = [&](size_t at) {  // the token after this one
    const auto row = logits.subspan(at * vocabulary, vocabulary);
    return std::max_element(row.begin(), row.end()) - row.begin() == ids[at + 1];
  };
  for (size_t record = 0; record + texts::kRecordSymbols <= ids.size();
       record += texts::kRecordSymbols) {
    int64_t n_right = 0;
    for (size_t i = 0; i < texts::kWordSymbols; ++i) {
      n_right += is_right(record + texts::kWordSymbols + i) ? 1 : 0;
    }
    looked_up->n_symbols += texts::kWordSymbols;
    looked_up->n_right_symbols += n_right;
    looked_up->n_words += 1;
    looked_up->n_right_words += n_right == texts::kWordSymbols ? 1 : 0;
  }
}

absl::StatusOr<Report> RunDictionary(const Subject& subject, const DictionaryOptions& options) {
  const CommonOptions& common = options.common;
  WayOptions memory_ways = common.ways;
  memory_ways.ways = {"memory"};
  ASSIGN_OR_RETURN(const std::vector<Way> ways, MakeWays(memory_ways, *subject.model));
  constexpr auto kMostAlike = static_cast<int64_t>(texts::kDictionarySymbols.size()) - 1;
  if (options.n_questions < 1 || options.n_lookalikes < 0 || options.n_lookalikes > kMostAlike) {
    return absl::InvalidArgumentError(StrCat(options.n_questions, " questions, ",
                                             options.n_lookalikes,
                                             " look-alikes: want at least one "
                                             "question and at most ",
                                             kMostAlike, " look-alikes"));
  }
  // Definitions are encoded as they were trained on: whole windows, seen alone.
  Subject own = subject;
  own.overlap = 0;
  Report report{
      .evaluation = "dictionary",
      .settings = {{"questions", options.n_questions}, {"look-alikes", options.n_lookalikes}},
      .text_hashes = {},
      .rows = {},
      .plot = {.x = "tokens", .y = "right", .series = "way"}};
  for (const int64_t tokens : common.tokens) {
    const int64_t n_records = tokens / texts::kRecordSymbols;
    if (n_records < 1 || n_records > texts::kDictionaryWords) {
      return absl::InvalidArgumentError(
          StrCat("--tokens ", tokens, ": want ", texts::kRecordSymbols, " to ",
                 int64_t{texts::kDictionaryWords} * texts::kRecordSymbols));
    }
    const Dictionary dictionary = MakeDictionary(n_records, options);
    ASSIGN_OR_RETURN(const auto memory, TestMemory::Open(&own, StrCat("dictionary-", tokens)));
    RETURN_IF_ERROR(memory->Fill(dictionary.documents));
    report.text_hashes.emplace_back(StrCat(tokens), memory->TextHash());
    for (const Way& way : ways) {
      memory::SearchOptions search;
      search.mode = *way.options.mode;
      search.top_k =
          way.options.top_k > 0 ? way.options.top_k : subject.model->memory_config().top_k;
      search.progress = subject.progress;
      ASSIGN_OR_RETURN(
          const auto searcher,
          memory::MemorySearcher::Create(subject.device, memory->memory().Current(), search));
      LookedUp answered;
      std::vector<double> seconds;
      for (const std::string& sequence : dictionary.sequences) {
        RETURN_IF_ERROR(AskSequence(subject.model, sequence, searcher.get(), &answered, &seconds));
        RETURN_IF_ERROR(subject.progress.Report(
            {.stage = way.name,
             .done = answered.n_words,
             .total = static_cast<int64_t>(dictionary.sequences.size()) * kQuestionsOfSequence,
             .unit = "questions"}));
      }
      report.rows.push_back({{"tokens", static_cast<int64_t>(memory->n_tokens())},
                             {"way", way.name},
                             {"right", RateScore(answered.n_right_symbols, answered.n_symbols)},
                             {"answers", RateScore(answered.n_right_words, answered.n_words)},
                             {"seconds", Median(seconds)}});
    }
  }
  return report;
}

}  // namespace fovea::eval
