#include "train/hard_negatives.h"

#include <algorithm>
#include <cmath>
#include <unordered_map>
#include <utility>

namespace fovea::train {
namespace {

constexpr double kSaturation = 1.2;     // k1
constexpr double kLengthWeight = 0.75;  // b
// Words of more passages than this share say nothing about any.
constexpr double kCommon = 0.2;
constexpr size_t kQuestionsRead = 4;
// Of the different tokens of the shorter one: from here on both are versions of one text.
constexpr double kSameText = 0.6;

struct Posting {
  size_t passage;
  double weight;
};

std::vector<int32_t> Different(const Tokens& ids) {
  std::vector<int32_t> different(ids.begin(), ids.end());
  std::sort(different.begin(), different.end());
  different.erase(std::unique(different.begin(), different.end()), different.end());
  return different;
}

bool AreVersions(const std::vector<int32_t>& a, const std::vector<int32_t>& b) {
  std::vector<int32_t> common;
  std::set_intersection(a.begin(), a.end(), b.begin(), b.end(), std::back_inserter(common));
  return static_cast<double>(common.size()) >=
         kSameText * static_cast<double>(std::min(a.size(), b.size()));
}

bool HoldsAnAnswer(const Passage& candidate, const Passage& asked) {
  return std::any_of(asked.questions.begin(), asked.questions.end(), [&](const Exchange& e) {
    return candidate.text.find(e.reply) != std::string::npos;
  });
}

// Passages with their different tokens: what is no negative, as it may answer as well.
class Answering {
 public:
  explicit Answering(const std::vector<Passage>& passages) : passages_(passages) {
    words_.reserve(passages.size());
    for (const Passage& passage : passages) words_.push_back(Different(passage.ids));
  }
  // Whether `other` may answer the questions of `asked`.
  bool May(size_t other, size_t asked) const {
    return AreVersions(words_[asked], words_[other]) ||
           HoldsAnAnswer(passages_[other], passages_[asked]);
  }

 private:
  const std::vector<Passage>& passages_;
  std::vector<std::vector<int32_t>> words_;
};

}  // namespace

std::vector<std::vector<size_t>> FindSimilarPassages(const std::vector<Passage>& passages,
                                                     size_t n) {
  const Answering answering(passages);
  std::unordered_map<int32_t, std::vector<Posting>> postings;
  double n_tokens = 0.0;
  for (const Passage& passage : passages) n_tokens += static_cast<double>(passage.ids.size());
  const auto n_passages = static_cast<double>(passages.size());
  for (size_t p = 0; p < passages.size(); ++p) {
    std::unordered_map<int32_t, double> counts;
    for (const int32_t id : passages[p].ids) ++counts[id];
    const double length = static_cast<double>(passages[p].ids.size()) * n_passages / n_tokens;
    for (const auto& [id, count] : counts) {
      postings[id].push_back(
          {p, count * (kSaturation + 1.0) /
                  (count + kSaturation * (1.0 - kLengthWeight + kLengthWeight * length))});
    }
  }
  std::vector<std::vector<size_t>> similar(passages.size());
  std::vector<double> scores(passages.size());
  for (size_t p = 0; p < passages.size(); ++p) {
    std::fill(scores.begin(), scores.end(), 0.0);
    const auto& questions = passages[p].questions;
    for (size_t q = 0; q < std::min(questions.size(), kQuestionsRead); ++q) {
      for (const int32_t id : Different(questions[q].prompt)) {
        const auto found = postings.find(id);
        if (found == postings.end()) continue;
        const auto frequency = static_cast<double>(found->second.size());
        if (frequency > kCommon * n_passages) continue;
        const double rarity = std::log1p((n_passages - frequency + 0.5) / (frequency + 0.5));
        for (const Posting& posting : found->second) {
          scores[posting.passage] += rarity * posting.weight;
        }
      }
    }
    std::vector<std::pair<double, size_t>> ranked;
    for (size_t other = 0; other < passages.size(); ++other) {
      if (other != p && scores[other] > 0.0) ranked.emplace_back(-scores[other], other);
    }
    const size_t depth = std::min(ranked.size(), 4 * n + 8);
    std::partial_sort(ranked.begin(), ranked.begin() + static_cast<ptrdiff_t>(depth), ranked.end());
    for (size_t i = 0; i < depth && similar[p].size() < n; ++i) {
      const size_t other = ranked[i].second;
      if (!answering.May(other, p)) similar[p].push_back(other);
    }
  }
  return similar;
}

std::vector<std::vector<size_t>> FindNeighbours(const std::vector<Passage>& passages,
                                                const std::vector<size_t>& file_begins,
                                                size_t reach) {
  const Answering answering(passages);
  std::vector<std::vector<size_t>> neighbours(passages.size());
  for (size_t f = 0; f < file_begins.size(); ++f) {
    const size_t begin = file_begins[f];
    const size_t end = f + 1 < file_begins.size() ? file_begins[f + 1] : passages.size();
    for (size_t p = begin; p < end; ++p) {
      const auto add = [&](size_t other) {
        if (!answering.May(other, p)) neighbours[p].push_back(other);
      };
      for (size_t distance = 1; distance <= reach; ++distance) {
        if (p >= begin + distance) add(p - distance);
        if (p + distance < end) add(p + distance);
      }
    }
  }
  return neighbours;
}

}  // namespace fovea::train
