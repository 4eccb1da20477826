#include "answer/excerpt.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "answer/shared_words.h"
#include "base/status.h"
#include "documents/graphemes.h"
#include "index/text_query.h"
#include "index/text_words.h"

namespace fovea::answer {
namespace {

// What the run of tokens with most of the attention counts, where all words of `wanted` that are in
// the passage count 1 together: less than those where they stand together, more than one of many.
constexpr double kPeakWeight = 0.5;

bool IsSpace(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
bool ContinuesCharacter(char c) { return (static_cast<unsigned char>(c) & 0xC0) == 0x80; }
size_t NumCharacters(std::string_view text) {
  return text.size() -
         static_cast<size_t>(std::count_if(text.begin(), text.end(), ContinuesCharacter));
}

// A run of bytes that is shown whole or not at all: a word as it is written, or a part of a long
// run of a script that puts no spaces between words, cut where graphemes end.
struct Piece {
  size_t begin = 0;
  size_t end = 0;
  size_t characters_before = 0;  // of the text, before `begin`
  size_t characters = 0;
  std::vector<size_t> terms = {};  // of `wanted` that are in it
};

std::vector<Piece> CutIntoPieces(std::string_view text) {
  constexpr size_t kMaxCharacters = 24;
  std::vector<Piece> pieces;
  size_t n_characters = 0;
  bool in_piece = false;
  for (size_t i = 0; i < text.size();) {
    const std::string_view grapheme = documents::FirstGrapheme(text.substr(i), kMaxCharacters);
    const size_t n = NumCharacters(grapheme);
    if (IsSpace(grapheme.front())) {
      in_piece = false;
    } else {
      if (!in_piece || pieces.back().characters + n > kMaxCharacters) {
        pieces.push_back({.begin = i, .characters_before = n_characters});
      }
      in_piece = true;
      pieces.back().end = i + grapheme.size();
      pieces.back().characters += n;
    }
    i += grapheme.size();
    n_characters += n;
  }
  return pieces;
}

// Names in each piece the terms that are in it.
void FindTerms(std::string_view text, const std::vector<std::string>& terms,
               std::vector<Piece>* pieces) {
  absl::flat_hash_map<std::string, std::vector<size_t>> known;  // by folded word
  for (Piece& piece : *pieces) {
    std::string last;
    const auto look_up = [&](const std::string& word) {
      const auto [entry, is_new] = known.try_emplace(word);
      if (is_new) {
        for (size_t i = 0; i < terms.size(); ++i) {
          if (AreSameWord(word, terms[i])) entry->second.push_back(i);
        }
      }
      piece.terms.insert(piece.terms.end(), entry->second.begin(), entry->second.end());
    };
    index::ForEachWord(text.substr(piece.begin, piece.end - piece.begin),
                       [&](const index::TextWord& word) {
                         std::string folded(word.text);
                         if (word.is_character && word.follows) look_up(StrCat(last, " ", folded));
                         look_up(folded);
                         last = std::move(folded);
                       });
    std::sort(piece.terms.begin(), piece.terms.end());
    piece.terms.erase(std::unique(piece.terms.begin(), piece.terms.end()), piece.terms.end());
  }
}

// The weight of each term: the more pieces it is in, the less it says which part is meant.
std::vector<double> Weigh(const std::vector<Piece>& pieces, size_t n_terms) {
  std::vector<double> weights(n_terms);
  for (const Piece& piece : pieces) {
    for (const size_t term : piece.terms) ++weights[term];
  }
  double sum = 0.0;
  for (double& weight : weights) {
    if (weight > 0.0) weight = 1.0 / weight;
    sum += weight;
  }
  if (sum > 0.0) {
    for (double& weight : weights) weight /= sum;
  }
  return weights;
}

// The characters from the beginning of pieces[first] to the end of pieces[last].
size_t Length(const std::vector<Piece>& pieces, size_t first, size_t last) {
  return pieces[last].characters_before + pieces[last].characters - pieces[first].characters_before;
}

// The pieces [first, last] that say most, of at most kExcerptCharacters; of those that say as much
// the first, and the shortest.
std::pair<size_t, size_t> FindCore(const std::vector<Piece>& pieces, size_t n_terms,
                                   std::pair<size_t, size_t> peak) {
  const std::vector<double> weights = Weigh(pieces, n_terms);
  const auto is_of_peak = [&](const Piece& piece) {
    return piece.begin < peak.second && piece.end > peak.first;
  };
  std::pair<size_t, size_t> best = {0, 0};
  double best_score = 0.0;
  std::vector<size_t> seen_from(n_terms, pieces.size());  // the first piece of the last walk
  for (size_t first = 0; first < pieces.size(); ++first) {
    if (pieces[first].terms.empty() && !is_of_peak(pieces[first])) continue;
    double score = 0.0;
    for (size_t last = first;
         last < pieces.size() && Length(pieces, first, last) <= kExcerptCharacters; ++last) {
      const Piece& piece = pieces[last];
      for (const size_t term : piece.terms) {
        if (std::exchange(seen_from[term], first) != first) score += weights[term];
      }
      if (is_of_peak(piece)) {
        score += kPeakWeight *
                 static_cast<double>(std::min(piece.end, peak.second) -
                                     std::max(piece.begin, peak.first)) /
                 static_cast<double>(peak.second - peak.first);
      }
      if (score > best_score + 1e-9) {
        best_score = score;
        best = {first, last};
      }
    }
  }
  return best;
}

// Whether a sentence, or a line, begins with pieces[i].
bool BeginsSentence(std::string_view text, const std::vector<Piece>& pieces, size_t i) {
  if (i == 0) return true;
  const std::string_view before = text.substr(0, pieces[i - 1].end);
  const std::string_view gap = text.substr(before.size(), pieces[i].begin - before.size());
  constexpr std::string_view kEnds[] = {".", "?", "!", "…", "。", "？", "！", ".\"", ".”", ".)"};
  return gap.find('\n') != std::string_view::npos ||
         std::any_of(std::begin(kEnds), std::end(kEnds),
                     [&](std::string_view end) { return before.ends_with(end); });
}

// The bytes [first, second) of `text` that are whole graphemes of the text that it is a part of;
// all of them where there is none.
std::pair<size_t, size_t> WholeGraphemes(const memory::Surroundings& around,
                                         std::string_view text) {
  const std::string joined = StrCat(around.before, text, around.after);
  const std::string_view whole = joined;
  const size_t begin = around.before.size();
  const size_t end = begin + text.size();
  size_t first = whole.size();
  size_t last = 0;
  for (size_t i = 0;; i += documents::FirstGrapheme(whole.substr(i), whole.size()).size()) {
    if (i >= begin) first = std::min(first, i);
    if (i <= end) last = i;
    if (i >= end) break;
  }
  if (first >= last) return {0, text.size()};
  return {first - begin, last - begin};
}

}  // namespace

void ChooseExcerpt(std::string_view wanted, const memory::Surroundings& around,
                   memory::Passage* passage) {
  const auto [whole_begin, whole_end] = WholeGraphemes(around, passage->text);
  const std::string_view text =
      std::string_view(passage->text).substr(whole_begin, whole_end - whole_begin);
  const uint64_t text_start = passage->start + whole_begin;
  passage->excerpt_start = text_start;
  passage->excerpt_end = text_start + text.size();
  std::vector<Piece> pieces = CutIntoPieces(text);
  if (pieces.empty()) return;
  if (Length(pieces, 0, pieces.size() - 1) <= kExcerptCharacters) return;  // all of it
  const std::vector<std::string> terms = index::QueryTerms(wanted);
  FindTerms(text, terms, &pieces);
  const auto in_text = [&](uint64_t at) { return std::max(at, text_start) - text_start; };
  auto [first, last] =
      FindCore(pieces, terms.size(), {in_text(passage->peak_start), in_text(passage->peak_end)});

  // Back to where a sentence begins, where that leaves room; else some words for the context.
  size_t begin = first;
  for (size_t i = first; Length(pieces, i, last) <= kExcerptCharacters; --i) {
    if (BeginsSentence(text, pieces, i)) {
      begin = i;
      break;
    }
    if (i == 0) break;
  }
  if (!BeginsSentence(text, pieces, begin)) {
    const size_t room = kExcerptCharacters - Length(pieces, first, last);
    while (begin > 0 &&
           Length(pieces, begin - 1, first) <= Length(pieces, first, first) + room / 2) {
      --begin;
    }
  }
  while (last + 1 < pieces.size() && Length(pieces, begin, last + 1) <= kExcerptCharacters) ++last;
  // At the end of the text there may be room left before it.
  while (last + 1 == pieces.size() && begin > 0 &&
         Length(pieces, begin - 1, last) <= kExcerptCharacters) {
    --begin;
  }
  passage->excerpt_start = text_start + pieces[begin].begin;
  passage->excerpt_end = text_start + pieces[last].end;
}

}  // namespace fovea::answer
