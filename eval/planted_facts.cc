#include "eval/planted_facts.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/strings.h"
#include "eval/books.h"
#include "texts/facts.h"
#include "texts/harvest.h"
#include "texts/random.h"

namespace fovea::eval {
namespace {

// Of the texts, for words: the same facts whatever the size of the memory, and enough names for
// many.
constexpr size_t kHarvestBytes = size_t{16} << 20;

// Answers begin with a preposition where sentences do ("in the attic"): the rest is right, too.
std::vector<std::string> AcceptedAnswers(const std::string& answer) {
  std::vector<std::string> accepted = {answer};
  for (const std::string_view word : {"in ", "at ", "under "}) {
    if (answer.starts_with(word)) accepted.push_back(answer.substr(word.size()));
  }
  return accepted;
}

// Of one trial.
struct Planted {
  std::vector<Document> documents;
  std::vector<Question> questions;
};

// Facts with questions of their own. InvalidArgument where the words make too few.
absl::StatusOr<std::vector<texts::Fact>> MakeFacts(const FactsOptions& options,
                                                   const texts::FactMaker& maker,
                                                   texts::Random& random,
                                                   std::vector<texts::Fact>* lookalikes) {
  std::vector<texts::Fact> facts;
  std::set<std::string> asked;
  constexpr int64_t kMostTries = 100;
  int64_t n_tries = kMostTries * options.n_facts * (1 + options.n_lookalikes);
  const auto is_new = [&](const texts::Fact& fact) { return asked.insert(fact.question).second; };
  while (static_cast<int64_t>(facts.size()) < options.n_facts && n_tries-- > 0) {
    texts::Fact fact = maker.Make(random);
    if (!is_new(fact)) continue;
    for (int64_t i = 0; i < options.n_lookalikes && n_tries-- > 0;) {
      texts::Fact like = maker.MakeLike(fact, random);
      if (!is_new(like)) continue;
      lookalikes->push_back(std::move(like));
      ++i;
    }
    facts.push_back(std::move(fact));
  }
  if (n_tries < 0) {
    return absl::InvalidArgumentError(StrCat("the words of the texts make no ", options.n_facts,
                                             " facts with ", options.n_lookalikes,
                                             " look-alikes: ask for fewer, or pass more --texts"));
  }
  return facts;
}

// Each sentence behind a space of the books, chosen among all of them.
Planted Plant(const std::vector<Book>& books, const std::vector<texts::Fact>& facts,
              const std::vector<texts::Fact>& lookalikes, texts::Random& random) {
  struct Place {
    size_t book = 0;
    size_t byte = 0;
    const texts::Fact* fact = nullptr;
    bool is_asked = false;
    bool operator<(const Place& other) const {
      return std::pair(book, byte) < std::pair(other.book, other.byte);
    }
  };
  size_t n_bytes = 0;
  for (const Book& book : books) n_bytes += book.text.size();
  std::vector<Place> places;
  const auto add = [&](const texts::Fact& fact, bool is_asked) {
    Place place{.fact = &fact, .is_asked = is_asked};
    place.byte = random.Below(n_bytes);
    while (place.byte >= books[place.book].text.size()) {
      place.byte -= books[place.book++].text.size();
    }
    // The end of a text without a space behind the place is as good.
    place.byte =
        std::min(books[place.book].text.find(' ', place.byte), books[place.book].text.size());
    places.push_back(place);
  };
  for (const texts::Fact& fact : facts) add(fact, true);
  for (const texts::Fact& fact : lookalikes) add(fact, false);
  std::stable_sort(places.begin(), places.end());

  Planted planted{.documents = ToDocuments(books, "default"), .questions = {}};
  for (Document& document : planted.documents) document.text.clear();
  std::map<const texts::Fact*, Question> questions;
  auto place = places.begin();
  for (size_t book = 0; book < books.size(); ++book) {
    Document& document = planted.documents[book];
    size_t copied = 0;
    for (; place != places.end() && place->book == book; ++place) {
      document.text.append(books[book].text, copied, place->byte - copied);
      copied = place->byte;
      document.text += ' ';
      const uint64_t begin = document.text.size();
      document.text += place->fact->sentence;
      if (!place->is_asked) continue;
      questions[place->fact] = {.text = place->fact->question,
                                .answers = AcceptedAnswers(place->fact->answer),
                                .passage = place->fact->sentence,
                                .source = document.source,
                                .begin = begin,
                                .end = document.text.size(),
                                .kind = StrCat("kind ", place->fact->kind)};
    }
    document.text.append(books[book].text, copied);
  }
  for (const texts::Fact& fact : facts) planted.questions.push_back(std::move(questions.at(&fact)));
  return planted;
}

}  // namespace

absl::StatusOr<Report> RunFacts(const Subject& subject, const FactsOptions& options) {
  const CommonOptions& common = options.common;
  ASSIGN_OR_RETURN(const std::vector<Way> ways, MakeWays(common.ways, *subject.model));
  Report report{.evaluation = "facts",
                .settings = {{"facts", options.n_facts},
                             {"look-alikes", options.n_lookalikes},
                             {"trials", options.n_trials}},
                .text_hashes = {},
                .rows = {},
                .plot = {.x = "tokens", .y = "right", .series = "way"}};
  ASSIGN_OR_RETURN(const std::vector<std::string> harvested,
                   ReadTexts(common.texts, kHarvestBytes));
  texts::WordHarvest harvest;
  for (const std::string& text : harvested) harvest.Add(text);
  texts::FactWords words;
  harvest.Finish(&words);
  const texts::FactMaker maker(words);
  for (const int64_t tokens : common.tokens) {
    if (tokens < 1) return absl::InvalidArgumentError("no text to plant facts in: want --tokens");
    ASSIGN_OR_RETURN(const std::vector<Book> books,
                     ReadBooks(common.texts, subject.model->tokenizer(), tokens, subject.progress));
    ASSIGN_OR_RETURN(const auto memory, TestMemory::Open(&subject, StrCat("facts-", tokens)));
    Tally tally(&subject, &ways, &common.visit);
    for (int64_t trial = 0; trial < options.n_trials; ++trial) {
      texts::Random random(common.seed, static_cast<uint64_t>(trial));
      std::vector<texts::Fact> lookalikes;
      ASSIGN_OR_RETURN(const std::vector<texts::Fact> facts,
                       MakeFacts(options, maker, random, &lookalikes));
      const Planted planted = Plant(books, facts, lookalikes, random);
      RETURN_IF_ERROR(memory->Fill(planted.documents));
      if (trial == 0) report.text_hashes.emplace_back(StrCat(tokens), memory->TextHash());
      RETURN_IF_ERROR(tally.Ask(*memory, planted.questions));
    }
    tally.AddRows(*memory, {"right", "named"}, &report);
  }
  return report;
}

}  // namespace fovea::eval
