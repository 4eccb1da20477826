#include "train/dictionary_batches.h"

#include <algorithm>
#include <numeric>
#include <set>

#include "base/strings.h"
#include "train/dictionary_model.h"

namespace fovea::train {
namespace {

using texts::DictionaryRecord;

// All different, in any order.
std::vector<uint32_t> BatchKeys(int64_t n, const DictionaryOptions& options, Random& random) {
  std::set<uint32_t> taken;
  std::vector<uint32_t> keys;
  const auto take = [&](uint32_t key) {
    if (static_cast<int64_t>(keys.size()) == n || !taken.insert(key).second) return;
    keys.push_back(key);
  };
  // A family has (2 + 1 + most) / 2 keys on average: of what is drawn a smaller share than of keys.
  const double family = 0.5 * static_cast<double>(3 + options.most_look_alikes);
  const double share = options.look_alike_share;
  const double chance = share / (share + family * (1.0 - share));
  while (static_cast<int64_t>(keys.size()) < n) {
    const auto key = static_cast<uint32_t>(random.Below(texts::kDictionaryWords));
    take(key);
    if (options.most_look_alikes == 0 || !random.Chance(chance)) continue;
    const auto place = static_cast<int64_t>(random.Below(texts::kWordSymbols));
    const size_t n_others = 1 + random.Below(static_cast<size_t>(options.most_look_alikes));
    for (size_t i = 0; i < n_others; ++i) take(WithOtherSymbol(key, place, random));
  }
  random.Shuffle(&keys);
  return keys;
}

torch::Tensor ToTensor(const Tokens& tokens, int64_t n_rows) {
  return torch::tensor(tokens, torch::kInt64).view({n_rows, -1});
}

}  // namespace

absl::StatusOr<std::unique_ptr<DictionaryBatches>> DictionaryBatches::Create(
    const DictionaryOptions& options) {
  const auto symbols = static_cast<int64_t>(texts::kDictionarySymbols.size());
  if (options.n_entries < 1 || options.n_records < 1 || options.n_short_records < 1 ||
      options.n_short_records > options.n_records || options.n_short_steps < 0 ||
      options.most_look_alikes < 0 || options.most_look_alikes >= symbols ||
      !(options.look_alike_share >= 0.0 && options.look_alike_share <= 1.0)) {
    return absl::InvalidArgumentError(StrCat(
        "a batch of ", options.n_entries, " contexts of ", options.n_records,
        " definitions (short ones: ", options.n_short_records, "), ", options.look_alike_share,
        " of them in families of up to ", 1 + options.most_look_alikes,
        ": want at least 1 of each, short ones no longer, a share of 0 to 1 and at most ", symbols,
        " keys in a family"));
  }
  // A quarter of all keys: drawing ones that are new stays quick.
  if (options.n_entries > texts::kDictionaryWords / 4 / options.n_records) {
    return absl::InvalidArgumentError(StrCat(options.n_entries, " contexts of ", options.n_records,
                                             " definitions: there are too few keys for them"));
  }
  return std::unique_ptr<DictionaryBatches>(new DictionaryBatches(options));
}

absl::StatusOr<TrainingBatch> DictionaryBatches::Make(uint64_t step, int64_t d) const {
  texts::Random random(options_.seed, step);
  const bool is_short = static_cast<int64_t>(step) < options_.n_short_steps;
  const int64_t n_records = is_short ? options_.n_short_records : options_.n_records;
  // As many tokens in every step.
  const int64_t n_entries = options_.n_entries * options_.n_records / n_records;
  const std::vector<uint32_t> keys = BatchKeys(n_entries * n_records, options_, random);

  TrainingBatch batch;
  Tokens contexts, queries, targets;
  std::vector<size_t> order(static_cast<size_t>(n_records));
  for (int64_t entry = 0; entry < n_entries; ++entry) {
    std::vector<DictionaryRecord> records;
    for (int64_t i = 0; i < n_records; ++i) {
      records.push_back({keys[static_cast<size_t>(entry * n_records + i)],
                         static_cast<uint32_t>(random.Below(texts::kDictionaryWords))});
    }
    std::string definitions, questions;
    for (const DictionaryRecord& record : records) {
      AppendRecord(record, texts::kDefines, &definitions);
    }
    std::iota(order.begin(), order.end(), size_t{0});
    random.Shuffle(&order);
    for (const size_t i : order) AppendRecord(records[i], texts::kAsks, &questions);
    const Tokens context = EncodeDictionaryText(definitions);
    const Tokens query = EncodeDictionaryText(questions);
    contexts.insert(contexts.end(), context.begin(), context.end());
    queries.insert(queries.end(), query.begin(), query.end());
    for (size_t i = 0; i < query.size(); ++i) {
      const auto place = static_cast<int64_t>(i) % texts::kRecordSymbols;
      const bool is_asked =
          place >= texts::kWordSymbols && place < texts::kWordSymbols + texts::kWordSymbols;
      targets.push_back(is_asked ? query[i + 1] : -100);
    }
    const auto n_tokens = static_cast<int64_t>(query.size());
    batch.own.push_back({entry, n_tokens - 1 - texts::kWordSymbols - 1, 0, n_tokens});
  }
  batch.queries = ToTensor(queries, n_entries);
  batch.targets = ToTensor(targets, n_entries);
  if (d == 0) return batch;
  batch.contexts = ToTensor(contexts, n_entries);
  ASSIGN_OR_RETURN(batch.seen, SeePreviousContexts(n_entries, d));
  return batch;
}

}  // namespace fovea::train
