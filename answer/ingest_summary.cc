#include "answer/ingest_summary.h"

#include <algorithm>

namespace fovea::answer {

double IngestSummary::tokens_per_second() const {
  return seconds > 0.0 ? static_cast<double>(encoded_tokens) / seconds : 0.0;
}

void IngestSummary::Add(const memory::IngestedDocument& document) {
  documents.push_back(document);
  encoded_tokens += document.encoded_tokens;
  const bool is_stored = document.status != memory::IngestStatus::kFailed &&
                         document.status != memory::IngestStatus::kRemoved;
  if (is_stored && ids.insert(document.id).second) tokens += document.tokens;
}

void IngestSummary::AddSkipped(const std::string& kind, const std::string& file) {
  auto of_kind = std::find_if(skipped.begin(), skipped.end(),
                              [&](const Skipped& known) { return known.kind == kind; });
  if (of_kind == skipped.end()) of_kind = skipped.insert(of_kind, {kind, 0, file});
  ++of_kind->n_files;
  const auto more = [](const Skipped& a, const Skipped& b) { return a.n_files > b.n_files; };
  std::stable_sort(skipped.begin(), skipped.end(), more);
}

}  // namespace fovea::answer
