#include "memory/search/attribution.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/container/flat_hash_map.h"
#include "documents/utf8.h"

namespace fovea::memory {
namespace {

// Passage `p` of a stored window as a result, without mass and score.
Passage MakePassage(const MemorySearcher& searcher, const LiveWindow& window,
                    const storage::WindowRecord& record, size_t p) {
  const auto& begins = record.passage_begins;
  const uint32_t first_token = begins[p];
  const auto end_token =
      p + 1 < begins.size() ? begins[p + 1] : static_cast<uint32_t>(record.ids.size());
  const uint32_t first_byte = first_token == 0 ? 0 : record.ends[first_token - 1];
  const uint32_t end_byte = record.ends[end_token - 1];
  const storage::DocumentRecord& document = searcher.generation().documents[window.document];
  Passage passage;
  passage.slot_begin = window.slot_begin + first_token;
  passage.n_tokens = end_token - first_token;
  passage.document = document.id;
  const storage::SourceReference* chosen = &document.sources.at(0);
  for (const storage::SourceReference& source : document.sources) {
    const auto& names = searcher.scope().collections;
    if (std::find(names.begin(), names.end(), source.collection) != names.end()) {
      chosen = &source;
      break;
    }
  }
  passage.title = chosen->title;
  passage.source = chosen->source;
  passage.collection = chosen->collection;
  for (const storage::SourceReference& source : document.sources) {
    auto& others = passage.other_sources;
    if (source.source != chosen->source &&
        std::find(others.begin(), others.end(), source.source) == others.end()) {
      others.push_back(source.source);
    }
  }
  passage.start = window.byte_begin + first_byte;
  passage.end = window.byte_begin + end_byte;
  passage.text = record.text.substr(first_byte, end_byte - first_byte);
  passage.peak_start = passage.peak_end = passage.start;
  passage.excerpt_start = passage.start;
  passage.excerpt_end = passage.end;
  return passage;
}

// A token of a window and its mass.
using TokenMass = std::pair<uint32_t, double>;

// Sets the peak of a passage: the run of at most kPeakTokens of its tokens with the most mass.
// `mass`: of tokens of the window, ascending.
void SetPeak(const LiveWindow& window, const storage::WindowRecord& record,
             std::span<const TokenMass> mass, Passage* passage) {
  constexpr uint32_t kPeakTokens = 32;
  const auto begin = static_cast<uint32_t>(passage->slot_begin - window.slot_begin);
  const auto first =
      std::lower_bound(mass.begin(), mass.end(), begin,
                       [](const TokenMass& one, uint32_t token) { return one.first < token; });
  double sum = 0.0;
  double best = 0.0;
  auto low = first;
  for (auto high = first; high != mass.end() && high->first < begin + passage->n_tokens; ++high) {
    sum += high->second;
    for (; high->first - low->first >= kPeakTokens; ++low) sum -= low->second;
    if (sum <= best) continue;
    best = sum;
    passage->peak_start = window.byte_begin + (low->first == 0 ? 0 : record.ends[low->first - 1]);
    passage->peak_end = window.byte_begin + record.ends[high->first];
  }
}

// Index of the passage that holds token `t` of the window.
size_t PassageOf(const storage::WindowRecord& record, uint32_t t) {
  const auto& begins = record.passage_begins;
  return std::upper_bound(begins.begin(), begins.end(), t) - begins.begin() - 1;
}

// The first token of a document was encoded at position 0 with nothing before it: an attention
// sink (Xiao et al. 2023), to which heads turn that look for nothing. It says nothing about where
// the answer stands.
bool IsSink(const LiveWindow& window, Slot slot) {
  return window.ordinal == 0 && slot == window.slot_begin;
}
bool IsSink(const Generation& generation, Slot slot) {
  const LiveWindow* window = generation.FindWindow(slot);
  return window == nullptr || IsSink(*window, slot);
}

// Candidates of a ranking by log-mass, which is by mass first.
constexpr int kLogMassCandidates = 64;

// The window that follows `window` in its document, or for step = -1 the one before it; null at the
// document's ends.
const LiveWindow* NextWindow(const Generation& generation, const LiveWindow& window, int step) {
  if (step < 0 && window.ordinal == 0) return nullptr;
  const uint64_t ordinal = window.ordinal + (step < 0 ? -1 : 1);
  const auto is_next = [&](const LiveWindow& other) {
    return other.document == window.document && other.ordinal == ordinal;
  };
  // Where no edit has put another one there, it lies beside it.
  const std::vector<LiveWindow>& windows = generation.windows;
  const auto beside = static_cast<size_t>(&window - windows.data() + step);
  if (beside < windows.size() && is_next(windows[beside])) return &windows[beside];
  const auto found = std::find_if(windows.begin(), windows.end(), is_next);
  return found == windows.end() ? nullptr : &*found;
}

bool BetterPassage(const Passage& a, const Passage& b) {
  if (a.score != b.score) return a.score > b.score;
  return a.slot_begin < b.slot_begin;
}

}  // namespace

absl::StatusOr<Surroundings> ReadSurroundings(const Generation& generation,
                                              const Passage& passage) {
  // Far more than what is seen as one character has, but for rows of flags.
  constexpr size_t kMostBytes = 256;
  const LiveWindow* const window = generation.FindWindow(passage.slot_begin);
  if (window == nullptr) return absl::NotFoundError("the passage's window is gone");
  const auto text_of = [&](const LiveWindow& one) -> absl::StatusOr<std::string> {
    ASSIGN_OR_RETURN(storage::WindowRecord record, ReadWindow(generation, one.slot_begin));
    return std::move(record.text);
  };
  ASSIGN_OR_RETURN(std::string before, text_of(*window));
  std::string after = before.substr(passage.end - window->byte_begin);
  before.resize(passage.start - window->byte_begin);
  if (const LiveWindow* last = NextWindow(generation, *window, -1);
      before.empty() && last != nullptr) {
    ASSIGN_OR_RETURN(before, text_of(*last));
  }
  if (const LiveWindow* next = NextWindow(generation, *window, 1);
      after.empty() && next != nullptr) {
    ASSIGN_OR_RETURN(after, text_of(*next));
  }
  const auto is_inner = [](char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; };
  size_t cut = before.size() - std::min(before.size(), kMostBytes);
  while (cut < before.size() && is_inner(before[cut])) ++cut;
  return Surroundings{.before = before.substr(cut),
                      .after = std::string(documents::Utf8Prefix(after, kMostBytes))};
}

absl::StatusOr<std::vector<Passage>> PassagesByMass(const MemorySearcher& searcher,
                                                    std::span<const SlotMass> mass,
                                                    int n_passages) {
  if (n_passages <= 0 || mass.empty() || searcher.n_rows() == 0) return std::vector<Passage>();
  const Generation& generation = searcher.generation();
  // Mean over memory layers, heads and positions: all of it together is at most 1.
  const double total_rows =
      static_cast<double>(searcher.n_rows()) * static_cast<double>(mass.front().mass.size());
  struct WindowMass {
    double mass = 0.0;
    std::vector<TokenMass> tokens;
  };
  absl::flat_hash_map<const LiveWindow*, WindowMass> by_window;
  for (const SlotMass& slot : mass) {
    const LiveWindow* window = generation.FindWindow(slot.slot);
    if (window == nullptr) continue;
    if (IsSink(*window, slot.slot)) continue;
    double sum = 0.0;
    for (float layer : slot.mass) sum += layer;
    WindowMass& entry = by_window[window];
    entry.mass += sum / total_rows;
    entry.tokens.emplace_back(static_cast<uint32_t>(slot.slot - window->slot_begin),
                              sum / total_rows);
  }
  std::vector<std::pair<const LiveWindow*, WindowMass*>> order;
  for (auto& [window, entry] : by_window) order.emplace_back(window, &entry);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    if (a.second->mass != b.second->mass) return a.second->mass > b.second->mass;
    return a.first->slot_begin < b.first->slot_begin;
  });

  std::vector<Passage> best;
  for (const auto& [window, entry] : order) {
    // A passage has at most the mass of its window: nothing better can follow.
    if (static_cast<int>(best.size()) >= n_passages && best[n_passages - 1].mass >= entry->mass) {
      break;
    }
    ASSIGN_OR_RETURN(const storage::WindowRecord record,
                     ReadWindow(searcher.generation(), window->slot_begin));
    std::sort(entry->tokens.begin(), entry->tokens.end());
    std::map<size_t, double> by_passage;
    for (const auto& [token, token_mass] : entry->tokens) {
      by_passage[PassageOf(record, token)] += token_mass;
    }
    for (const auto& [p, passage_mass] : by_passage) {
      Passage passage = MakePassage(searcher, *window, record, p);
      passage.mass = passage_mass;
      passage.score = passage_mass;
      SetPeak(*window, record, entry->tokens, &passage);
      best.push_back(std::move(passage));
    }
    std::sort(best.begin(), best.end(), BetterPassage);
    if (static_cast<int>(best.size()) > n_passages) best.resize(n_passages);
  }
  return best;
}

absl::StatusOr<std::vector<Passage>> PassagesByWords(const MemorySearcher& searcher,
                                                     const std::string& question, int n_passages) {
  if (n_passages <= 0) return std::vector<Passage>();
  ASSIGN_OR_RETURN(const std::vector<index::PassageHit> hits,
                   searcher.generation().source->text_index().Search(
                       question, n_passages, [&](uint64_t slot) { return searcher.Allows(slot); }));
  std::vector<Passage> passages;
  for (const index::PassageHit& hit : hits) {
    const LiveWindow* window = searcher.generation().FindWindow(hit.slot_begin);
    if (window == nullptr) continue;
    ASSIGN_OR_RETURN(const storage::WindowRecord record,
                     ReadWindow(searcher.generation(), window->slot_begin));
    Passage passage =
        MakePassage(searcher, *window, record,
                    PassageOf(record, static_cast<uint32_t>(hit.slot_begin - window->slot_begin)));
    passage.score = hit.score;
    passages.push_back(std::move(passage));
  }
  return passages;
}

absl::StatusOr<std::vector<Passage>> PassagesByLogMass(const MemorySearcher& searcher,
                                                       std::span<const SlotMass> mass,
                                                       std::span<const int> layers,
                                                       int n_passages) {
  // A passage that a layer does not attend to has this share of it, as if it were a little.
  constexpr double kLeastMass = 1e-4;
  ASSIGN_OR_RETURN(std::vector<Passage> passages,
                   PassagesByMass(searcher, mass, std::max(n_passages, kLogMassCandidates)));
  if (passages.empty()) return passages;
  const double rows_per_layer = static_cast<double>(searcher.n_rows());
  for (Passage& passage : passages) {
    std::vector<double> by_layer(mass.front().mass.size());
    const auto begin =
        std::lower_bound(mass.begin(), mass.end(), passage.slot_begin,
                         [](const SlotMass& entry, Slot slot) { return entry.slot < slot; });
    for (auto it = begin; it != mass.end() && it->slot < passage.slot_begin + passage.n_tokens;
         ++it) {
      if (IsSink(searcher.generation(), it->slot)) continue;
      for (size_t l = 0; l < by_layer.size(); ++l) by_layer[l] += it->mass[l] / rows_per_layer;
    }
    passage.score = 0.0;
    for (const int layer : layers) passage.score += std::log(by_layer[layer] + kLeastMass);
  }
  std::sort(passages.begin(), passages.end(), BetterPassage);
  if (static_cast<int>(passages.size()) > n_passages) passages.resize(std::max(n_passages, 0));
  return passages;
}

std::vector<Passage> FuseScores(std::vector<Passage> by_mass, std::vector<Passage> by_words,
                                int n_passages) {
  std::map<Slot, Passage> fused;
  for (const auto* ranking : {&by_mass, &by_words}) {
    for (const Passage& passage : *ranking) {
      Passage& entry = fused.try_emplace(passage.slot_begin, passage).first->second;
      entry.score = 0.0;
      entry.mass = std::max(entry.mass, passage.mass);
    }
  }
  constexpr double kLeastOfMass = 1.0;
  constexpr double kLeastOfWords = 0.05;  // of the best score
  for (const auto* ranking : {&by_mass, &by_words}) {
    if (ranking->empty()) continue;
    const double least =
        ranking == &by_mass ? kLeastOfMass : kLeastOfWords * std::abs(ranking->front().score);
    std::map<Slot, double> scores;
    for (const auto& [slot, passage] : fused) scores[slot] = ranking->back().score;
    for (const Passage& passage : *ranking) scores[passage.slot_begin] = passage.score;
    double sum = 0.0;
    double squares = 0.0;
    for (const auto& [slot, score] : scores) {
      sum += score;
      squares += score * score;
    }
    const auto n = static_cast<double>(scores.size());
    const double mean = sum / n;
    const double deviation = std::sqrt(std::max(squares / n - mean * mean, 0.0));
    const double unit = std::max(deviation, least);
    if (unit < 1e-9) continue;  // it does not tell them apart
    for (auto& [slot, passage] : fused) passage.score += (scores[slot] - mean) / unit;
  }
  std::vector<Passage> result;
  result.reserve(fused.size());
  for (auto& [slot, passage] : fused) result.push_back(std::move(passage));
  std::sort(result.begin(), result.end(), BetterPassage);
  if (static_cast<int>(result.size()) > n_passages) result.resize(std::max(n_passages, 0));
  return result;
}

}  // namespace fovea::memory
