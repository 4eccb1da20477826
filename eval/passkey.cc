#include "eval/passkey.h"

#include <algorithm>
#include <utility>

#include "base/strings.h"
#include "texts/random.h"

namespace fovea::eval {
namespace {

constexpr char kHead[] =
    "There is an important info hidden inside a lot of irrelevant text. Find it and memorize them. "
    "I will quiz you about the important information there.\n";
constexpr char kFiller[] =
    "The grass is green. The sky is blue. The sun is yellow. Here we go. There and back again. ";
constexpr char kQuestion[] = "\nWhat is the pass key? The pass key is";
constexpr size_t kMostKey = 50000;

std::string Repeat(std::string_view text, int64_t n) {
  std::string repeated;
  repeated.reserve(text.size() * static_cast<size_t>(n));
  for (int64_t i = 0; i < n; ++i) repeated += text;
  return repeated;
}

}  // namespace

absl::StatusOr<Report> RunPasskey(const Subject& subject, const PasskeyOptions& options) {
  const CommonOptions& common = options.common;
  ASSIGN_OR_RETURN(const std::vector<Way> ways, MakeWays(common.ways, *subject.model));
  const model::Tokenizer& tokenizer = subject.model->tokenizer();
  constexpr int64_t kSample = 64;
  const int64_t sample_tokens =
      static_cast<int64_t>(tokenizer.Encode(Repeat(kFiller, kSample)).ids.size());

  Report report{.evaluation = "passkey",
                .settings = {{"keys", options.n_trials}},
                .text_hashes = {},
                .rows = {},
                .plot = {.x = "tokens", .y = "right", .series = "way"}};
  for (const int64_t tokens : common.tokens) {
    const int64_t n_repeats = std::max<int64_t>(1, tokens * kSample / sample_tokens);
    ASSIGN_OR_RETURN(const auto memory, TestMemory::Open(&subject, StrCat("passkey-", tokens)));
    texts::Random random(common.seed, static_cast<uint64_t>(tokens));
    Tally tally(&subject, &ways, &common.visit);
    for (int64_t trial = 0; trial < options.n_trials; ++trial) {
      const std::string key = StrCat(1 + random.Below(kMostKey));
      const auto place = static_cast<int64_t>(random.Below(static_cast<size_t>(n_repeats)));
      std::string text = StrCat(kHead, Repeat(kFiller, place));
      const uint64_t begin = text.size();
      text += StrCat("\nThe pass key is ", key, ". Remember it. ", key, " is the pass key.\n");
      const Question question{.text = kQuestion,
                              .answers = {key},
                              .passage = text.substr(begin),
                              .source = "filler",
                              .begin = begin,
                              .end = text.size(),
                              .raw = true,
                              .judged = AnswerPart::kFirstNumber};
      text += Repeat(kFiller, n_repeats - place);
      const Document document{.source = question.source, .text = std::move(text)};
      RETURN_IF_ERROR(memory->Fill({&document, 1}));
      if (trial == 0) report.text_hashes.emplace_back(StrCat(tokens), memory->TextHash());
      RETURN_IF_ERROR(tally.Ask(*memory, {&question, 1}));
    }
    tally.AddRows(*memory, {"right", "named"}, &report);
  }
  return report;
}

}  // namespace fovea::eval
