#include "train/batch_maker.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "base/strings.h"

namespace fovea::train {

// One entry while it is put together.
struct BatchMaker::Entry {
  struct Place {
    int64_t position = 0;
    int64_t begin = 0;
    int64_t end = 0;
  };
  Tokens context;
  Tokens query;
  std::vector<int64_t> counted;  // [query]: whether this id is a target
  std::vector<Place> asks;
  Tokens teacher;
  std::vector<Taught> taught;
  bool is_book = false;
};

absl::StatusOr<std::unique_ptr<BatchMaker>> BatchMaker::Create(const TrainingTexts* texts,
                                                               const ExchangeWriter* writer,
                                                               const BatchOptions& options) {
  constexpr int64_t kFewestTokens = 64;
  if (options.n_entries < 1 || options.context_tokens < kFewestTokens ||
      options.query_tokens < kFewestTokens) {
    return absl::InvalidArgumentError(
        StrCat("a batch of ", options.n_entries, " entries with contexts of ",
               options.context_tokens, " and sequences of ", options.query_tokens,
               " tokens, want at least one entry and ", kFewestTokens, " tokens"));
  }
  if (texts->books.empty()) {
    return absl::InvalidArgumentError(
        "no texts: pass at least one file of records with `text`, which contexts are filled with");
  }
  if (!options.packings.empty()) {
    RETURN_IF_ERROR(SeeEarlierEntriesOfParts(options.n_entries, options.packings).status());
  }
  return std::unique_ptr<BatchMaker>(new BatchMaker(texts, writer, options));
}

Tokens BatchMaker::BookPiece(int64_t n_tokens, Random& random) const {
  const auto n = static_cast<size_t>(n_tokens);
  Tokens piece;
  while (piece.size() < n) {
    const Tokens& book = random.Of(texts_.books);
    if (!piece.empty()) piece.push_back(writer_.end_id());  // the book before ended here
    const size_t left = n - piece.size();
    const size_t begin = book.size() > left ? random.Below(book.size() - left + 1) : 0;
    piece.insert(piece.end(), book.begin() + static_cast<ptrdiff_t>(begin),
                 book.begin() + static_cast<ptrdiff_t>(std::min(book.size(), begin + left)));
  }
  return piece;
}

// Passes over what does not fit any more.
bool BatchMaker::AddExchange(const Exchange& exchange, int64_t memory_begin, int64_t memory_end,
                             Entry* entry) const {
  const size_t size = entry->query.size() + exchange.prompt.size() + exchange.answer.size();
  if (size > static_cast<size_t>(options_.query_tokens)) return false;
  entry->query.insert(entry->query.end(), exchange.prompt.begin(), exchange.prompt.end());
  entry->counted.resize(entry->query.size(), 0);
  if (memory_end > memory_begin) {
    entry->asks.push_back(
        {static_cast<int64_t>(entry->query.size()) - 1, memory_begin, memory_end});
  }
  entry->query.insert(entry->query.end(), exchange.answer.begin(), exchange.answer.end());
  entry->counted.resize(entry->query.size(), 1);
  return true;
}

absl::Status BatchMaker::AddTaught(const std::string& passage, const Exchange& exchange,
                                   Entry* entry) const {
  if (options_.teacher_tokens == 0) return absl::OkStatus();
  ASSIGN_OR_RETURN(const Exchange read,
                   writer_.WriteWithPassages({passage}, exchange.question, exchange.reply));
  const size_t size = entry->teacher.size() + read.prompt.size() + read.answer.size();
  if (size > static_cast<size_t>(options_.teacher_tokens)) return absl::OkStatus();
  entry->teacher.insert(entry->teacher.end(), read.prompt.begin(), read.prompt.end());
  // The last token of either prompt is the first that an answer's token is said after.
  const auto asked = static_cast<int64_t>(entry->query.size() - exchange.answer.size()) - 1;
  const auto taught = static_cast<int64_t>(entry->teacher.size()) - 1;
  for (int64_t i = 0; i < static_cast<int64_t>(exchange.answer.size()); ++i) {
    entry->taught.push_back({0, asked + i, taught + i});
  }
  entry->teacher.insert(entry->teacher.end(), read.answer.begin(), read.answer.end());
  return absl::OkStatus();
}

void BatchMaker::MakeBookEntry(Random& random, Entry* entry) const {
  const Tokens piece = BookPiece(options_.context_tokens + options_.query_tokens, random);
  const auto cut = piece.begin() + static_cast<ptrdiff_t>(options_.context_tokens);
  entry->context.assign(piece.begin(), cut);
  entry->query.assign(cut, piece.end());
  entry->counted.assign(entry->query.size(), 1);
  entry->is_book = true;
  // The first tokens know too little of what they go on with.
  const auto first = static_cast<size_t>(options_.query_tokens / 16);
  for (int64_t i = 0; i < options_.book_asks; ++i) {
    const size_t position = first + random.Below(entry->query.size() - first);
    entry->asks.push_back({static_cast<int64_t>(position), 0, options_.context_tokens});
  }
}

std::vector<double> BatchMaker::FileShares(const TrainingTexts& texts) {
  std::vector<double> shares;
  double total = 0.0;
  for (size_t f = 0; f < texts.file_begins.size(); ++f) {
    const size_t end =
        f + 1 < texts.file_begins.size() ? texts.file_begins[f + 1] : texts.passages.size();
    total += std::sqrt(static_cast<double>(end - texts.file_begins[f]));
    shares.push_back(total);
  }
  for (double& share : shares) share /= total;
  return shares;
}

size_t BatchMaker::PickPassage(Random& random) const {
  const auto found = std::upper_bound(file_shares_.begin(), file_shares_.end(), random.Uniform());
  const auto file =
      std::min(static_cast<size_t>(found - file_shares_.begin()), texts_.file_begins.size() - 1);
  const size_t begin = texts_.file_begins[file];
  const size_t end =
      file + 1 < texts_.file_begins.size() ? texts_.file_begins[file + 1] : texts_.passages.size();
  return begin + random.Below(end - begin);
}

namespace {

// At most n bytes of a text, cut at a space.
std::string FirstBytes(const std::string& text, size_t n) {
  if (text.size() <= n) return text;
  const size_t end = text.rfind(' ', n);
  return end == std::string::npos ? std::string() : text.substr(0, end);
}

std::string LastBytes(const std::string& text, size_t n) {
  if (text.size() <= n) return text;
  const size_t begin = text.find(' ', text.size() - n);
  return begin == std::string::npos ? std::string() : text.substr(begin + 1);
}

}  // namespace

std::string BatchMaker::Surrounded(size_t p, Random& random) const {
  constexpr size_t kShortest = 300;
  const auto longest = std::max(kShortest, static_cast<size_t>(options_.passage_bytes));
  const size_t size = kShortest + random.Below(longest - kShortest + 1);
  std::string text = texts_.passages[p].text;
  if (text.size() >= size) return text;
  const auto next_file = std::upper_bound(texts_.file_begins.begin(), texts_.file_begins.end(), p);
  const size_t file_begin = *(next_file - 1);
  const size_t file_end =
      next_file == texts_.file_begins.end() ? texts_.passages.size() : *next_file;
  constexpr std::string_view kGap = "\n\n";
  size_t before = random.Below(size - text.size() + 1);
  size_t after = size - text.size() - before;
  for (size_t other = p; other > file_begin && before > kGap.size(); --other) {
    const std::string part = LastBytes(texts_.passages[other - 1].text, before - kGap.size());
    if (part.empty()) break;
    text = StrCat(part, kGap, text);
    before -= part.size() + kGap.size();
  }
  for (size_t other = p + 1; other < file_end && after > kGap.size(); ++other) {
    const std::string part = FirstBytes(texts_.passages[other].text, after - kGap.size());
    if (part.empty()) break;
    text += StrCat(kGap, part);
    after -= part.size() + kGap.size();
  }
  return text;
}

std::vector<std::string> BatchMaker::PassagesOfPrompt(const std::string& own, size_t p,
                                                      Random& random) const {
  std::vector<std::string> passages;
  if (!own.empty()) passages.push_back(own);
  const size_t n = 1 + random.Below(static_cast<size_t>(options_.most_passages));
  const bool are_neighbours = p < neighbours_.size() && random.Chance(options_.neighbour_share);
  std::vector<size_t> others;
  if (p < similar_.size()) others = are_neighbours ? neighbours_[p] : similar_[p];
  random.Shuffle(&others);
  constexpr int kTries = 20;
  for (int i = 0; i < kTries && passages.size() < n && !texts_.passages.empty(); ++i) {
    if (others.empty()) {
      const size_t other = PickPassage(random);
      if (other != p) passages.push_back(Surrounded(other, random));
      continue;
    }
    const size_t other = others.back();
    others.pop_back();
    // What stands beside a neighbour may be the passage itself, and what `own` was given already.
    const std::string& text = texts_.passages[other].text;
    if (!are_neighbours) {
      passages.push_back(Surrounded(other, random));
    } else if (own.find(text) == std::string::npos) {
      passages.push_back(text);
    }
  }
  random.Shuffle(&passages);
  return passages;
}

absl::Status BatchMaker::MakeQuestionEntry(Random& random, Entry* entry) const {
  const auto n_context = static_cast<size_t>(options_.context_tokens);
  // A passage, its neighbours, some that look like answering its questions, and any others.
  const size_t first = PickPassage(random);
  std::vector<size_t> placed = {first};
  const bool has_neighbours = random.Chance(options_.neighbour_share);
  if (has_neighbours) {
    placed.insert(placed.end(), neighbours_[first].begin(), neighbours_[first].end());
  }
  for (size_t i = random.Below(4); i > 0 && i <= similar_[first].size(); --i) {
    placed.push_back(similar_[first][i - 1]);
  }
  constexpr int kTries = 20;
  for (int i = 0; i < kTries; ++i) placed.push_back(PickPassage(random));
  size_t n_tokens = 0;
  std::vector<size_t> fitting;
  const Tokens gap = writer_.Encode("\n\n");
  for (const size_t p : placed) {
    const size_t size = texts_.passages[p].ids.size() + gap.size();
    if (n_tokens + size > n_context ||
        std::find(fitting.begin(), fitting.end(), p) != fitting.end()) {
      continue;
    }
    n_tokens += size;
    fitting.push_back(p);
  }
  random.Shuffle(&fitting);
  // Neighbours stand as they do in their document.
  if (has_neighbours) std::sort(fitting.begin(), fitting.end());
  struct Asked {
    size_t passage;
    const Exchange* exchange;
    int64_t begin, end;
  };
  std::vector<Asked> asked;
  if (random.Chance(0.5)) {
    entry->context =
        BookPiece(static_cast<int64_t>(random.Below(n_context - n_tokens + 1)), random);
  }
  for (const size_t p : fitting) {
    const Passage& passage = texts_.passages[p];
    const auto begin = static_cast<int64_t>(entry->context.size());
    entry->context.insert(entry->context.end(), passage.ids.begin(), passage.ids.end());
    const auto end = static_cast<int64_t>(entry->context.size());
    for (const Exchange& exchange : passage.questions) asked.push_back({p, &exchange, begin, end});
    entry->context.insert(entry->context.end(), gap.begin(), gap.end());
  }
  const Tokens rest = BookPiece(static_cast<int64_t>(n_context - entry->context.size()), random);
  entry->context.insert(entry->context.end(), rest.begin(), rest.end());
  random.Shuffle(&asked);
  const bool rereads = random.Chance(options_.reread_share);
  // Where the answer is: in the prompt alone, in the memory alone, in both.
  const double where = random.Uniform();
  const bool is_in_memory = !rereads || where < 0.6;
  const bool is_in_prompt = where >= 0.2;
  if (!is_in_memory) entry->context = BookPiece(options_.context_tokens, random);
  for (const Asked& a : asked) {
    const int64_t end = is_in_memory ? a.end : a.begin;
    if (!rereads) {
      if (AddExchange(*a.exchange, a.begin, end, entry) && options_.teacher_tokens > 0) {
        RETURN_IF_ERROR(AddTaught(Surrounded(a.passage, random), *a.exchange, entry));
      }
      continue;
    }
    const std::string own = is_in_prompt ? Surrounded(a.passage, random) : std::string();
    ASSIGN_OR_RETURN(const Exchange exchange,
                     writer_.WriteWithPassages(PassagesOfPrompt(own, a.passage, random),
                                               a.exchange->question, a.exchange->reply));
    AddExchange(exchange, a.begin, end, entry);
    if (entry->query.size() > static_cast<size_t>(options_.query_tokens) * 9 / 10) break;
  }
  return absl::OkStatus();
}

absl::Status BatchMaker::MakeFactEntry(Random& random, Entry* entry) const {
  const auto n_context = static_cast<size_t>(options_.context_tokens);
  const size_t most = size_t{1} << random.Below(4);
  struct Planted {
    Fact fact;
    Tokens ids;
    bool is_asked;
    int64_t begin = 0, end = 0;
  };
  std::vector<Planted> planted;
  size_t n_tokens = 0;
  const auto plant = [&](Fact fact, bool is_asked) {
    Tokens ids = writer_.Encode(StrCat(" ", fact.sentence));
    if (n_tokens + ids.size() > n_context * 3 / 4) return;
    n_tokens += ids.size();
    planted.push_back({std::move(fact), std::move(ids), is_asked});
  };
  for (size_t i = 0; i < most; ++i) {
    const Fact fact = facts_.Make(random);
    plant(fact, true);
    if (!random.Chance(options_.lookalike_share)) continue;
    for (size_t j = 1 + random.Below(3); j > 0; --j) {
      Fact like = facts_.MakeLike(fact, random);
      if (like.question != fact.question) plant(std::move(like), random.Chance(0.5));
    }
  }
  random.Shuffle(&planted);
  // At random places of a book, in this order.
  const Tokens base = BookPiece(static_cast<int64_t>(n_context - n_tokens), random);
  std::vector<size_t> cuts;
  for (size_t i = 0; i < planted.size(); ++i) cuts.push_back(random.Below(base.size() + 1));
  std::sort(cuts.begin(), cuts.end());
  size_t taken = 0;
  for (size_t i = 0; i < planted.size(); ++i) {
    entry->context.insert(entry->context.end(), base.begin() + static_cast<ptrdiff_t>(taken),
                          base.begin() + static_cast<ptrdiff_t>(cuts[i]));
    taken = cuts[i];
    planted[i].begin = static_cast<int64_t>(entry->context.size());
    entry->context.insert(entry->context.end(), planted[i].ids.begin(), planted[i].ids.end());
    planted[i].end = static_cast<int64_t>(entry->context.size());
  }
  entry->context.insert(entry->context.end(), base.begin() + static_cast<ptrdiff_t>(taken),
                        base.end());
  random.Shuffle(&planted);
  const bool rereads = random.Chance(options_.reread_share);
  for (const Planted& p : planted) {
    if (!p.is_asked) continue;
    std::string answer = p.fact.answer;
    if (random.Chance(0.4)) {
      answer[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(answer[0])));
      answer += ".";
    }
    std::vector<std::string> passages;
    std::string passage;
    if (rereads || options_.teacher_tokens > 0) {
      // What stands around it, as a passage that is read again would.
      const size_t around_tokens = static_cast<size_t>(options_.passage_bytes) / 8 + 1;
      const auto begin = static_cast<size_t>(
          std::max<int64_t>(0, p.begin - static_cast<int64_t>(random.Below(around_tokens))));
      const size_t end =
          std::min(entry->context.size(), static_cast<size_t>(p.end) + random.Below(around_tokens));
      const std::span<const int32_t> around(entry->context.data() + begin, end - begin);
      passage = writer_.tokenizer().Decode(around);
    }
    if (rereads) passages = PassagesOfPrompt(passage, similar_.size(), random);
    ASSIGN_OR_RETURN(const Exchange exchange,
                     writer_.WriteWithPassages(passages, p.fact.question, answer));
    if (AddExchange(exchange, p.begin, p.end, entry) && !rereads) {
      RETURN_IF_ERROR(AddTaught(passage, exchange, entry));
    }
  }
  return absl::OkStatus();
}

// Without a memory: book text, or questions whose passages are in the prompts. Without such steps a
// model forgets how to do without a memory.
absl::Status BatchMaker::MakeLocalEntry(Random& random, Entry* entry) const {
  if (texts_.passages.empty() || random.Chance(0.5)) {
    entry->query = BookPiece(options_.query_tokens, random);
    entry->counted.assign(entry->query.size(), 1);
    entry->is_book = true;
    return absl::OkStatus();
  }
  constexpr int kTries = 20;
  for (int i = 0; i < kTries; ++i) {
    const size_t p = PickPassage(random);
    const Exchange& asked = random.Of(texts_.passages[p].questions);
    const std::string own = Surrounded(p, random);
    const bool asks = random.Chance(options_.ask_share);
    ASSIGN_OR_RETURN(
        const Exchange exchange,
        asks ? writer_.WriteWithPassages({own}, std::string(kAskForQuestion), asked.question)
             : writer_.WriteWithPassages(PassagesOfPrompt(own, p, random), asked.question,
                                         asked.reply));
    AddExchange(exchange, 0, 0, entry);
    if (entry->query.size() > static_cast<size_t>(options_.query_tokens) * 9 / 10) break;
  }
  return absl::OkStatus();
}

// Consecutive entries of a pack are consecutive chunks of a book.
absl::StatusOr<TrainingBatch> BatchMaker::MakePacked(Random& random) const {
  TrainingBatch batch;
  const int64_t n = options_.n_entries;
  const int64_t n_tokens = options_.query_tokens;
  ASSIGN_OR_RETURN(batch.seen, SeeEarlierEntriesOfParts(n, options_.packings));
  const auto ids = torch::TensorOptions().dtype(torch::kInt64);
  batch.queries = torch::empty({n, n_tokens}, ids);
  batch.targets = torch::empty({n, n_tokens}, ids);
  batch.weights = torch::ones({n}, torch::kFloat32);
  const int64_t n_of_part = n / static_cast<int64_t>(options_.packings.size());
  int64_t entry = 0;
  for (const LongLlamaPacking& packing : options_.packings) {
    for (int64_t pack = 0; pack < n_of_part / packing.packing; ++pack) {
      const Tokens piece = BookPiece(packing.packing * n_tokens + 1, random);
      for (int64_t i = 0; i < packing.packing; ++i, ++entry) {
        const auto begin = piece.begin() + i * n_tokens;
        std::copy_n(begin, n_tokens, batch.queries[entry].data_ptr<int64_t>());
        std::copy_n(begin + 1, n_tokens, batch.targets[entry].data_ptr<int64_t>());
        if (i > 0) batch.own.push_back({entry, n_tokens - 1, 0, n_tokens});
      }
    }
  }
  return batch;
}

absl::StatusOr<TrainingBatch> BatchMaker::Make(uint64_t step, int64_t d) const {
  Random random(options_.seed, step);
  if (d > 0 && !options_.packings.empty()) return MakePacked(random);
  TrainingBatch batch;
  if (d > 0) {
    ASSIGN_OR_RETURN(batch.seen, SeePreviousContexts(options_.n_entries, d));
  }
  const int64_t n = options_.n_entries;
  const auto ids = torch::TensorOptions().dtype(torch::kInt64);
  if (d > 0) batch.contexts = torch::empty({n, options_.context_tokens}, ids);
  batch.queries = torch::full({n, options_.query_tokens}, writer_.end_id(), ids);
  batch.targets = torch::full({n, options_.query_tokens}, -100, ids);
  batch.weights = torch::ones({n}, torch::kFloat32);
  if (d > 0 && options_.teacher_tokens > 0) {
    batch.teacher = torch::full({n, options_.teacher_tokens}, writer_.end_id(), ids);
  }
  for (int64_t i = 0; i < n; ++i) {
    Entry entry;
    const double kind = random.Uniform();
    if (d == 0) {
      RETURN_IF_ERROR(MakeLocalEntry(random, &entry));
    } else if (kind < options_.book_share) {
      MakeBookEntry(random, &entry);
    } else if (kind < options_.book_share + options_.question_share && !texts_.passages.empty()) {
      RETURN_IF_ERROR(MakeQuestionEntry(random, &entry));
    } else {
      RETURN_IF_ERROR(MakeFactEntry(random, &entry));
    }
    if (d > 0) {
      auto* to = batch.contexts[i].data_ptr<int64_t>();
      std::copy(entry.context.begin(), entry.context.end(), to);
    }
    auto* queries = batch.queries[i].data_ptr<int64_t>();
    auto* targets = batch.targets[i].data_ptr<int64_t>();
    std::copy(entry.query.begin(), entry.query.end(), queries);
    for (size_t t = 0; t + 1 < entry.query.size(); ++t) {
      if (entry.counted[t + 1] != 0) targets[t] = entry.query[t + 1];
    }
    if (entry.is_book) batch.weights[i] = options_.book_weight;
    if (batch.teacher.defined()) {
      std::copy(entry.teacher.begin(), entry.teacher.end(), batch.teacher[i].data_ptr<int64_t>());
    }
    for (Taught taught : entry.taught) {
      taught.entry = i;
      batch.taught.push_back(taught);
    }
    for (const Entry::Place& place : entry.asks) {
      batch.asks.push_back({i, place.position, place.begin, place.end});
    }
    if (d > 0) {
      const int64_t last = entry.asks.empty() || entry.is_book ? options_.query_tokens - 1
                                                               : entry.asks.back().position;
      batch.own.push_back({i, last, 0, options_.context_tokens});
    }
  }
  return batch;
}

}  // namespace fovea::train
