// Scores of answers, and how sure a score of so many answers is.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace fovea::eval {

// In lower case, without punctuation and the articles a, an and the, words separated by one space:
// SQuAD's normalisation (Rajpurkar et al. 2016), of ASCII letters alone.
std::string NormalizeAnswer(std::string_view text);

// F1 of the words of an answer against the reference that fits best, in [0, 1] (SQuAD). 0 where
// either has no words.
double WordF1(std::string_view answer, std::span<const std::string> references);
// Whether the normalised answer is one of the normalised references.
bool IsExactMatch(std::string_view answer, std::span<const std::string> references);
// Whether the words of a reference stand in the answer, one after another. (3 is not found in 36.)
bool Holds(std::string_view answer, std::span<const std::string> references);

// A measured value with its 95% confidence interval.
struct Score {
  enum class Kind { kPercent, kRatio };
  Kind kind = Kind::kPercent;  // of a percentage, all three are in [0, 100]
  double value = 0.0;
  double low = 0.0;
  double high = 0.0;
  int64_t n = 0;  // answers, windows, …: what it is a mean of
};

// The share right / n, with Wilson's interval. n = 0: all of it, 0 to 100%.
Score RateScore(int64_t n_right, int64_t n);
// The mean of values in [0, 1] as a percentage, with the interval of a rate of as many answers,
// right or wrong, as would vary as much: more than there are values where those lie together.
Score MeanScore(std::span<const double> values);
// exp of the mean of paired differences of logarithms, with the interval of that mean.
Score RatioScore(std::span<const double> log_ratios);

double Median(std::vector<double> values);  // 0 of none

}  // namespace fovea::eval
