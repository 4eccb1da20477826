#include "cli/progress_bar.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "absl/strings/str_format.h"
#include "cli/interrupt.h"
#include "cli/text_format.h"

namespace fovea::cli {
namespace {

constexpr auto kBarInterval = std::chrono::milliseconds(100);
constexpr auto kLineInterval = std::chrono::seconds(10);
constexpr int kDefaultWidth = 80;
constexpr int kMaxBarWidth = 30;
// A rate from less time than this is noise.
constexpr double kMinRateSeconds = 0.3;

int TerminalWidth() {
  winsize size = {};
  if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0) return size.ws_col;
  return kDefaultWidth;
}

std::string FormatSeconds(double seconds) {
  const auto total = static_cast<int64_t>(std::ceil(seconds));
  if (total < 3600) return absl::StrFormat("%d:%02d", total / 60, total % 60);
  return absl::StrFormat("%d:%02d:%02d", total / 3600, total / 60 % 60, total % 60);
}

}  // namespace

std::string FormatProgress(const ProgressUpdate& update, double rate, int width) {
  std::string numbers = FormatCount(update.done);
  if (update.total > 0) numbers += StrCat("/", FormatCount(std::max(update.done, update.total)));
  if (*update.unit != '\0') numbers += StrCat(" ", update.unit);
  if (rate > 0) {
    // Seconds a second say nothing, steps below one a second need their digits.
    constexpr double kSlow = 10.0;
    if (std::string_view(update.unit) != "s") {
      numbers += StrCat(
          ", ", rate < kSlow ? absl::StrFormat("%.1f", rate) : FormatCount(std::llround(rate)),
          "/s");
    }
    if (update.total > update.done) {
      numbers += StrCat(", ", FormatSeconds(static_cast<double>(update.total - update.done) / rate),
                        " left");
    }
  }
  std::string bar;
  const int fixed = static_cast<int>(update.stage.size() + numbers.size()) + 4;
  const int bar_width = std::min(kMaxBarWidth, width - fixed);
  if (update.total > 0 && bar_width >= 5) {
    const double share =
        std::clamp(static_cast<double>(update.done) / static_cast<double>(update.total), 0.0, 1.0);
    const int full = static_cast<int>(share * bar_width);
    bar = StrCat("[", std::string(static_cast<size_t>(full), '#'),
                 std::string(static_cast<size_t>(bar_width - full), '.'), "] ");
  }
  std::string line = StrCat(update.stage, " ", bar, numbers);
  if (width > 0 && static_cast<int>(line.size()) > width) line.resize(static_cast<size_t>(width));
  return line;
}

ProgressBar::Style ProgressBar::ChooseStyle(bool quiet) {
  if (quiet) return Style::kNone;
  return isatty(STDERR_FILENO) != 0 ? Style::kBar : Style::kLines;
}

Progress ProgressBar::progress() {
  return Progress([this](const ProgressUpdate& update) { Show(update); }, InterruptFlag());
}

void ProgressBar::Show(const ProgressUpdate& update) {
  const std::lock_guard lock(mutex_);
  ShowLocked(update);
}

void ProgressBar::SetTotal(const std::string& stage, int64_t total) {
  const std::lock_guard lock(mutex_);
  total_stage_ = stage;
  total_ = total;
}

void ProgressBar::Restart() {
  const std::lock_guard lock(mutex_);
  stages_.clear();
  reported_at_ = shown_at_ = Clock::now();
}

void ProgressBar::Clear() {
  const std::lock_guard lock(mutex_);
  if (!on_screen_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  on_screen_ = false;
}

void ProgressBar::ShowLocked(const ProgressUpdate& update) {
  if (style_ == Style::kNone) return;
  const Clock::time_point now = Clock::now();
  const Clock::time_point began_at = stages_.try_emplace(update.stage, reported_at_).first->second;
  reported_at_ = now;
  const bool bar = style_ == Style::kBar;
  if (now - shown_at_ < (bar ? Clock::duration(kBarInterval) : Clock::duration(kLineInterval))) {
    return;
  }
  shown_at_ = now;
  ProgressUpdate shown = update;
  if (shown.total == 0 && shown.stage == total_stage_) shown.total = total_;
  const double seconds = std::chrono::duration<double>(now - began_at).count();
  const double rate = seconds < kMinRateSeconds ? 0.0 : static_cast<double>(update.done) / seconds;
  if (bar) {
    // One column stays free: a full line would wrap.
    std::fprintf(stderr, "\r%s\033[K", FormatProgress(shown, rate, TerminalWidth() - 1).c_str());
    on_screen_ = true;
  } else {
    std::fprintf(stderr, "%s\n", FormatProgress(shown, rate, 0).c_str());
  }
  std::fflush(stderr);
}

}  // namespace fovea::cli
