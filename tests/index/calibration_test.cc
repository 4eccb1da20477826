#include "index/calibration.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "tests/index/synthetic_keys.h"

namespace fovea::index {
namespace {

std::unique_ptr<compute::Device> Cpu() {
  absl::StatusOr<std::unique_ptr<compute::Device>> device = compute::Device::Create("cpu", 2);
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

// Keys in clusters, and needles: keys of a cluster that reach far out of it in a direction of their
// own, which is what their queries ask for. So a needle lies in the list of its cluster, whose
// centroid says nothing of the direction.
struct Planted {
  static constexpr int64_t kDim = 64, kKvHeads = 2, kHeads = 4, kKeys = 6000, kClusters = 60;
  static constexpr int64_t kNeedles = 120;
  SyntheticKeys keys{kKvHeads, kKeys, kDim, 1};
  CalibrationQueries queries;
  std::vector<int64_t> needle;  // per position

  Planted() {
    std::mt19937 random(2);
    std::vector<std::vector<float>> centers;
    for (int64_t c = 0; c < kClusters; ++c) centers.push_back(RandomUnit(kDim, random));
    for (int64_t h = 0; h < kKvHeads; ++h) {
      for (int64_t i = 0; i < kKeys; ++i) {
        keys.Plant(h, i, centers[static_cast<size_t>(i % kClusters)], 12.0f);
      }
    }
    queries = {{}, kNeedles + 40, kHeads, kDim, 0.125f};
    for (int64_t q = 0; q < queries.n_queries; ++q) {
      const bool is_needle = q < kNeedles;
      const int64_t position = static_cast<int64_t>(random() % kKeys);
      const std::vector<float> direction = RandomUnit(kDim, random);
      if (is_needle) {
        for (int64_t h = 0; h < kKvHeads; ++h) keys.Plant(h, position, direction, 9.0f);
        needle.push_back(position);
      }
      for (int64_t h = 0; h < kHeads; ++h) {
        for (const float value : direction) {
          // Only the even heads look for it, the others and the last positions for nothing much.
          queries.queries.push_back((is_needle && h % 2 == 0 ? 20.0f : 1.0f) * value);
        }
      }
    }
  }
};

const Planted& ThePlanted() {
  static const Planted& planted = *new Planted;
  return planted;
}

TEST(NeedleRecallTest, CountsConfidentQueriesOnly) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  auto index = LayerIndex::Build(*device, "Flat", planted.keys.All(), 64, Progress());
  ASSERT_TRUE(index.ok()) << index.status();
  auto recall = MeasureNeedleRecall(*device, **index, planted.keys.All(), planted.queries, {0, 16});
  ASSERT_TRUE(recall.ok()) << recall.status();
  EXPECT_EQ(recall->recall, 1.0);
  // Against the definition, in double.
  int64_t n_confident = 0;
  for (int64_t q = 0; q < planted.queries.n_queries; ++q) {
    for (int64_t h = 0; h < 4; ++h) {
      const float* query = planted.queries.queries.data() + (q * 4 + h) * 64;
      std::vector<double> scores;
      for (int64_t i = 0; i < planted.keys.n_keys; ++i) {
        double score = 0;
        for (int64_t d = 0; d < 64; ++d) {
          score +=
              static_cast<double>(query[d]) * static_cast<float>(planted.keys.Key(h / 2, i)[d]);
        }
        scores.push_back(0.125 * score);
      }
      std::partial_sort(scores.begin(), scores.begin() + 16, scores.end(), std::greater<>());
      double sum = 0;
      for (int i = 0; i < 16; ++i) sum += std::exp(scores[static_cast<size_t>(i)] - scores[0]);
      n_confident += 1.0 / sum >= 0.5;
    }
  }
  EXPECT_EQ(recall->n_confident, n_confident);
  EXPECT_GE(n_confident, 200);
  EXPECT_LE(n_confident, 260);
}

TEST(NeedleRecallTest, IsOneWhereNothingIsConfident) {
  auto device = Cpu();
  const SyntheticKeys keys(1, 300, 20, 3);
  auto index = LayerIndex::Build(*device, "Flat", keys.All(), 20, Progress());
  ASSERT_TRUE(index.ok());
  const CalibrationQueries queries{std::vector<float>(60, 0.0f), 3, 1, 20, 1.0f};
  auto recall = MeasureNeedleRecall(*device, **index, keys.All(), queries, {0, 1});
  ASSERT_TRUE(recall.ok());
  EXPECT_EQ(recall->recall, 1.0);
  EXPECT_EQ(recall->n_confident, 0);
}

TEST(BuildCalibratedTest, FewProbesLoseNeedlesThatTheCalibratedEffortFinds) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  for (const std::string spec : {"IVF64,Flat", "IVF64,SQ8"}) {
    auto built =
        BuildCalibrated(*device, spec, planted.keys.All(), 64, planted.queries, 0.99, Progress());
    ASSERT_TRUE(built.ok()) << built.status();
    ASSERT_NE(built->index, nullptr);
    EXPECT_EQ(built->spec, spec);
    EXPECT_GE(built->needle_recall.recall, 0.99);
    EXPECT_GE(built->effort.n_candidates, 32);
    EXPECT_GT(built->effort.n_probe, 1);
    EXPECT_GT(built->relative_cost, 0.0);
    // What it says is what a measurement finds.
    auto again = MeasureNeedleRecall(*device, *built->index, planted.keys.All(), planted.queries,
                                     built->effort);
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(again->recall, built->needle_recall.recall);
    EXPECT_EQ(again->n_confident, built->needle_recall.n_confident);
    auto few = MeasureNeedleRecall(*device, *built->index, planted.keys.All(), planted.queries,
                                   {1, built->effort.n_candidates});
    ASSERT_TRUE(few.ok());
    EXPECT_LT(few->recall, 0.8) << spec;
  }
}

TEST(BuildCalibratedTest, CodedScansGetEnoughCandidates) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  for (const std::string spec : {"SQ8", "Scan2", "Scan4", "Scan8"}) {
    auto built =
        BuildCalibrated(*device, spec, planted.keys.All(), 64, planted.queries, 0.99, Progress());
    ASSERT_TRUE(built.ok()) << built.status();
    EXPECT_EQ(built->effort.n_probe, 0);
    EXPECT_EQ(built->effort.n_candidates, 64);
    EXPECT_GE(built->needle_recall.recall, 0.99);
  }
}

TEST(BuildCalibratedTest, AnImpossibleTargetGetsTheLargestEffort) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  auto built = BuildCalibrated(*device, "IVF16,Flat", planted.keys.All(), 64, planted.queries, 1.5,
                               Progress());
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(built->effort.n_probe, 16);
  EXPECT_EQ(built->effort.n_candidates, 1024);
}

TEST(BuildCalibratedTest, ExactAndSmallAutoBuildNothing) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  for (const std::string spec : {"exact", "auto"}) {
    const std::vector<HeadKeys> keys =
        spec == "exact" ? planted.keys.All()
                        : planted.keys.Some({{nullptr, kAutoExactTokens - 1, 0}});
    auto built = BuildCalibrated(*device, spec, keys, 64, planted.queries, 0.99, Progress());
    ASSERT_TRUE(built.ok()) << built.status();
    EXPECT_EQ(built->index, nullptr);
    EXPECT_EQ(built->spec, "exact");
    EXPECT_EQ(built->relative_cost, 1.0);
    EXPECT_EQ(built->needle_recall.recall, 1.0);
    if (spec == "exact") {
      EXPECT_GE(built->needle_recall.n_confident, 200);
    }
  }
}

TEST(BuildCalibratedTest, ReportsBadInput) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  CalibrationQueries wrong = planted.queries;
  wrong.head_dim = 32;
  const auto status = [&](const std::string& spec, const CalibrationQueries& queries) {
    return BuildCalibrated(*device, spec, planted.keys.All(), 64, queries, 0.99, Progress())
        .status();
  };
  EXPECT_TRUE(absl::IsInvalidArgument(status("Flat", wrong)));
  wrong = planted.queries;
  wrong.queries.pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(status("Flat", wrong)));
  EXPECT_TRUE(absl::IsInvalidArgument(status("IVF7000,Flat", planted.queries)));
  EXPECT_TRUE(absl::IsInvalidArgument(status("what", planted.queries)));
}

TEST(BuildCalibratedTest, WorksWithoutQueriesAndWithoutKeys) {
  auto device = Cpu();
  const SyntheticKeys keys(2, 300, 20, 4);
  auto built = BuildCalibrated(*device, "IVF4,Flat", keys.All(), 20, {}, 0.99, Progress());
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(built->needle_recall.n_confident, 0);
  EXPECT_EQ(built->effort.n_probe, 1);
  auto empty =
      BuildCalibrated(*device, "IVF4,Flat", std::vector<HeadKeys>(2), 20, {}, 0.99, Progress());
  ASSERT_TRUE(empty.ok()) << empty.status();
}

TEST(BuildCalibratedTest, CanBeCancelled) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  const std::atomic<bool> cancelled{true};
  EXPECT_TRUE(absl::IsCancelled(BuildCalibrated(*device, "IVF16,Flat", planted.keys.All(), 64,
                                                planted.queries, 0.99, Progress({}, &cancelled))
                                    .status()));
}

TEST(BuildCheapestTest, TakesNoIndexThatMissesTheTarget) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  // Nothing reaches it, or fits.
  auto built = BuildCheapest(*device, {"IVF16,Flat", "IVF7000,Flat"}, planted.keys.All(), 64,
                             planted.queries, 1.5, Progress());
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(built->index, nullptr);
  EXPECT_EQ(built->spec, "exact");
}

TEST(BuildCheapestTest, TakesAnIndexOnlyWhereItIsFasterThanTheScan) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  auto built = BuildCheapest(*device, {"IVF64,Flat", "IVF64,SQ8"}, planted.keys.All(), 64,
                             planted.queries, 0.9, Progress());
  ASSERT_TRUE(built.ok()) << built.status();
  if (built->index == nullptr) {
    EXPECT_EQ(built->relative_cost, 1.0);
  } else {
    EXPECT_LT(built->relative_cost, 1.0);
    EXPECT_GE(built->needle_recall.recall, 0.9);
  }
}

TEST(BuildCheapestTest, ScansWhereTooFewQueriesCanJudge) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  CalibrationQueries few = planted.queries;
  few.n_queries = 10;
  few.queries.resize(10 * 4 * 64);
  auto built = BuildCheapest(*device, {"IVF64,Flat"}, planted.keys.All(), 64, few, 0.5, Progress());
  ASSERT_TRUE(built.ok());
  EXPECT_EQ(built->index, nullptr);
  EXPECT_LT(built->needle_recall.n_confident, kMinConfident);
}

TEST(BuildCheapestTest, OfCodedScansOnlyTheFirstThatReachesTheTargetIsBuilt) {
  const Planted& planted = ThePlanted();
  auto device = Cpu();
  int n_builds = 0;
  std::atomic<bool> cancelled{false};
  const Progress progress(
      [&](const ProgressUpdate& update) { n_builds += update.done == 0 ? 1 : 0; }, &cancelled);
  auto built = BuildCheapest(*device, {"Scan4", "Scan8"}, planted.keys.All(), 64, planted.queries,
                             0.99, progress);
  ASSERT_TRUE(built.ok()) << built.status();
  EXPECT_EQ(n_builds, 1);
  EXPECT_TRUE(built->spec == "Scan4" || built->spec == "exact") << built->spec;  // as fast as it is
}

// What "auto" tries, on layers that need more and more bits.
TEST(BuildCheapestTest, TakesTheBitsThatTheNeedlesOfALayerNeed) {
  auto device = Cpu();
  const std::vector<std::string> specs = AutoSpecs(6000);
  ASSERT_EQ(specs, (std::vector<std::string>{"Scan2", "Scan4", "Scan8"}));
  const struct {
    float distance;
    std::string wanted;
  } kLayers[] = {{6.0f, "Scan2"}, {1.2f, "Scan4"}, {0.35f, "Scan8"}, {0.02f, "exact"}};
  for (const auto& [distance, wanted] : kLayers) {
    SCOPED_TRACE(distance);
    const BlurredNeedles layer(2, 6000, 150, distance, 5);
    CalibrationQueries queries{{}, 150, 2, BlurredNeedles::kDim, 0.125f};
    for (const std::vector<float>& looked : layer.looked) {
      for (int head = 0; head < 2; ++head) {
        queries.queries.insert(queries.queries.end(), looked.begin(), looked.end());
      }
    }
    bool is_enough = false;
    for (const std::string& spec : specs) {
      is_enough = is_enough || spec == wanted;
      auto built = BuildCalibrated(*device, spec, layer.keys.All(), BlurredNeedles::kDim, queries,
                                   0.99, Progress());
      ASSERT_TRUE(built.ok()) << built.status();
      EXPECT_EQ(built->needle_recall.n_confident, 300);
      EXPECT_EQ(built->needle_recall.recall >= 0.99, is_enough)
          << spec << ": " << built->needle_recall.recall;
    }
    auto built = BuildCheapest(*device, specs, layer.keys.All(), BlurredNeedles::kDim, queries,
                               0.99, Progress());
    ASSERT_TRUE(built.ok()) << built.status();
    EXPECT_GE(built->needle_recall.recall, 0.99);
    // The exact scan where it happens to be as fast as the codes here.
    EXPECT_TRUE(built->spec == wanted || built->spec == "exact") << built->spec;
  }
}

TEST(AutoSpecsTest, FitTheNumberOfKeys) {
  EXPECT_EQ(AutoSpecs(1 << 20), (std::vector<std::string>{"Scan2", "Scan4", "Scan8"}));
  EXPECT_EQ(AutoSpecs(1 << 24).back(), "IVF16384,SQ8");
  for (const int64_t n : {int64_t{1}, int64_t{1} << 20, int64_t{1} << 30}) {
    for (const std::string& spec : AutoSpecs(n)) EXPECT_TRUE(ValidateSpec(spec, 64).ok()) << spec;
  }
}

}  // namespace
}  // namespace fovea::index
