#include "train/schedule.h"

#include <algorithm>
#include <cmath>
#include <numbers>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/strings.h"

namespace fovea::train {

double LearningRate::At(int64_t step, double progress) const {
  const double warm =
      n_warmup > 0 ? std::min(1.0, static_cast<double>(step + 1) / static_cast<double>(n_warmup))
                   : 1.0;
  const double cosine = 0.5 * (1.0 + std::cos(std::numbers::pi * std::clamp(progress, 0.0, 1.0)));
  return peak * warm * std::max(last_share, cosine);
}

absl::StatusOr<ContextSchedule> ContextSchedule::Parse(std::string_view text) {
  ContextSchedule schedule;
  double before = 0.0;
  const std::vector<std::string> parts = absl::StrSplit(std::string(text), ',');
  for (size_t i = 0; i < parts.size(); ++i) {
    const std::pair<std::string, std::string> part =
        absl::StrSplit(parts[i], absl::MaxSplits(':', 1));
    Part& added = schedule.parts_.emplace_back();
    const bool is_last = i + 1 == parts.size();
    const bool has_share = !part.second.empty();
    if (!absl::SimpleAtoi(part.first, &added.d) || added.d < 1 ||
        (has_share && !absl::SimpleAtod(part.second, &added.until)) || (!has_share && !is_last) ||
        !(added.until > before && added.until <= 1.0)) {
      return absl::InvalidArgumentError(
          StrCat("contexts \"", text,
                 "\": want numbers of contexts with the shares of the run at "
                 "which they end, ascending, such as 1:0.12,4:0.24,32"));
    }
    before = added.until;
  }
  return schedule;
}

int64_t ContextSchedule::At(double progress) const {
  for (const Part& part : parts_) {
    if (progress < part.until) return part.d;
  }
  return parts_.back().d;
}

int64_t ContextSchedule::largest() const {
  return std::max_element(parts_.begin(), parts_.end(),
                          [](const Part& a, const Part& b) { return a.d < b.d; })
      ->d;
}

}  // namespace fovea::train
