#include "compute/code_scan.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <set>

#include "compute/cpu/vnni.h"

namespace fovea::compute {
namespace {

std::unique_ptr<Device> Cpu(int n_threads) {
  absl::StatusOr<std::unique_ptr<Device>> device = Device::Create("cpu", n_threads);
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

std::vector<float> Normal(int64_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(static_cast<size_t>(n));
  for (float& value : values) value = normal(random);
  return values;
}

// Keys of some heads and their codes.
struct Coded {
  KeyCoder coder;
  int64_t n_keys;
  std::vector<std::vector<float>> keys;  // [n_kv_heads][n_keys, head_dim]
  std::vector<std::vector<std::byte>> codes;
  std::vector<std::vector<BFloat16>> factors;
  std::vector<CodedKeys> heads;

  Coded(int bits, int64_t head_dim, int64_t n_keys, int64_t n_kv_heads)
      : coder(bits, head_dim), n_keys(n_keys) {
    for (int64_t h = 0; h < n_kv_heads; ++h) {
      keys.push_back(Normal(n_keys * head_dim, static_cast<uint32_t>(17 + h)));
      codes.emplace_back(static_cast<size_t>(coder.code_bytes(n_keys)));
      factors.emplace_back(static_cast<size_t>(coder.n_factors(n_keys)));
      for (int64_t block = 0; block < KeyCoder::NumBlocks(n_keys); ++block) {
        const int64_t first = block * kCodeBlockKeys;
        coder.EncodeBlock(
            keys.back().data() + first * head_dim, std::min(kCodeBlockKeys, n_keys - first),
            codes.back().data() + block * coder.n_lines() * 64, factors.back().data() + first);
      }
    }
    for (size_t h = 0; h < codes.size(); ++h) {
      heads.push_back({codes[h].data(), factors[h].data(), n_keys});
    }
  }

  // A query as the scan takes it.
  struct Digits {
    std::vector<double> digits;  // [padded_dim]
    double unit = 0.0;
  };
  Digits Round(const float* query) const {
    const auto padded = static_cast<size_t>(coder.padded_dim());
    Digits result{std::vector<double>(padded)};
    double largest = 0.0;
    for (size_t i = 0; i < padded; ++i) {
      for (int64_t d = 0; d < coder.head_dim(); ++d) {
        result.digits[i] +=
            static_cast<double>(coder.rotation()[static_cast<size_t>(d) * padded + i]) * query[d];
      }
      largest = std::max(largest, std::abs(result.digits[i]));
    }
    result.unit = largest / (coder.bits() == 8 ? 63.0 : 127.0);
    for (double& digit : result.digits) digit = std::nearbyint(digit / result.unit);
    return result;
  }

  // The estimate that the header's formulas give.
  double Estimate(int64_t kv_head, const Digits& query, int64_t key) const {
    const int bits = coder.bits();
    const int64_t per_line = 32 / bits;
    const auto& bytes = codes[static_cast<size_t>(kv_head)];
    double sum = 0.0;
    for (int64_t i = 0; i < coder.padded_dim(); ++i) {
      const auto at = static_cast<size_t>((key / 16 * coder.n_lines() + i / per_line) * 64 +
                                          key % 16 * 4 + i % per_line % 4);
      const auto code =
          static_cast<unsigned>(bytes[at]) >> (i % per_line / 4 * bits) & ((1u << bits) - 1);
      sum += (code - ((1 << bits) - 1) / 2.0) * query.digits[static_cast<size_t>(i)];
    }
    const auto factor =
        static_cast<float>(factors[static_cast<size_t>(kv_head)][static_cast<size_t>(key)]);
    return sum * factor * query.unit;
  }
};

std::vector<int64_t> Scan(const Coded& coded, const std::vector<float>& queries, int64_t n_queries,
                          int64_t n_heads, int64_t n_candidates,
                          const std::vector<uint64_t>* allowed = nullptr, int n_threads = 2) {
  std::vector<int64_t> positions(static_cast<size_t>(n_queries * n_heads * n_candidates), -7);
  auto device = Cpu(n_threads);
  const absl::Status status =
      CodeScan(*device,
               {.coder = &coded.coder,
                .heads = coded.heads,
                .queries = {queries.data(), {n_queries, n_heads, coded.coder.head_dim()}},
                .n_candidates = n_candidates,
                .allowed = allowed == nullptr ? nullptr : allowed->data()},
               positions.data());
  EXPECT_TRUE(status.ok()) << status;
  return positions;
}

// Every row holds the wanted number of allowed keys, and none that was left out has an estimate
// above the worst of them by more than rounding.
void ExpectBest(const Coded& coded, const std::vector<float>& queries, int64_t n_queries,
                int64_t n_heads, int64_t n_candidates, const std::vector<int64_t>& positions,
                const std::vector<uint64_t>* allowed = nullptr) {
  const int64_t group = n_heads / static_cast<int64_t>(coded.heads.size());
  for (int64_t row = 0; row < n_queries * n_heads; ++row) {
    const int64_t kv_head = row % n_heads / group;
    const Coded::Digits query = coded.Round(queries.data() + row * coded.coder.head_dim());
    const auto begin = positions.begin() + row * n_candidates;
    std::set<int64_t> got(begin, begin + n_candidates);
    got.erase(-1);
    double worst = std::numeric_limits<double>::infinity();
    double best_left = -std::numeric_limits<double>::infinity();
    double largest = 0.0;
    int64_t n_allowed = 0;
    for (int64_t key = 0; key < coded.n_keys; ++key) {
      const bool is_allowed = allowed == nullptr || ((*allowed)[key / 64] >> (key % 64) & 1) != 0;
      if (!is_allowed) {
        EXPECT_FALSE(got.contains(key));
        continue;
      }
      ++n_allowed;
      const double score = coded.Estimate(kv_head, query, key);
      largest = std::max(largest, std::abs(score));
      if (got.contains(key)) {
        worst = std::min(worst, score);
      } else {
        best_left = std::max(best_left, score);
      }
    }
    ASSERT_EQ(static_cast<int64_t>(got.size()), std::min(n_candidates, n_allowed)) << row;
    EXPECT_LE(best_left, worst + 1e-5 * largest) << row;
  }
}

struct Shape {
  int bits;
  int64_t head_dim, n_keys, n_kv_heads, group, n_queries;
};

class CodeScanShapeTest : public ::testing::TestWithParam<Shape> {};

TEST_P(CodeScanShapeTest, FindsTheBestEstimates) {
  const Shape shape = GetParam();
  const Coded coded(shape.bits, shape.head_dim, shape.n_keys, shape.n_kv_heads);
  const int64_t n_heads = shape.n_kv_heads * shape.group;
  const std::vector<float> queries = Normal(shape.n_queries * n_heads * shape.head_dim, 3);
  for (const int64_t n_candidates : {1, 20, 70}) {
    ExpectBest(coded, queries, shape.n_queries, n_heads, n_candidates,
               Scan(coded, queries, shape.n_queries, n_heads, n_candidates));
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CodeScanShapeTest,
                         ::testing::Values(Shape{2, 64, 1003, 3, 3, 1}, Shape{4, 64, 1003, 3, 3, 1},
                                           Shape{8, 64, 1003, 3, 3, 1}, Shape{2, 20, 50, 2, 1, 3},
                                           Shape{4, 20, 50, 2, 2, 3}, Shape{8, 20, 50, 1, 4, 2},
                                           Shape{2, 100, 333, 1, 5, 3}, Shape{4, 100, 333, 1, 7, 2},
                                           Shape{8, 100, 333, 1, 6, 2}, Shape{4, 128, 257, 2, 4, 5},
                                           Shape{2, 3, 40, 1, 2, 2}, Shape{4, 1, 17, 1, 1, 1},
                                           Shape{8, 6, 5, 2, 3, 2}),
                         [](const auto& info) {
                           const Shape& s = info.param;
                           return StrCat("Bits", s.bits, "Dim", s.head_dim, "Keys", s.n_keys,
                                         "Group", s.group);
                         });

TEST(CodeScanTest, EstimatesAreCloserWithMoreBits) {
  const std::vector<float> query = Normal(64, 3);
  double last = 1e9;
  for (const int bits : {2, 4, 8}) {
    const Coded coded(bits, 64, 500, 1);
    const Coded::Digits digits = coded.Round(query.data());
    double error2 = 0.0, score2 = 0.0;
    for (int64_t key = 0; key < 500; ++key) {
      double exact = 0.0;
      for (int64_t d = 0; d < 64; ++d) {
        exact += static_cast<double>(query[static_cast<size_t>(d)]) *
                 coded.keys[0][static_cast<size_t>(key * 64 + d)];
      }
      const double error = coded.Estimate(0, digits, key) - exact;
      error2 += error * error;
      score2 += exact * exact;
    }
    const double relative = std::sqrt(error2 / score2);
    // The error of the best uniform grids for normal values is 0.345 at 2 bits, 0.107 at 4 (Max
    // 1960), a little more where a query along the key must come out right.
    EXPECT_LT(relative, bits == 2 ? 0.42 : bits == 4 ? 0.13 : 0.03) << bits;
    EXPECT_LT(relative, last);
    last = relative;
  }
}

TEST(CodeScanTest, TheRotationKeepsInnerProducts) {
  for (const int64_t head_dim : {1, 6, 64, 100}) {
    const KeyCoder coder(2, head_dim);
    for (int64_t a = 0; a < head_dim; ++a) {
      for (int64_t b = 0; b <= a; ++b) {
        double sum = 0.0;
        for (int64_t i = 0; i < coder.padded_dim(); ++i) {
          sum += static_cast<double>(
                     coder.rotation()[static_cast<size_t>(a * coder.padded_dim() + i)]) *
                 coder.rotation()[static_cast<size_t>(b * coder.padded_dim() + i)];
        }
        ASSERT_NEAR(sum, a == b ? 1.0 : 0.0, 1e-6);
      }
    }
  }
}

TEST(CodeScanTest, TheRotationSpreadsEveryDimension) {
  const KeyCoder coder(4, 64);
  for (const float value : coder.rotation()) EXPECT_LT(std::abs(value), 0.8f);
}

// Enough keys for the threshold to come from a sample.
constexpr int64_t kManyKeys = 40'000;

TEST(CodeScanTest, ASampledThresholdLosesNothing) {
  const Coded coded(2, 16, kManyKeys, 1);
  const std::vector<float> queries = Normal(3 * 16, 5);
  for (const int64_t n_candidates : {1, 64, 500}) {
    ExpectBest(coded, queries, 1, 3, n_candidates, Scan(coded, queries, 1, 3, n_candidates));
  }
}

TEST(CodeScanTest, AMisleadingSampleIsNoticed) {
  // What the sample sees first (every 64th block on) is all that scores well: fewer keys pass its
  // threshold than are wanted.
  constexpr int64_t kDim = 16;
  const KeyCoder coder(4, kDim);
  std::vector<float> keys(static_cast<size_t>(kManyKeys * kDim));
  const std::vector<float> query = Normal(kDim, 6);
  for (int64_t key = 0; key < kManyKeys; ++key) {
    const bool sampled = key / 16 % 64 < 4 && key % 16 < 2;
    for (int64_t d = 0; d < kDim; ++d) {
      keys[static_cast<size_t>(key * kDim + d)] =
          (sampled ? 10.0f + 0.001f * static_cast<float>(key % 1000) : 1.0f) *
          query[static_cast<size_t>(d)];
    }
  }
  std::vector<std::byte> codes(static_cast<size_t>(coder.code_bytes(kManyKeys)));
  std::vector<BFloat16> factors(static_cast<size_t>(coder.n_factors(kManyKeys)));
  for (int64_t block = 0; block < KeyCoder::NumBlocks(kManyKeys); ++block) {
    coder.EncodeBlock(keys.data() + block * 16 * kDim, 16,
                      codes.data() + block * coder.n_lines() * 64, factors.data() + block * 16);
  }
  const CodedKeys head{codes.data(), factors.data(), kManyKeys};
  std::vector<int64_t> positions(1000);
  auto device = Cpu(2);
  ASSERT_TRUE(CodeScan(*device,
                       {.coder = &coder,
                        .heads = {&head, 1},
                        .queries = {query.data(), {1, 1, kDim}},
                        .n_candidates = 1000},
                       positions.data())
                  .ok());
  EXPECT_EQ(std::set<int64_t>(positions.begin(), positions.end()).size(), 1000u);
  EXPECT_GE(*std::min_element(positions.begin(), positions.end()), 0);
}

TEST(CodeScanTest, ReturnsOnlyWhatIsAllowed) {
  for (const int64_t n_keys : {int64_t{1000}, kManyKeys}) {
    const Coded coded(4, 16, n_keys, 2);
    const std::vector<float> queries = Normal(4 * 16, 8);
    for (const int64_t every : {2, 37, 999}) {
      std::vector<uint64_t> allowed(static_cast<size_t>((n_keys + 63) / 64));
      for (int64_t key = 0; key < n_keys; key += every) {
        allowed[static_cast<size_t>(key / 64)] |= uint64_t{1} << (key % 64);
      }
      ExpectBest(coded, queries, 1, 4, 40, Scan(coded, queries, 1, 4, 40, &allowed), &allowed);
    }
    const std::vector<uint64_t> none(static_cast<size_t>((n_keys + 63) / 64));
    for (const int64_t position : Scan(coded, queries, 1, 4, 40, &none)) EXPECT_EQ(position, -1);
  }
}

TEST(CodeScanTest, ManyQueriesAreSearchedLikeOne) {
  const Coded coded(2, 20, 3000, 2);
  constexpr int64_t kQueries = 150;
  const std::vector<float> queries = Normal(kQueries * 6 * 20, 9);
  const std::vector<int64_t> all = Scan(coded, queries, kQueries, 6, 8);
  for (int64_t q = 0; q < kQueries; q += 13) {
    const std::vector<float> one(queries.begin() + q * 6 * 20, queries.begin() + (q + 1) * 6 * 20);
    const std::vector<int64_t> found = Scan(coded, one, 1, 6, 8);
    EXPECT_TRUE(std::equal(found.begin(), found.end(), all.begin() + q * 6 * 8)) << q;
  }
}

TEST(CodeScanTest, ThreadsDoNotChangeTheResult) {
  const Coded coded(2, 16, kManyKeys, 2);
  const std::vector<float> queries = Normal(5 * 6 * 16, 10);
  const std::vector<int64_t> want = Scan(coded, queries, 5, 6, 50, nullptr, 1);
  EXPECT_EQ(Scan(coded, queries, 5, 6, 50, nullptr, 3), want);
}

TEST(CodeScanTest, EveryInstructionSetFindsTheSame) {
  for (const int bits : {2, 4, 8}) {
    const Coded coded(bits, 64, 2000, 1);
    const std::vector<float> queries = Normal(4 * 64, 11);
    const std::vector<int64_t> want = Scan(coded, queries, 1, 4, 30);
    cpu::DisableVnniForTest(true);
    EXPECT_EQ(Scan(coded, queries, 1, 4, 30), want) << bits;
    cpu::DisableVnniForTest(false);
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
      hwy::SetSupportedTargetsForTest(target);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
      // Sums are of integers; digits of a query may differ where the rotation rounds differently.
      ExpectBest(coded, queries, 1, 4, 30, Scan(coded, queries, 1, 4, 30));
      hwy::SetSupportedTargetsForTest(0);
      hwy::GetChosenTarget().Update(hwy::SupportedTargets());
    }
  }
}

TEST(CodeScanTest, OddQueriesAreAnswered) {
  const Coded coded(4, 16, 100, 1);
  for (const float value : {0.0f, std::numeric_limits<float>::infinity(), std::nanf("")}) {
    const std::vector<float> query(16, value);
    const std::vector<int64_t> found = Scan(coded, query, 1, 1, 10);
    EXPECT_EQ(std::set<int64_t>(found.begin(), found.end()).size(), 10u) << value;
  }
}

TEST(CodeScanTest, AKeyOfZerosScoresZero) {
  const KeyCoder coder(2, 16);
  const std::vector<float> zeros(16);
  std::vector<std::byte> codes(static_cast<size_t>(coder.code_bytes(1)));
  std::vector<BFloat16> factors(16);
  coder.EncodeBlock(zeros.data(), 1, codes.data(), factors.data());
  EXPECT_EQ(static_cast<float>(factors[0]), 0.0f);
}

TEST(CodeScanTest, RefusesShapesThatDoNotFit) {
  const Coded coded(4, 16, 100, 2);
  const std::vector<float> queries = Normal(3 * 16, 12);
  std::vector<int64_t> positions(100);
  auto device = Cpu(1);
  CodeScanArgs args{.coder = &coded.coder,
                    .heads = coded.heads,
                    .queries = {queries.data(), {1, 3, 16}},
                    .n_candidates = 4};
  EXPECT_TRUE(absl::IsInvalidArgument(CodeScan(*device, args, positions.data())));
  args.queries = {queries.data(), {1, 2, 16}};
  args.n_candidates = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(CodeScan(*device, args, positions.data())));
  args.n_candidates = 4;
  args.heads = {};
  EXPECT_TRUE(absl::IsInvalidArgument(CodeScan(*device, args, positions.data())));
}

}  // namespace
}  // namespace fovea::compute
