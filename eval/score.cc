#include "eval/score.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <map>
#include <numeric>

namespace fovea::eval {
namespace {

constexpr double kZ = 1.959963985;  // of the normal distribution, two-sided 95%

std::vector<std::string> WordsOf(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  const auto end_word = [&] {
    if (!word.empty() && word != "a" && word != "an" && word != "the") words.push_back(word);
    word.clear();
  };
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isspace(byte) != 0) {
      end_word();
    } else if (std::ispunct(byte) == 0) {
      word += static_cast<char>(std::tolower(byte));
    }
  }
  end_word();
  return words;
}

// Student's distribution, two-sided 95%, by degrees of freedom, at least 1.
double StudentT(size_t freedom) {
  constexpr double kQuantiles[] = {12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306,
                                   2.262,  2.228, 2.201, 2.179, 2.160, 2.145, 2.131, 2.120,
                                   2.110,  2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064,
                                   2.060,  2.056, 2.052, 2.048, 2.045, 2.042};
  return freedom <= std::size(kQuantiles) ? kQuantiles[freedom - 1] : kZ;
}

// Mean and half the width of its interval.
struct MeanInterval {
  double mean = 0.0;
  double half = 0.0;
};
MeanInterval IntervalOf(std::span<const double> values) {
  MeanInterval result;
  const auto n = static_cast<double>(values.size());
  if (values.empty()) return result;
  for (const double value : values) result.mean += value / n;
  double squares = 0.0;
  for (const double value : values) squares += (value - result.mean) * (value - result.mean);
  if (values.size() > 1) {
    result.half = StudentT(values.size() - 1) * std::sqrt(squares / (n - 1.0) / n);
  }
  return result;
}

// Wilson 1927: the rates from which the measured one lies less than z standard errors away.
Score WilsonScore(double rate, double count, int64_t n) {
  if (n == 0) return {.value = 0.0, .low = 0.0, .high = 100.0, .n = 0};
  const double spread = kZ * kZ / count;
  const double center = (rate + spread / 2.0) / (1.0 + spread);
  const double half =
      kZ * std::sqrt(rate * (1.0 - rate) / count + spread / (4.0 * count)) / (1.0 + spread);
  return {.value = 100.0 * rate,
          .low = rate <= 0.0 ? 0.0 : 100.0 * (center - half),
          .high = rate >= 1.0 ? 100.0 : 100.0 * (center + half),
          .n = n};
}

}  // namespace

std::string NormalizeAnswer(std::string_view text) {
  std::string joined;
  for (const std::string& word : WordsOf(text)) {
    if (!joined.empty()) joined += ' ';
    joined += word;
  }
  return joined;
}

double WordF1(std::string_view answer, std::span<const std::string> references) {
  const std::vector<std::string> words = WordsOf(answer);
  double best = 0.0;
  for (const std::string& reference : references) {
    const std::vector<std::string> wanted = WordsOf(reference);
    std::map<std::string_view, int64_t> left;
    for (const std::string& word : wanted) ++left[word];
    int64_t n_common = 0;
    for (const std::string& word : words) {
      const auto found = left.find(word);
      if (found == left.end() || found->second == 0) continue;
      --found->second;
      ++n_common;
    }
    if (n_common == 0) continue;
    best = std::max(best, 2.0 * static_cast<double>(n_common) /
                              static_cast<double>(words.size() + wanted.size()));
  }
  return best;
}

bool IsExactMatch(std::string_view answer, std::span<const std::string> references) {
  const std::string normalized = NormalizeAnswer(answer);
  return std::any_of(references.begin(), references.end(), [&](const std::string& reference) {
    return NormalizeAnswer(reference) == normalized;
  });
}

bool Holds(std::string_view answer, std::span<const std::string> references) {
  const std::string words = " " + NormalizeAnswer(answer) + " ";
  return std::any_of(references.begin(), references.end(), [&](const std::string& reference) {
    const std::string wanted = NormalizeAnswer(reference);
    return !wanted.empty() && words.find(" " + wanted + " ") != std::string::npos;
  });
}

Score RateScore(int64_t n_right, int64_t n) {
  const auto count = static_cast<double>(n);
  return WilsonScore(n == 0 ? 0.0 : static_cast<double>(n_right) / count, count, n);
}

Score MeanScore(std::span<const double> values) {
  const auto n = static_cast<double>(values.size());
  const double mean = values.empty() ? 0.0 : std::accumulate(values.begin(), values.end(), 0.0) / n;
  double variance = 0.0;
  for (const double value : values) {
    variance += (value - mean) * (value - mean) / std::max(1.0, n - 1.0);
  }
  // Of few values the variance is itself uncertain: no more than so many times as many answers.
  constexpr double kMostTimes = 1e4;
  const double of_answers = mean * (1.0 - mean);
  const double times = values.size() < 2 || of_answers <= 0.0
                           ? 1.0
                           : of_answers / std::max(variance, of_answers / kMostTimes);
  return WilsonScore(mean, n * std::max(1.0, times), static_cast<int64_t>(values.size()));
}

Score RatioScore(std::span<const double> log_ratios) {
  const MeanInterval interval = IntervalOf(log_ratios);
  return {.kind = Score::Kind::kRatio,
          .value = std::exp(interval.mean),
          .low = std::exp(interval.mean - interval.half),
          .high = std::exp(interval.mean + interval.half),
          .n = static_cast<int64_t>(log_ratios.size())};
}

double Median(std::vector<double> values) {
  if (values.empty()) return 0.0;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return (values[n / 2] + values[(n - 1) / 2]) / 2.0;
}

}  // namespace fovea::eval
