#include "answer/sentence_sources.h"

#include <algorithm>
#include <utility>

#include "answer/shared_words.h"

namespace fovea::answer {

void SentenceSources::Begin() {
  if (searcher_ == nullptr) return;
  mass_before_.clear();
  for (memory::SlotMass& one : searcher_->Mass()) {
    mass_before_.emplace(one.slot, std::move(one.mass));
  }
  n_rows_before_ = searcher_->n_rows();
}

int SentenceSources::SourceOf(std::string_view sentence) {
  absl::StatusOr<std::vector<memory::Passage>> attended = std::vector<memory::Passage>();
  const memory::Passage* source = FindByWords(sentence);
  if (source == nullptr && searcher_ != nullptr) {
    attended = FindByMass(sentence);
    status_.Update(attended.status());
    if (attended.ok() && !attended->empty()) {
      source = &attended->front();
      for (const memory::Passage& passage : reread_) {  // as what it is in the prompt
        if (passage.slot_begin == source->slot_begin) source = &passage;
      }
    }
  }
  Begin();
  if (source == nullptr) return 0;
  const auto known = std::find_if(named_.begin(), named_.end(), [&](const memory::Passage& other) {
    return other.slot_begin == source->slot_begin;
  });
  const auto number = static_cast<int>(known - named_.begin()) + 1;
  if (known != named_.end()) return number;
  if (named_.size() == n_sources_) return 0;
  named_.push_back(*source);
  return number;
}

const memory::Passage* SentenceSources::FindByWords(std::string_view sentence) const {
  constexpr double kLeastShare = 0.5;
  const memory::Passage* best = nullptr;
  double best_share = 0.0;
  for (const memory::Passage& passage : reread_) {
    const double share = ShareOfWords(sentence, passage.text);
    if (share < kLeastShare || share <= best_share) continue;
    best = &passage;
    best_share = share;
  }
  return best;
}

absl::StatusOr<std::vector<memory::Passage>> SentenceSources::FindByMass(
    std::string_view sentence) const {
  const int64_t n_rows = searcher_->n_rows() - n_rows_before_;
  if (n_rows <= 0) return std::vector<memory::Passage>();
  std::vector<memory::SlotMass> mass = searcher_->Mass();
  for (memory::SlotMass& one : mass) {
    const auto before = mass_before_.find(one.slot);
    if (before == mass_before_.end()) continue;
    for (size_t layer = 0; layer < one.mass.size(); ++layer) {
      one.mass[layer] = std::max(0.0F, one.mass[layer] - before->second[layer]);
    }
  }
  ASSIGN_OR_RETURN(std::vector<memory::Passage> passages,
                   memory::PassagesByMass(*searcher_, mass, 1));
  // PassagesByMass takes it for a share of all rows.
  const double of_sentence = static_cast<double>(searcher_->n_rows()) / static_cast<double>(n_rows);
  std::erase_if(passages, [&](const memory::Passage& passage) {
    return passage.mass * of_sentence < kLeastSourceMass ||
           ShareOfWords(sentence, passage.text) == 0.0;
  });
  return passages;
}

}  // namespace fovea::answer
