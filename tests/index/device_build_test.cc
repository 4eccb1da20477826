// What is built on a device whose memory is not the host's: a GPU where there is one, and one that
// the host cannot read.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "index/best_keys.h"
#include "index/calibration.h"
#include "tests/compute/guarded_device.h"
#include "tests/index/synthetic_keys.h"

namespace fovea::index {
namespace {

using compute::ScoredId;

constexpr int64_t kDim = 64, kKeys = 5000, kKvHeads = 2, kHeads = 6;

class DeviceBuildTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam() == "guarded") {
      device_ = std::make_unique<compute::GuardedDevice>(2);
      return;
    }
    absl::StatusOr<std::unique_ptr<compute::Device>> device =
        compute::Device::Create(GetParam(), 2);
    if (!device.ok()) GTEST_SKIP() << device.status();
    device_ = *std::move(device);
  }
  // Ids with gaps, as after deletions: a sixth is missing.
  static HeadKeys Runs() {
    return {{nullptr, 1700, 0}, {nullptr, 1300, 2100}, {nullptr, 1200, kKeys - 1200}};
  }
  const SyntheticKeys keys_{kKvHeads, kKeys, kDim, 11};
  std::unique_ptr<compute::Device> device_;
};

TEST_P(DeviceBuildTest, FindsTheBestKeysThatTheHostFinds) {
  constexpr int64_t kQueries = 37;
  constexpr int kBest = 16;
  const std::vector<HeadKeys> keys = keys_.Some(Runs());
  const std::vector<float> queries = RandomQueries(kQueries * kHeads * kDim, 12);
  const compute::ConstView view(queries.data(), {kQueries, kHeads, kDim});
  const auto wanted = FindBestKeys(*device_, keys, nullptr, view, kBest);
  const auto copied = DeviceKeys::Copy(*device_, keys, kDim);
  ASSERT_TRUE(copied.ok() && copied->has_value()) << copied.status();
  const auto found = FindBestKeys(*device_, keys, &**copied, view, kBest);
  ASSERT_TRUE(wanted.ok() && found.ok()) << wanted.status() << found.status();
  ASSERT_EQ(found->size(), static_cast<size_t>(kQueries * kHeads * kBest));
  for (size_t i = 0; i < found->size(); ++i) {
    const ScoredId& want = (*wanted)[i];
    const ScoredId& got = (*found)[i];
    ASSERT_NEAR(got.score, want.score, 1e-3) << i;
    // Keys whose scores differ by less than the order of sums does may change places.
    const size_t row = i / kBest * kBest;
    const bool is_there =
        std::any_of(wanted->begin() + static_cast<ptrdiff_t>(row),
                    wanted->begin() + static_cast<ptrdiff_t>(row + kBest), [&](const auto& other) {
                      return other.id == got.id && std::abs(other.score - got.score) < 1e-3;
                    });
    ASSERT_TRUE(is_there || std::abs(got.score - (*wanted)[row + kBest - 1].score) < 1e-3) << i;
  }
}

TEST_P(DeviceBuildTest, FewerKeysThanAreWantedEndInMinusOne) {
  const std::vector<HeadKeys> keys = keys_.Some({{nullptr, 5, 3}});
  const std::vector<float> queries = RandomQueries(kHeads * kDim, 13);
  const auto copied = DeviceKeys::Copy(*device_, keys, kDim);
  ASSERT_TRUE(copied.ok() && copied->has_value()) << copied.status();
  const auto found =
      FindBestKeys(*device_, keys, &**copied, {queries.data(), {1, kHeads, kDim}}, 8);
  ASSERT_TRUE(found.ok()) << found.status();
  for (size_t i = 0; i < found->size(); ++i) {
    EXPECT_EQ((*found)[i].id >= 3 && (*found)[i].id < 8, i % 8 < 5) << i;
    if (i % 8 >= 5) {
      EXPECT_EQ((*found)[i].id, -1);
    }
  }
  const std::vector<HeadKeys> none(kKvHeads);
  const auto copied_none = DeviceKeys::Copy(*device_, none, kDim);
  ASSERT_TRUE(copied_none.ok() && !copied_none->has_value()) << copied_none.status();
  const auto nothing =
      FindBestKeys(*device_, none, nullptr, {queries.data(), {1, kHeads, kDim}}, 8);
  ASSERT_TRUE(nothing.ok()) << nothing.status();
  EXPECT_TRUE(std::all_of(nothing->begin(), nothing->end(),
                          [](const ScoredId& best) { return best.id == -1; }));
}

// Where a grid suits a key as well as another one a device may take the other: the candidates are
// nearly the same ones, and a file of the device's codes is the host's to read.
TEST_P(DeviceBuildTest, CodesFindWhatTheHostsCodesFind) {
  constexpr int64_t kQueries = 20;
  constexpr int kCandidates = 64;
  const std::vector<HeadKeys> keys = keys_.Some(Runs());
  const std::vector<float> queries = RandomQueries(kQueries * kHeads * kDim, 14);
  compute::Device& host = device_->host();
  const std::filesystem::path path =
      std::filesystem::path(::testing::TempDir()) / ("device_build_" + GetParam() + ".index");
  for (const char* const spec : {"Scan2", "Scan4", "Scan8"}) {
    const auto by_host = LayerIndex::Build(host, spec, keys, kDim, Progress());
    const auto by_device = LayerIndex::Build(*device_, spec, keys, kDim, Progress());
    ASSERT_TRUE(by_host.ok() && by_device.ok()) << by_host.status() << by_device.status();
    ASSERT_TRUE((*by_device)->Save(path).ok());
    const auto loaded = LayerIndex::Load(path);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    LayerSearchArgs args;
    args.queries = queries.data();
    args.n_queries = kQueries;
    args.n_heads = kHeads;
    args.n_candidates = kCandidates;
    std::vector<int64_t> wanted, found;
    ASSERT_TRUE((*by_host)->Search(host, args, &wanted).ok());
    ASSERT_TRUE((*loaded)->Search(host, args, &found).ok());
    int64_t n_same = 0;
    for (int64_t row = 0; row < kQueries * kHeads; ++row) {
      const auto begin = wanted.begin() + row * kCandidates;
      for (int c = 0; c < kCandidates; ++c) {
        const int64_t id = found[static_cast<size_t>(row * kCandidates + c)];
        n_same += std::find(begin, begin + kCandidates, id) != begin + kCandidates ? 1 : 0;
      }
    }
    EXPECT_GE(static_cast<double>(n_same), 0.97 * kQueries * kHeads * kCandidates) << spec;
    std::filesystem::remove(path);
  }
}

TEST_P(DeviceBuildTest, KeysThatAreNotFiniteAreRefusedAsByTheHost) {
  for (const float bad :
       {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
    SyntheticKeys keys(kKvHeads, 300, kDim, 15);
    keys.keys[1][static_cast<size_t>(170 * kDim + 9)] = BFloat16(bad);
    const auto built = LayerIndex::Build(*device_, "Scan4", keys.All(), kDim, Progress());
    EXPECT_TRUE(absl::IsInvalidArgument(built.status())) << built.status();
    EXPECT_NE(built.status().message().find("NaN or infinity"), std::string::npos);
  }
  // A key that is the others' mean is none of them.
  SyntheticKeys same(kKvHeads, 40, kDim, 16);
  for (std::vector<BFloat16>& head : same.keys) std::fill(head.begin(), head.end(), BFloat16(1.5f));
  EXPECT_TRUE(LayerIndex::Build(*device_, "Scan4", same.All(), kDim, Progress()).ok());
}

TEST_P(DeviceBuildTest, CalibrationTakesWhatItTakesOnTheHost) {
  const BlurredNeedles blurred(kKvHeads, 6000, 120, 1.2f, 17);
  CalibrationQueries queries{{}, 120, 2 * kKvHeads, BlurredNeedles::kDim, 0.125f};
  for (const std::vector<float>& looked : blurred.looked) {
    for (int64_t h = 0; h < queries.n_heads; ++h) {
      queries.queries.insert(queries.queries.end(), looked.begin(), looked.end());
    }
  }
  const auto judge = [&](compute::Device& device) {
    return BuildCalibrated(device, "Scan4", blurred.keys.All(), BlurredNeedles::kDim, queries, 0.99,
                           Progress());
  };
  const auto wanted = judge(device_->host());
  const auto built = judge(*device_);
  ASSERT_TRUE(wanted.ok() && built.ok()) << wanted.status() << built.status();
  EXPECT_GE(wanted->needle_recall.n_confident, 100);
  EXPECT_EQ(built->needle_recall.n_confident, wanted->needle_recall.n_confident);
  EXPECT_EQ(built->effort.n_candidates, wanted->effort.n_candidates);
  EXPECT_NEAR(built->needle_recall.recall, wanted->needle_recall.recall, 0.02);
}

INSTANTIATE_TEST_SUITE_P(Devices, DeviceBuildTest, ::testing::Values("guarded", "cuda"),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace fovea::index
