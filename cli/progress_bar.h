// Shows the progress of long work on standard error: a bar on a terminal, a line now and then
// elsewhere, nothing with --quiet.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>

#include "base/progress.h"

namespace fovea::cli {

// One line for people: stage, bar, done, total, rate, time left; at most `width` columns.
// `rate` in units a second; 0: not known yet.
std::string FormatProgress(const ProgressUpdate& update, double rate, int width);

// Thread-safe.
class ProgressBar {
 public:
  enum class Style { kNone, kLines, kBar };
  // By --quiet and by what standard error is.
  static Style ChooseStyle(bool quiet);

  explicit ProgressBar(Style style) : style_(style) {}
  ~ProgressBar() { Clear(); }
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  // For long operations: shows what they report, and passes Ctrl-C on.
  Progress progress();
  void Show(const ProgressUpdate& update);
  // The total of a stage whose updates come without one.
  void SetTotal(const std::string& stage, int64_t total);
  // Before work that has nothing to do with what was shown: rates and intervals begin anew.
  void Restart();
  // Takes the bar off the screen, so that results can be printed.
  void Clear();

 private:
  using Clock = std::chrono::steady_clock;
  void ShowLocked(const ProgressUpdate& update);

  const Style style_;
  std::mutex mutex_;
  Clock::time_point reported_at_ = Clock::now();
  Clock::time_point shown_at_ = Clock::now();
  // When each stage began: when another one reported last. Stages may take turns.
  std::map<std::string, Clock::time_point> stages_;
  std::string total_stage_;
  int64_t total_ = 0;
  bool on_screen_ = false;
};

}  // namespace fovea::cli
