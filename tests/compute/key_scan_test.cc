#include "compute/key_scan.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <set>

namespace fovea::compute {
namespace {

std::unique_ptr<Device> Cpu(int n_threads) {
  absl::StatusOr<std::unique_ptr<Device>> device = Device::Create("cpu", n_threads);
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

// Of float32 keys all 24 bits are used: one that was rounded on the way has another score.
template <typename T = BFloat16>
std::vector<T> RandomKeys(int64_t n, int64_t head_dim, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> keys(static_cast<size_t>(n * head_dim));
  for (T& value : keys) value = T(normal(random));
  return keys;
}

std::vector<float> RandomQueries(int64_t n, int64_t head_dim, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> queries(static_cast<size_t>(n * head_dim));
  for (float& value : queries) value = normal(random);
  return queries;
}

// Rows `stride` floats apart.
ConstView Rows(const float* queries, int64_t n, int64_t head_dim, int64_t stride) {
  return ConstView(queries, {n, 1, head_dim}).WithStrides({stride, head_dim, 1});
}

template <typename T>
double ExactScore(const float* query, const T* key, int64_t head_dim) {
  double sum = 0.0;
  for (int64_t d = 0; d < head_dim; ++d) {
    sum += static_cast<double>(query[d]) * static_cast<double>(static_cast<float>(key[d]));
  }
  return sum;
}

// A bound on the rounding of a chain of head_dim fused multiply-adds: one half ulp of the running
// sum each, which the sum of magnitudes bounds.
template <typename T>
double Tolerance(const float* query, const T* key, int64_t head_dim) {
  double magnitude = 0.0;
  for (int64_t d = 0; d < head_dim; ++d) {
    magnitude += std::abs(static_cast<double>(query[d]) * static_cast<float>(key[d]));
  }
  return static_cast<double>(head_dim) * std::numeric_limits<float>::epsilon() * magnitude;
}

// Best first, ties by id, scored with KeyScore.
std::vector<ScoredId> BruteForce(const float* query, std::span<const KeyRun> runs, int64_t head_dim,
                                 int top_k) {
  std::vector<ScoredId> all;
  for (const KeyRun& run : runs) {
    for (int64_t j = 0; j < run.n_keys; ++j) {
      all.push_back({KeyScore(query, run.keys + j * head_dim, head_dim), run.first_id + j});
    }
  }
  std::sort(all.begin(), all.end(), [](const ScoredId& a, const ScoredId& b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
  });
  if (all.size() > static_cast<size_t>(top_k)) all.resize(static_cast<size_t>(top_k));
  return all;
}

void ExpectSame(std::span<const ScoredId> got, std::span<const ScoredId> want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_EQ(got[i].id, want[i].id) << i;
    EXPECT_EQ(got[i].score, want[i].score) << i;  // bit for bit
  }
}

class KeyScanShapeTest : public ::testing::TestWithParam<std::pair<int64_t, int64_t>> {};

template <typename T>
void ExpectFindsTheBestKeys(int64_t head_dim, int64_t n_queries) {
  constexpr int64_t kKeys = 3001;  // no multiple of any tile
  constexpr int kTopK = 16;
  const std::vector<T> keys = RandomKeys<T>(kKeys, head_dim, 1);
  const int64_t stride = head_dim + 3;
  const std::vector<float> queries = RandomQueries(n_queries, stride, 2);
  const KeyRun run{keys.data(), kKeys, 500};
  auto device = Cpu(2);
  TopK best(n_queries, kTopK);
  ASSERT_TRUE(
      KeyScan(*device, {Rows(queries.data(), n_queries, head_dim, stride), {&run, 1}}, &best).ok());
  for (int64_t q = 0; q < n_queries; ++q) {
    const float* query = queries.data() + q * stride;
    const std::span<const ScoredId> got = best.Sorted(q);
    ExpectSame(got, BruteForce(query, {&run, 1}, head_dim, kTopK));
    // Against double precision: the k-th best score is the k-th best.
    std::vector<double> exact;
    for (int64_t j = 0; j < kKeys; ++j) {
      exact.push_back(ExactScore(query, keys.data() + j * head_dim, head_dim));
    }
    for (const ScoredId& hit : got) {
      const T* key = keys.data() + (hit.id - 500) * head_dim;
      EXPECT_NEAR(hit.score, exact[static_cast<size_t>(hit.id - 500)],
                  Tolerance(query, key, head_dim));
    }
    std::sort(exact.rbegin(), exact.rend());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_NEAR(got[i].score, exact[i], 1e-4) << i;
  }
}

TEST_P(KeyScanShapeTest, FindsTheBestKeysOfEachQuery) {
  ExpectFindsTheBestKeys<BFloat16>(GetParam().first, GetParam().second);
}

TEST_P(KeyScanShapeTest, FindsTheBestFloat32KeysOfEachQuery) {
  ExpectFindsTheBestKeys<float>(GetParam().first, GetParam().second);
}

INSTANTIATE_TEST_SUITE_P(HeadDimsAndQueries, KeyScanShapeTest,
                         ::testing::Values(std::pair{1, 2}, std::pair{3, 1}, std::pair{7, 3},
                                           std::pair{8, 1}, std::pair{9, 4}, std::pair{15, 5},
                                           std::pair{20, 3}, std::pair{64, 1}, std::pair{64, 2},
                                           std::pair{64, 3}, std::pair{64, 5}, std::pair{64, 6},
                                           std::pair{64, 7}, std::pair{64, 8}, std::pair{64, 9},
                                           std::pair{64, 30}, std::pair{100, 3}, std::pair{100, 13},
                                           std::pair{128, 9}, std::pair{256, 2}),
                         [](const auto& info) {
                           return "Dim" + std::to_string(info.param.first) + "Queries" +
                                  std::to_string(info.param.second);
                         });

TEST(KeyScanTest, ResultDoesNotDependOnThreadsOrTheSplitIntoRuns) {
  constexpr int64_t kKeys = 20'000, kDim = 64, kQueries = 7;
  std::vector<BFloat16> keys = RandomKeys(kKeys, kDim, 3);
  // Many equal scores: keys of 50 kinds.
  for (int64_t j = 50; j < kKeys; ++j) {
    std::copy_n(keys.data() + j % 50 * kDim, kDim, keys.data() + j * kDim);
  }
  const std::vector<float> queries = RandomQueries(kQueries, kDim, 4);
  const KeyRun whole{keys.data(), kKeys, 0};
  auto one = Cpu(1);
  TopK want(kQueries, 40);
  ASSERT_TRUE(KeyScan(*one, {Rows(queries.data(), kQueries, kDim, kDim), {&whole, 1}}, &want).ok());
  for (int64_t q = 0; q < kQueries; ++q) {
    ExpectSame(want.Sorted(q), BruteForce(queries.data() + q * kDim, {&whole, 1}, kDim, 40));
  }
  for (const int n_threads : {1, 2, 4}) {
    auto device = Cpu(n_threads);
    for (const int64_t run_size : {int64_t{1}, int64_t{5}, int64_t{100}, int64_t{7777}, kKeys}) {
      std::vector<KeyRun> runs;
      for (int64_t begin = 0; begin < kKeys; begin += run_size) {
        runs.push_back({keys.data() + begin * kDim, std::min(run_size, kKeys - begin), begin});
        runs.push_back({nullptr, 0, begin});  // nothing left of it
      }
      TopK got(kQueries, 40);
      ASSERT_TRUE(KeyScan(*device, {Rows(queries.data(), kQueries, kDim, kDim), runs}, &got).ok());
      for (int64_t q = 0; q < kQueries; ++q) ExpectSame(got.Sorted(q), want.Sorted(q));
      // In two calls, the second half first.
      TopK halves(kQueries, 40);
      const size_t half = runs.size() / 2;
      for (const auto part : {std::span(runs).subspan(half), std::span(runs).first(half)}) {
        ASSERT_TRUE(
            KeyScan(*device, {Rows(queries.data(), kQueries, kDim, kDim), part}, &halves).ok());
      }
      for (int64_t q = 0; q < kQueries; ++q) ExpectSame(halves.Sorted(q), want.Sorted(q));
    }
  }
}

TEST(KeyScanTest, HoldsAllKeysWhenThereAreFewerThanTopK) {
  const std::vector<BFloat16> keys = RandomKeys(5, 20, 5);
  const std::vector<float> queries = RandomQueries(1, 20, 6);
  const KeyRun run{keys.data(), 5, 1'000'000'000'000};
  auto device = Cpu(2);
  TopK best(1, 16);
  ASSERT_TRUE(KeyScan(*device, {Rows(queries.data(), 1, 20, 20), {&run, 1}}, &best).ok());
  EXPECT_EQ(best.Sorted(0).size(), 5u);
  ExpectSame(best.Sorted(0), BruteForce(queries.data(), {&run, 1}, 20, 16));
}

TEST(KeyScanTest, NoKeysAndNoQueriesAreFine) {
  auto device = Cpu(2);
  const std::vector<float> queries(64, 1.0f);
  TopK best(1, 4);
  EXPECT_TRUE(KeyScan(*device, {Rows(queries.data(), 1, 64, 64), {}}, &best).ok());
  EXPECT_TRUE(best.Sorted(0).empty());
  TopK none(0, 4);
  const std::vector<BFloat16> keys(64);
  const KeyRun run{keys.data(), 1, 0};
  EXPECT_TRUE(KeyScan(*device, {Rows(nullptr, 0, 64, 64), {&run, 1}}, &none).ok());
}

TEST(KeyScanTest, KeysThatAreNotNumbersNeverEnter) {
  constexpr int64_t kKeys = 200, kDim = 20;
  std::vector<BFloat16> keys = RandomKeys(kKeys, kDim, 8);
  for (int64_t j = 0; j < kKeys; j += 2) {
    keys[static_cast<size_t>(j * kDim + 19)] = BFloat16(std::nanf(""));
  }
  const std::vector<float> queries = RandomQueries(3, kDim, 9);
  const KeyRun run{keys.data(), kKeys, 0};
  auto device = Cpu(1);
  TopK best(3, 150);
  ASSERT_TRUE(KeyScan(*device, {Rows(queries.data(), 3, kDim, kDim), {&run, 1}}, &best).ok());
  for (int64_t q = 0; q < 3; ++q) {
    EXPECT_EQ(best.Sorted(q).size(), 100u);
    for (const ScoredId& hit : best.Sorted(q)) EXPECT_EQ(hit.id % 2, 1);
  }
}

template <typename T>
void ExpectSameKeysOnEveryInstructionSet() {
  constexpr int64_t kKeys = 1000, kQueries = 13;
  auto device = Cpu(1);
  for (const int64_t head_dim : {5, 20, 64, 100}) {
    const std::vector<T> keys = RandomKeys<T>(kKeys, head_dim, 20);
    const std::vector<float> queries = RandomQueries(kQueries, head_dim, 21);
    const KeyRun run{keys.data(), kKeys, 0};
    for (const int64_t target : hwy::SupportedAndGeneratedTargets()) {
      SCOPED_TRACE(hwy::TargetName(target));
      hwy::SetSupportedTargetsForTest(target);
      TopK best(kQueries, 16);
      ASSERT_TRUE(
          KeyScan(*device, {Rows(queries.data(), kQueries, head_dim, head_dim), {&run, 1}}, &best)
              .ok());
      for (int64_t q = 0; q < kQueries; ++q) {
        const float* query = queries.data() + q * head_dim;
        ExpectSame(best.Sorted(q), BruteForce(query, {&run, 1}, head_dim, 16));
        for (const ScoredId& hit : best.Sorted(q)) {
          const T* key = keys.data() + hit.id * head_dim;
          EXPECT_NEAR(hit.score, ExactScore(query, key, head_dim), Tolerance(query, key, head_dim));
        }
      }
    }
    hwy::SetSupportedTargetsForTest(0);
  }
}

TEST(KeyScanTest, EveryInstructionSetFindsTheSameKeys) {
  ExpectSameKeysOnEveryInstructionSet<BFloat16>();
}

TEST(KeyScanTest, EveryInstructionSetFindsTheSameFloat32Keys) {
  ExpectSameKeysOnEveryInstructionSet<float>();
}

// What deletions leave of windows: runs that share tiles.
TEST(KeyScanTest, ShortRunsOfFloat32KeysAreAsOneLongOne) {
  constexpr int64_t kKeys = 5000, kDim = 20, kQueries = 3;
  const std::vector<float> keys = RandomKeys<float>(kKeys, kDim, 31);
  const std::vector<float> queries = RandomQueries(kQueries, kDim, 32);
  auto device = Cpu(2);
  const KeyRun whole{keys.data(), kKeys, 0};
  std::vector<KeyRun> runs = {{nullptr, 0, 0}};  // nothing left of it: of no type
  for (int64_t begin = 0; begin < kKeys; begin += 7) {
    runs.push_back({keys.data() + begin * kDim, std::min<int64_t>(7, kKeys - begin), begin});
  }
  TopK want(kQueries, 40), got(kQueries, 40);
  ASSERT_TRUE(
      KeyScan(*device, {Rows(queries.data(), kQueries, kDim, kDim), {&whole, 1}}, &want).ok());
  ASSERT_TRUE(KeyScan(*device, {Rows(queries.data(), kQueries, kDim, kDim), runs}, &got).ok());
  for (int64_t q = 0; q < kQueries; ++q) ExpectSame(got.Sorted(q), want.Sorted(q));
}

TEST(KeyScanTest, RefusesKeysOfTwoTypes) {
  const std::vector<float> floats = RandomKeys<float>(3, 64, 33);
  const std::vector<BFloat16> halves = RandomKeys(3, 64, 34);
  const std::vector<KeyRun> runs = {{floats.data(), 3, 0}, {halves.data(), 3, 3}};
  auto device = Cpu(1);
  TopK best(1, 4);
  const absl::Status status = KeyScan(*device, {Rows(floats.data(), 1, 64, 64), runs}, &best);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
}

TEST(KeyScanTest, RefusesShapesThatDoNotFit) {
  auto device = Cpu(1);
  const std::vector<float> queries(128);
  TopK best(2, 4);
  EXPECT_TRUE(
      absl::IsInvalidArgument(KeyScan(*device, {Rows(queries.data(), 2, 0, 64), {}}, &best)));
  EXPECT_TRUE(
      absl::IsInvalidArgument(KeyScan(*device, {Rows(queries.data(), 2, 64, 32), {}}, &best)));
  EXPECT_TRUE(
      absl::IsInvalidArgument(KeyScan(*device, {Rows(queries.data(), 1, 64, 64), {}}, &best)));
}

template <typename T>
void ExpectScoresOfKeysAnywhere() {
  auto device = Cpu(1);
  for (const int64_t head_dim : {5, 20, 64, 100, 128}) {
    const std::vector<T> keys = RandomKeys<T>(300, head_dim, 10);
    const std::vector<float> query = RandomQueries(1, head_dim, 11);
    std::mt19937 random(12);
    for (const size_t n : {0, 1, 4, 16, 17, 47, 48, 49, 200}) {
      std::vector<EntryPointer> some(n);
      for (EntryPointer& key : some) key = keys.data() + random() % 300 * head_dim;
      std::vector<float> scores(n);
      ASSERT_TRUE(KeyScores(*device, {query.data(), {head_dim}}, some, scores).ok());
      for (size_t i = 0; i < n; ++i) {
        EXPECT_EQ(scores[i], KeyScore(query.data(), some[i], head_dim)) << head_dim << " " << n;
      }
    }
  }
}

TEST(KeyScoresTest, AreKeyScoresOfKeysAnywhere) { ExpectScoresOfKeysAnywhere<BFloat16>(); }

TEST(KeyScoresTest, AreKeyScoresOfFloat32KeysAnywhere) { ExpectScoresOfKeysAnywhere<float>(); }

TEST(TopKTest, KeepsTheBestWithTiesBySmallerId) {
  TopK best(1, 3);
  EXPECT_EQ(best.Threshold(0), -std::numeric_limits<float>::infinity());
  for (const ScoredId item : {ScoredId{1, 9}, ScoredId{2, 8}, ScoredId{2, 3}, ScoredId{2, 5},
                              ScoredId{0, 1}, ScoredId{2, 4}}) {
    best.Push(0, item);
  }
  const std::span<const ScoredId> sorted = best.Sorted(0);
  ASSERT_EQ(sorted.size(), 3u);
  EXPECT_EQ(sorted[0].id, 3);
  EXPECT_EQ(sorted[1].id, 4);
  EXPECT_EQ(sorted[2].id, 5);
  EXPECT_EQ(best.Threshold(0), 2);
}

TEST(TopKTest, TakesMoreAfterItWasSorted) {
  std::mt19937 random(13);
  TopK best(2, 10);
  std::vector<ScoredId> all;
  for (int64_t i = 0; i < 500; ++i) {
    const ScoredId item{static_cast<float>(random() % 100), i};
    all.push_back(item);
    best.Push(1, item);
    if (random() % 3 == 0) best.Sorted(1);
    if (random() % 5 == 0) {
      // The threshold is the worst of what is held.
      const float threshold = best.Threshold(1);
      if (i >= 9) {
        EXPECT_EQ(threshold, best.Sorted(1).back().score);
      }
    }
  }
  std::sort(all.begin(), all.end(), [](const ScoredId& a, const ScoredId& b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
  });
  all.resize(10);
  ExpectSame(best.Sorted(1), all);
  EXPECT_TRUE(best.Sorted(0).empty());
}

TEST(TopKTest, MergeKeepsTheBestOfBoth) {
  TopK a(1, 4), b(1, 4), all(1, 4);
  std::mt19937 random(14);
  for (int64_t i = 0; i < 100; ++i) {
    const ScoredId item{static_cast<float>(random() % 10), i};
    (i % 2 == 0 ? a : b).Push(0, item);
    all.Push(0, item);
  }
  b.Sorted(0);
  a.Merge(b);
  ExpectSame(a.Sorted(0), all.Sorted(0));
}

}  // namespace
}  // namespace fovea::compute
