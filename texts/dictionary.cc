#include "texts/dictionary.h"

#include <algorithm>

#include "base/status.h"

namespace fovea::texts {
namespace {

constexpr size_t kSymbols = kDictionarySymbols.size();
constexpr int kSymbolBits = 6;

int ShiftOf(int64_t place) { return kSymbolBits * static_cast<int>(kWordSymbols - 1 - place); }

}  // namespace

std::string WordText(uint32_t word) {
  std::string text;
  for (int64_t place = 0; place < kWordSymbols; ++place) {
    text += kDictionarySymbols[(word >> ShiftOf(place)) % kSymbols];
  }
  return text;
}

void AppendRecord(const DictionaryRecord& record, char mark, std::string* text) {
  *text += WordText(record.key);
  *text += mark;
  *text += WordText(record.value);
  *text += '\n';
}

uint32_t WithOtherSymbol(uint32_t word, int64_t place, Random& random) {
  const uint32_t added = 1 + static_cast<uint32_t>(random.Below(kSymbols - 1));
  const uint32_t symbol = (word >> ShiftOf(place)) % kSymbols;
  const uint32_t other = (symbol + added) % kSymbols;
  return (word & ~(uint32_t{kSymbols - 1} << ShiftOf(place))) | other << ShiftOf(place);
}

std::vector<uint32_t> DrawKeys(int64_t n, int64_t look_alikes, Random& random) {
  FOVEA_CHECK(n <= kDictionaryWords && look_alikes < static_cast<int64_t>(kSymbols));
  std::vector<bool> taken(kDictionaryWords);
  std::vector<uint32_t> keys;
  keys.reserve(static_cast<size_t>(n));
  const auto take = [&](uint32_t key) {
    if (taken[key] || static_cast<int64_t>(keys.size()) == n) return false;
    taken[key] = true;
    keys.push_back(key);
    return true;
  };
  while (static_cast<int64_t>(keys.size()) < n) {
    const auto key = static_cast<uint32_t>(random.Below(kDictionaryWords));
    if (!take(key) || look_alikes == 0) continue;
    const auto place = static_cast<int64_t>(random.Below(kWordSymbols));
    // Where other families took some of its keys already a family stays smaller.
    int64_t n_tries = 4 * static_cast<int64_t>(kSymbols);
    for (int64_t i = 0; i < look_alikes && n_tries-- > 0;) {
      i += take(WithOtherSymbol(key, place, random)) ? 1 : 0;
    }
  }
  random.Shuffle(&keys);
  return keys;
}

}  // namespace fovea::texts
