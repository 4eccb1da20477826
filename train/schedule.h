// What changes along a run: the learning rate, and how many contexts an entry sees.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace fovea::train {

// Linear from 0 to `peak` over the first `n_warmup` steps, then half a cosine down to `last_share`
// of it at the end of the run (`progress` 1).
struct LearningRate {
  double peak = 2e-3;
  int64_t n_warmup = 50;
  double last_share = 0.05;
  double At(int64_t step, double progress) const;
};

// d, from small to large: a model that sees many contexts at once from the start does not learn to
// use any of them.
class ContextSchedule {
 public:
  // "1:0.12,4:0.24,16:0.5,32": d = 1 up to 12% of the run, …, 32 to its end. InvalidArgument says
  // what is wrong with it.
  static absl::StatusOr<ContextSchedule> Parse(std::string_view text);
  int64_t At(double progress) const;
  int64_t largest() const;

 private:
  struct Part {
    int64_t d = 1;
    double until = 1.0;
  };
  std::vector<Part> parts_;
};

}  // namespace fovea::train
