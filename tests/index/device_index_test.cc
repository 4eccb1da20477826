#include "index/device_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/file.h"
#include "tests/compute/guarded_device.h"
#include "tests/compute/op_test.h"
#include "tests/index/synthetic_keys.h"

namespace fovea::index {
namespace {

constexpr int64_t kKvHeads = 2, kHeads = 6, kQueries = 5;

// Fresh ones each time: a seed that no run before had.
uint32_t FreshSeed() {
  const auto seed = static_cast<uint32_t>(std::random_device()());
  testing::Test::RecordProperty("seed", static_cast<int>(seed >> 1));
  return seed;
}

std::unique_ptr<LayerIndex> BuildOn(compute::Device& device, const std::string& spec,
                                    const SyntheticKeys& keys) {
  auto built = LayerIndex::Build(device, spec, keys.All(), keys.head_dim, Progress());
  EXPECT_TRUE(built.ok()) << spec << ": " << built.status();
  return built.ok() ? *std::move(built) : nullptr;
}

LayerSearchArgs Args(const std::vector<float>& queries, int n_candidates, int n_probe) {
  LayerSearchArgs args;
  args.queries = queries.data();
  args.n_queries = kQueries;
  args.n_heads = kHeads;
  args.n_candidates = n_candidates;
  args.n_probe = n_probe;
  return args;
}

// The share of the first search's candidates that the second one has.
double Overlap(const std::vector<int64_t>& first, const std::vector<int64_t>& second, size_t k) {
  int64_t n_wanted = 0, n_found = 0;
  for (size_t row = 0; row < first.size(); row += k) {
    const std::set<int64_t> other(second.begin() + static_cast<int64_t>(row),
                                  second.begin() + static_cast<int64_t>(row + k));
    for (size_t j = row; j < row + k; ++j) {
      if (first[j] < 0) continue;
      ++n_wanted;
      n_found += static_cast<int64_t>(other.count(first[j]));
    }
  }
  return n_wanted == 0 ? 1.0 : static_cast<double>(n_found) / static_cast<double>(n_wanted);
}

// The best key of each query head by exact scores in double.
double ShareOfBest(const SyntheticKeys& keys, const std::vector<float>& queries,
                   const std::vector<int64_t>& candidates, size_t k) {
  int64_t n_found = 0;
  for (int64_t row = 0; row < kQueries * kHeads; ++row) {
    const float* const query = queries.data() + row * keys.head_dim;
    const int64_t kv_head = row % kHeads / (kHeads / kKvHeads);
    double best = -1e300;
    int64_t best_id = -1;
    for (int64_t i = 0; i < keys.n_keys; ++i) {
      double score = 0.0;
      for (int64_t d = 0; d < keys.head_dim; ++d) {
        score += double{query[d]} * static_cast<float>(keys.Key(kv_head, i)[d]);
      }
      if (score > best) best = score, best_id = i;
    }
    const auto begin = candidates.begin() + row * static_cast<int64_t>(k);
    n_found += std::count(begin, begin + static_cast<int64_t>(k), best_id);
  }
  return static_cast<double>(n_found) / (kQueries * kHeads);
}

TEST(DeviceIndexTest, SearchesOnADeviceOfItsOwnMemoryAsOnTheHost) {
  const SyntheticKeys keys(kKvHeads, 1500, 20, FreshSeed());
  const std::vector<float> queries = RandomQueries(kQueries * kHeads * 20, FreshSeed());
  compute::GuardedDevice guarded(2);
  auto host = compute::Device::Create("cpu", 1);
  ASSERT_TRUE(host.ok());
  for (const char* const spec : {"IVF16,SQfp16", "IVF16,SQ8", "IVF8,PQ4", "IVF16,Flat"}) {
    SCOPED_TRACE(spec);
    const auto index = BuildOn(**host, spec, keys);
    ASSERT_NE(index, nullptr);
    EXPECT_EQ(index->DeviceBytes(**host), 0u);  // it searches its own memory
    EXPECT_GT(index->DeviceBytes(guarded), 0u);
    const auto copy = index->CopyTo(guarded);
    ASSERT_TRUE(copy.ok()) << copy.status();
    std::vector<int64_t> want, got;
    ASSERT_TRUE(index->Search(**host, Args(queries, 30, 3), &want).ok());
    const absl::Status status =
        SearchOnDevice(guarded, **copy, kKvHeads, 20, Args(queries, 30, 3), &got);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(got, want);
  }
}

TEST(DeviceIndexTest, WhatNoGpuSearchesSaysSo) {
  const SyntheticKeys keys(kKvHeads, 600, 16, 3);
  compute::GuardedDevice guarded(2);
  // A scan of our own is faster than Flat and SQ, FAISS has no graph for GPUs, nor PQ of 4 bits.
  for (const char* const spec :
       {"Scan4", "Flat", "SQ8", "HNSW16", "IVF4_HNSW8,SQ8", "IVF4,PQ4x4", "PCA8,IVF4,SQ8"}) {
    SCOPED_TRACE(spec);
    const auto index = BuildOn(guarded.host(), spec, keys);
    ASSERT_NE(index, nullptr);
    EXPECT_EQ(index->DeviceBytes(guarded), 0u);
    EXPECT_TRUE(absl::IsUnimplemented(index->CopyTo(guarded).status()));
  }
  // Nor as many lists at once.
  const auto index = BuildOn(guarded.host(), "IVF4,SQ8", keys);
  ASSERT_NE(index, nullptr);
  index->set_effort({.n_probe = kMaxDeviceProbe + 1, .n_candidates = 64});
  EXPECT_EQ(index->DeviceBytes(guarded), 0u);
}

// With a GPU and a FAISS that has a part for it; else skipped, with the reason.
class GpuIndexTest : public testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    auto made = compute::Device::Create("cuda", 2);
    if (absl::IsUnimplemented(made.status()) || absl::IsUnavailable(made.status())) {
      GTEST_SKIP() << std::string(made.status().message());
    }
    ASSERT_TRUE(made.ok()) << made.status();
    gpu_ = *std::move(made);
    if (!FaissHasGpuPart()) GTEST_SKIP() << "FAISS " << FaissVersion() << " has no part for GPUs";
  }
  static bool Has(const char* part) {
    return std::string(GetParam()).find(part) != std::string::npos;
  }
  std::unique_ptr<compute::Device> gpu_;
};

TEST_P(GpuIndexTest, SearchesOnTheGpuAsOnTheHost) {
  const uint32_t seed = FreshSeed();
  const SyntheticKeys keys(kKvHeads, 20'000, 64, seed);
  const std::vector<float> queries = RandomQueries(kQueries * kHeads * 64, seed + 1);
  const auto index = BuildOn(gpu_->host(), GetParam(), keys);
  ASSERT_NE(index, nullptr);
  EXPECT_GT(index->DeviceBytes(*gpu_), 0u);
  const auto copy = index->CopyTo(*gpu_);
  ASSERT_TRUE(copy.ok()) << copy.status();
  for (const int n_probe : {1, 7, 64}) {
    SCOPED_TRACE(n_probe);
    std::vector<int64_t> want, got;
    ASSERT_TRUE(index->Search(gpu_->host(), Args(queries, 100, n_probe), &want).ok());
    const absl::Status status =
        SearchOnDevice(*gpu_, **copy, kKvHeads, 64, Args(queries, 100, n_probe), &got);
    ASSERT_TRUE(status.ok()) << status;
    for (size_t row = 0; row < got.size(); row += 100) {
      std::vector<int64_t> ids;
      for (size_t j = row; j < row + 100; ++j) {
        if (got[j] >= 0) ids.push_back(got[j]);
      }
      std::sort(ids.begin(), ids.end());
      EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
    }
    // Sums are made in another order, distances rounded: the last few may change places.
    // Codes of 8 bits are rounded once more.
    const double wanted = Has("SQ8") ? 0.93 : Has("PQ") ? 0.97 : 0.985;
    EXPECT_GE(Overlap(want, got, 100), wanted);
    EXPECT_GE(Overlap(got, want, 100), wanted);
  }
}

// A device that waits for nobody (a sealer's) has a copy and FAISS's needs of its own.
TEST_P(GpuIndexTest, DevicesThatDoNotWaitForEachOtherHaveCopiesOfTheirOwn) {
  const uint32_t seed = FreshSeed();
  const SyntheticKeys keys(kKvHeads, 5'000, 64, seed);
  const std::vector<float> queries = RandomQueries(kQueries * kHeads * 64, seed + 1);
  const auto other = gpu_->CreateAnother(1);
  ASSERT_TRUE(other.ok()) << other.status();
  const auto index = BuildOn(**other, GetParam(), keys);
  ASSERT_NE(index, nullptr);
  const auto copy = index->CopyTo(*gpu_);
  const auto others = index->CopyTo(**other);
  ASSERT_TRUE(copy.ok() && others.ok()) << copy.status() << others.status();
  std::vector<int64_t> first, second, refused;
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(SearchOnDevice(*gpu_, **copy, kKvHeads, 64, Args(queries, 50, 8), &first).ok());
    ASSERT_TRUE(
        SearchOnDevice(**other, **others, kKvHeads, 64, Args(queries, 50, 8), &second).ok());
    EXPECT_GE(Overlap(first, second, 50), 0.98);
  }
  EXPECT_TRUE(absl::IsInvalidArgument(
      SearchOnDevice(*gpu_, **others, kKvHeads, 64, Args(queries, 50, 8), &refused)));
}

TEST_P(GpuIndexTest, WhatTheGpuBuildsIsReadAndSearchedOnTheHost) {
  const uint32_t seed = FreshSeed();
  const SyntheticKeys keys(kKvHeads, 20'000, 64, seed);
  const std::vector<float> queries = RandomQueries(kQueries * kHeads * 64, seed + 1);
  const auto built = BuildOn(*gpu_, GetParam(), keys);
  ASSERT_NE(built, nullptr);
  EXPECT_EQ(built->n_keys(), keys.n_keys);
  EXPECT_GT(built->DeviceBytes(*gpu_), 0u);
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / StrCat("fovea_device_index_test_", getpid());
  ASSERT_TRUE(built->Save(path).ok());
  const auto loaded = LayerIndex::Load(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->spec(), GetParam());
  std::vector<int64_t> of_built, of_loaded;
  ASSERT_TRUE(built->Search(gpu_->host(), Args(queries, 256, 64), &of_built).ok());
  ASSERT_TRUE((*loaded)->Search(gpu_->host(), Args(queries, 256, 64), &of_loaded).ok());
  // FAISS makes tables for a product quantiser that it reads, whose sums are rounded otherwise.
  EXPECT_GE(Overlap(of_built, of_loaded, 256), Has("PQ") ? 0.98 : 1.0);
  // All lists: what is missed is lost by the codes.
  EXPECT_GE(ShareOfBest(keys, queries, of_loaded, 256), Has("PQ") ? 0.8 : 1.0);
  // The same specification, built on the host, is as good.
  const auto on_host = BuildOn(gpu_->host(), GetParam(), keys);
  ASSERT_NE(on_host, nullptr);
  std::vector<int64_t> of_host, few_of_loaded;
  ASSERT_TRUE(on_host->Search(gpu_->host(), Args(queries, 256, 16), &of_host).ok());
  ASSERT_TRUE((*loaded)->Search(gpu_->host(), Args(queries, 256, 16), &few_of_loaded).ok());
  EXPECT_GE(ShareOfBest(keys, queries, few_of_loaded, 256),
            ShareOfBest(keys, queries, of_host, 256) - 0.25);
}

INSTANTIATE_TEST_SUITE_P(Specs, GpuIndexTest,
                         testing::Values("IVF64,SQfp16", "IVF64,SQ8", "IVF64,PQ16", "IVF64,Flat"));

// Memory that our ops had and keep for the next of them is there for FAISS, which takes its own:
// CUDA sees to that.
using GpuRoomTest = GpuIndexTest;

TEST_P(GpuRoomTest, AGpuFullOfWhatOpsKeepHasRoomForAnIndex) {
  const uint32_t seed = FreshSeed();
  const SyntheticKeys keys(kKvHeads, 20'000, 64, seed);
  const std::vector<float> queries = RandomQueries(kQueries * kHeads * 64, seed + 1);
  // All of it, but for what is too little for FAISS to begin.
  const auto fill = [&] {
    std::vector<compute::Buffer> held;
    for (size_t size = size_t{8} << 30; size >= size_t{16} << 20; size /= 2) {
      for (auto buffer = gpu_->Allocate(size); buffer.ok(); buffer = gpu_->Allocate(size)) {
        held.push_back(*std::move(buffer));
      }
    }
    return held;
  };
  std::vector<compute::Buffer> held = fill();
  ASSERT_GT(held.size(), 0u);
  held.clear();
  auto built = BuildOn(*gpu_, GetParam(), keys);
  ASSERT_NE(built, nullptr);
  {
    const auto copy = built->CopyTo(*gpu_);
    ASSERT_TRUE(copy.ok()) << copy.status();
    std::vector<int64_t> found;
    const absl::Status status =
        SearchOnDevice(*gpu_, **copy, kKvHeads, 64, Args(queries, 256, 64), &found);
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_GE(ShareOfBest(keys, queries, found, 256), 1.0);
  }
  // Where it is really full that is an error, and the host builds what it was to build.
  held = fill();
  const auto full = built->CopyTo(*gpu_);
  EXPECT_TRUE(absl::IsResourceExhausted(full.status())) << full.status();
  built = BuildOn(*gpu_, GetParam(), keys);
  held.clear();
  ASSERT_NE(built, nullptr);
  EXPECT_TRUE(built->CopyTo(*gpu_).ok());
}

INSTANTIATE_TEST_SUITE_P(Specs, GpuRoomTest, testing::Values("IVF64,SQ8"));

}  // namespace
}  // namespace fovea::index
