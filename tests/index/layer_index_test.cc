#include "index/layer_index.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <thread>

#include "base/file.h"
#include "base/hash.h"
#include "tests/index/synthetic_keys.h"

// FAISS 1.7.3's index_factory loses the coarse quantiser of an IVF that it then refuses.
extern "C" const char* __lsan_default_suppressions() { return "leak:parse_coarse_quantizer"; }

namespace fovea::index {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<compute::Device> Cpu(int n_threads) {
  absl::StatusOr<std::unique_ptr<compute::Device>> device =
      compute::Device::Create("cpu", n_threads);
  EXPECT_TRUE(device.ok()) << device.status();
  return *std::move(device);
}

std::unique_ptr<LayerIndex> Build(const std::string& spec, const std::vector<HeadKeys>& keys,
                                  int64_t head_dim) {
  auto device = Cpu(2);
  absl::StatusOr<std::unique_ptr<LayerIndex>> index =
      LayerIndex::Build(*device, spec, keys, head_dim, Progress());
  EXPECT_TRUE(index.ok()) << spec << ": " << index.status();
  return index.ok() ? *std::move(index) : nullptr;
}

std::vector<int64_t> Search(const LayerIndex& index, const LayerSearchArgs& args,
                            int n_threads = 1) {
  auto device = Cpu(n_threads);
  std::vector<int64_t> candidates;
  const absl::Status status = index.Search(*device, args, &candidates);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_EQ(candidates.size(),
            static_cast<size_t>(args.n_queries * args.n_heads * args.n_candidates));
  return candidates;
}

// The ids of the k largest inner products in double, among those allowed.
std::vector<int64_t> BruteForce(const SyntheticKeys& keys, int64_t kv_head, const float* query,
                                int64_t k, const std::function<bool(int64_t)>& allows) {
  std::vector<std::pair<double, int64_t>> scores;
  for (int64_t i = 0; i < keys.n_keys; ++i) {
    if (!allows(i)) continue;
    double score = 0.0;
    for (int64_t d = 0; d < keys.head_dim; ++d) {
      score -= static_cast<double>(query[d]) * static_cast<float>(keys.Key(kv_head, i)[d]);
    }
    scores.push_back({score, i});
  }
  std::sort(scores.begin(), scores.end());
  std::vector<int64_t> ids;
  for (int64_t i = 0; i < std::min<int64_t>(k, static_cast<int64_t>(scores.size())); ++i) {
    ids.push_back(scores[static_cast<size_t>(i)].second);
  }
  return ids;
}

// The share of the `k` exactly best keys per (query, head) among the candidates.
double Recall(const SyntheticKeys& keys, const LayerSearchArgs& args,
              const std::vector<int64_t>& candidates, int64_t k,
              const std::function<bool(int64_t)>& allows) {
  int64_t n_found = 0, n_wanted = 0;
  for (int64_t row = 0; row < args.n_queries * args.n_heads; ++row) {
    const int64_t kv_head = row % args.n_heads / (args.n_heads / keys.n_kv_heads);
    const auto begin = candidates.begin() + row * args.n_candidates;
    const std::set<int64_t> got(begin, begin + args.n_candidates);
    for (const int64_t id :
         BruteForce(keys, kv_head, args.queries + row * keys.head_dim, k, allows)) {
      n_found += got.count(id);
      ++n_wanted;
    }
  }
  return static_cast<double>(n_found) / static_cast<double>(n_wanted);
}

const auto kAllowAll = [](int64_t) { return true; };

class EverySpecTest : public ::testing::TestWithParam<std::string> {
 protected:
  static constexpr int64_t kKeys = 2000, kDim = 64, kQueries = 8, kHeads = 6;
  static constexpr int kMaxEffort = 512;  // enough for every list and for a graph of this size
  const SyntheticKeys keys_{2, kKeys, kDim, 1};
  const std::vector<float> queries_ = RandomQueries(kQueries * kHeads * kDim, 2);
  // Over all keys, built once a specification.
  const LayerIndex* Index() const {
    static auto& built = *new std::map<std::string, std::unique_ptr<LayerIndex>>;
    std::unique_ptr<LayerIndex>& index = built[GetParam()];
    if (index == nullptr) index = Build(GetParam(), keys_.All(), kDim);
    return index.get();
  }
  static bool Has(const char* part) { return GetParam().find(part) != std::string::npos; }
  // Codes of 4 bits for 4 dimensions say little of noise in all of them; a graph may not lead to
  // every key (or centroid).
  static double WantedRecall() { return Has("PQ") ? 0.6 : Has("HNSW") ? 0.9 : 0.98; }
  static bool ReachesEverything() { return !Has("_HNSW"); }
  LayerSearchArgs Args(int n_candidates) const {
    LayerSearchArgs args;
    args.queries = queries_.data();
    args.n_queries = kQueries;
    args.n_heads = kHeads;
    args.n_candidates = n_candidates;
    args.n_probe = kMaxEffort;
    return args;
  }
};

TEST_P(EverySpecTest, FindsTheBestKeysWithTheLargestEffort) {
  const LayerIndex* index = Index();
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->n_keys(), kKeys);
  EXPECT_EQ(index->n_kv_heads(), 2);
  EXPECT_EQ(index->spec(), GetParam());
  const LayerSearchArgs args = Args(256);
  const std::vector<int64_t> candidates = Search(*index, args);
  for (int64_t row = 0; row < kQueries * kHeads; ++row) {
    std::vector<int64_t> ids(candidates.begin() + row * 256, candidates.begin() + row * 256 + 256);
    std::sort(ids.begin(), ids.end());
    EXPECT_GE(ids.front(), 0);
    EXPECT_LT(ids.back(), kKeys);
    EXPECT_EQ(std::unique(ids.begin(), ids.end()), ids.end());
  }
  EXPECT_GE(Recall(keys_, args, candidates, 4, kAllowAll), WantedRecall());
}

TEST_P(EverySpecTest, SearchesOnlyWhatTheFilterAllows) {
  const LayerIndex* index = Index();
  ASSERT_NE(index, nullptr);
  for (const int64_t every : {2, 37, 500, 5000}) {  // allowed: half … 4, 1
    std::vector<uint64_t> bits(static_cast<size_t>(kKeys / 64 + 1));
    const auto allows = [every](int64_t id) { return id % every == 1; };
    int64_t n_allowed = 0;
    for (int64_t id = 0; id < kKeys; ++id) {
      if (allows(id)) bits[static_cast<size_t>(id / 64)] |= uint64_t{1} << (id % 64), ++n_allowed;
    }
    LayerSearchArgs args = Args(64);
    args.n_probe = 2;  // far too little for what is rare
    args.filter.bits = &bits;
    const std::vector<int64_t> candidates = Search(*index, args);
    for (const int64_t id : candidates) {
      EXPECT_TRUE(id == -1 || allows(id)) << id;
    }
    for (int64_t row = 0; row < kQueries * kHeads; ++row) {
      const auto begin = candidates.begin() + row * 64;
      const int64_t n_found = 64 - std::count(begin, begin + 64, -1);
      if (ReachesEverything()) {
        EXPECT_EQ(n_found, std::min<int64_t>(64, n_allowed)) << "every " << every;
      }
      // −1 only at the end.
      EXPECT_EQ(std::find(begin, begin + 64, -1) - begin, n_found);
    }
    if (n_allowed <= 64 && ReachesEverything()) {
      EXPECT_EQ(Recall(keys_, args, candidates, 64, allows), 1.0) << every;
    }
  }
}

TEST_P(EverySpecTest, NothingAllowedIsNothingFound) {
  const LayerIndex* index = Index();
  ASSERT_NE(index, nullptr);
  const std::vector<uint64_t> bits(static_cast<size_t>(kKeys / 64 + 1));
  LayerSearchArgs args = Args(8);
  args.filter.bits = &bits;
  for (const int64_t id : Search(*index, args)) EXPECT_EQ(id, -1);
}

TEST_P(EverySpecTest, ReturnsTheIdsOfKeysBetweenDeletedOnes) {
  const HeadKeys runs = {
      {nullptr, 700, 100}, {nullptr, 0, 900}, {nullptr, 1, 1000}, {nullptr, 500, 1500}};
  auto index = Build(GetParam(), keys_.Some(runs), kDim);
  ASSERT_NE(index, nullptr);
  EXPECT_EQ(index->n_keys(), 1201);
  const auto allows = [](int64_t id) {
    return (id >= 100 && id < 800) || id == 1000 || (id >= 1500 && id < 2000);
  };
  const LayerSearchArgs args = Args(256);
  const std::vector<int64_t> candidates = Search(*index, args);
  for (const int64_t id : candidates) EXPECT_TRUE(allows(id)) << id;
  EXPECT_GE(Recall(keys_, args, candidates, 4, allows), WantedRecall());
  // The lone key, by a filter.
  std::vector<uint64_t> bits(static_cast<size_t>(2000 / 64 + 1));
  bits[1000 / 64] |= uint64_t{1} << (1000 % 64);
  bits[900 / 64] |= uint64_t{1} << (900 % 64);  // allowed, but there is no such key
  LayerSearchArgs filtered = Args(4);
  filtered.filter.bits = &bits;
  const std::vector<int64_t> lone = Search(*index, filtered);
  for (size_t i = 0; i < lone.size(); ++i) {
    if (ReachesEverything() || i % 4 != 0) {
      EXPECT_EQ(lone[i], i % 4 == 0 ? 1000 : -1);
    }
  }
}

TEST_P(EverySpecTest, ResultDoesNotDependOnTheNumberOfThreads) {
  const LayerIndex* index = Index();
  ASSERT_NE(index, nullptr);
  std::vector<uint64_t> bits(static_cast<size_t>(kKeys / 64 + 1), 0x5555555555555555u);
  for (const int64_t n_queries : {int64_t{1}, int64_t{5}, kQueries}) {
    for (const std::vector<uint64_t>* filter : {(std::vector<uint64_t>*)nullptr, &bits}) {
      LayerSearchArgs args = Args(32);
      args.n_queries = n_queries;
      args.n_probe = 8;
      args.filter.bits = filter;
      const std::vector<int64_t> want = Search(*index, args, 1);
      EXPECT_EQ(Search(*index, args, 2), want);
      EXPECT_EQ(Search(*index, args, 4), want);
    }
  }
}

TEST_P(EverySpecTest, SaveAndLoadGiveTheSameAnswers) {
  auto index = Build(GetParam(), keys_.Some({{nullptr, 700, 100}, {nullptr, 500, 1500}}), kDim);
  ASSERT_NE(index, nullptr);
  index->set_effort({3, 96});
  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / StrCat("layer_index_test_", getpid());
  ASSERT_TRUE(index->Save(path).ok());
  absl::StatusOr<std::unique_ptr<LayerIndex>> loaded = LayerIndex::Load(path);
  std::filesystem::remove(path);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->spec(), index->spec());
  EXPECT_EQ((*loaded)->n_keys(), index->n_keys());
  EXPECT_EQ((*loaded)->effort().n_probe, 3);
  EXPECT_EQ((*loaded)->effort().n_candidates, 96);
  EXPECT_EQ((*loaded)->ProbeRange(), index->ProbeRange());
  LayerSearchArgs args = Args(32);
  args.n_probe = 4;
  EXPECT_EQ(Search(**loaded, args), Search(*index, args));
  // An answer of many tokens, in the middle of which codes are copied out of the file.
  args.n_queries = 1;
  const std::vector<int64_t> of_one = Search(*index, args);
  for (int token = 0; token < 12; ++token) {
    EXPECT_EQ(Search(**loaded, args), of_one) << "token " << token;
  }
}

TEST_P(EverySpecTest, FewKeysPadWithMinusOne) {
  // As many keys as quantisers need to learn anything.
  auto index = Build(GetParam(), keys_.Some({{nullptr, 300, 0}}), kDim);
  ASSERT_NE(index, nullptr);
  LayerSearchArgs args = Args(400);
  const std::vector<int64_t> candidates = Search(*index, args);
  for (int64_t row = 0; row < kQueries * kHeads; ++row) {
    const auto begin = candidates.begin() + row * 400;
    const int64_t n_found = 400 - std::count(begin, begin + 400, -1);
    EXPECT_EQ(std::find(begin, begin + 400, -1) - begin, n_found);
    EXPECT_EQ(std::set<int64_t>(begin, begin + n_found).size(), static_cast<size_t>(n_found));
    EXPECT_LE(n_found, 300);
    EXPECT_GE(n_found, Has("HNSW") ? 200 : 300);
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, EverySpecTest,
                         ::testing::Values("Flat", "SQ8", "SQ4", "SQ6", "SQfp16", "PQ16x4fs",
                                           "PQ16", "IVF32,Flat", "IVF32,SQ8", "IVF32,PQ16",
                                           "HNSW16", "HNSW16,SQ8", "IVF64_HNSW16,Flat", "PCA48,SQ8",
                                           "Scan2", "Scan4", "Scan8"),
                         [](const auto& info) {
                           std::string name = info.param;
                           std::replace(name.begin(), name.end(), ',', '_');
                           return name;
                         });

TEST(LayerIndexTest, FlatIsExactForEveryHeadDimension) {
  for (const int64_t head_dim : {20, 64, 100, 128}) {
    const SyntheticKeys keys(3, 500, head_dim, 3);
    const std::vector<float> queries = RandomQueries(4 * 9 * head_dim, 4);
    for (const std::string spec : {"Flat", "IVF8,Flat", "HNSW32"}) {
      auto index = Build(spec, keys.All(), head_dim);
      ASSERT_NE(index, nullptr);
      LayerSearchArgs args;
      args.queries = queries.data();
      args.n_queries = 4;
      args.n_heads = 9;  // three query heads for each KV head
      args.n_candidates = 24;
      args.n_probe = 500;
      const std::vector<int64_t> candidates = Search(*index, args);
      EXPECT_EQ(Recall(keys, args, candidates, 16, kAllowAll), 1.0) << spec << " " << head_dim;
    }
  }
}

TEST(LayerIndexTest, ProductQuantisersFindADimensionThatTheyCanDivide) {
  const SyntheticKeys keys(1, 600, 100, 5);
  for (const std::string spec : {"PQ24x4fs", "IVF4,PQ24x4", "HNSW8_PQ8"}) {
    EXPECT_NE(Build(spec, keys.All(), 100), nullptr) << spec;
  }
}

TEST(LayerIndexTest, NoKeysIsAnIndexThatFindsNothing) {
  const std::vector<float> queries = RandomQueries(4 * 20, 6);
  for (const std::vector<HeadKeys>& keys :
       {std::vector<HeadKeys>(2), std::vector<HeadKeys>(2, HeadKeys{{nullptr, 0, 7}})}) {
    auto index = Build("IVF100,Flat", keys, 20);
    ASSERT_NE(index, nullptr);
    EXPECT_EQ(index->n_keys(), 0);
    EXPECT_EQ(index->ProbeRange(), std::pair(0, 0));
    LayerSearchArgs args;
    args.queries = queries.data();
    args.n_queries = 1;
    args.n_heads = 4;
    args.n_candidates = 3;
    EXPECT_EQ(Search(*index, args), std::vector<int64_t>(12, -1));
    const std::filesystem::path path =
        std::filesystem::temp_directory_path() / StrCat("layer_index_test_empty_", getpid());
    ASSERT_TRUE(index->Save(path).ok());
    auto loaded = LayerIndex::Load(path);
    std::filesystem::remove(path);
    ASSERT_TRUE(loaded.ok()) << loaded.status();
    EXPECT_EQ(Search(**loaded, args), std::vector<int64_t>(12, -1));
  }
}

TEST(LayerIndexTest, ProbeRangeIsThatOfTheStructure) {
  const SyntheticKeys keys(1, 500, 20, 7);
  EXPECT_EQ(Build("Flat", keys.All(), 20)->ProbeRange(), std::pair(0, 0));
  EXPECT_EQ(Build("SQ8", keys.All(), 20)->ProbeRange(), std::pair(0, 0));
  EXPECT_EQ(Build("IVF12,SQ8", keys.All(), 20)->ProbeRange(), std::pair(1, 12));
  EXPECT_EQ(Build("HNSW8", keys.All(), 20)->ProbeRange(), std::pair(1, 4096));
}

TEST(LayerIndexTest, ServesManyThreadsAtOnce) {
  const SyntheticKeys keys(2, 1500, 64, 8);
  const std::vector<float> queries = RandomQueries(8 * 4 * 64, 9);
  for (const std::string spec : {"IVF32,Flat", "HNSW16", "Scan2"}) {
    auto index = Build(spec, keys.All(), 64);
    ASSERT_NE(index, nullptr);
    LayerSearchArgs args;
    args.queries = queries.data();
    args.n_queries = 8;
    args.n_heads = 4;
    args.n_candidates = 32;
    args.n_probe = 8;
    const std::vector<int64_t> want = Search(*index, args);
    std::atomic<int> n_wrong{0};
    std::vector<std::thread> threads;
    for (int t = 0; t < 4; ++t) {
      threads.emplace_back([&] {
        auto device = Cpu(2);
        for (int i = 0; i < 10; ++i) {
          std::vector<int64_t> got;
          if (!index->Search(*device, args, &got).ok() || got != want) ++n_wrong;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    EXPECT_EQ(n_wrong, 0) << spec;
  }
}

TEST(LayerIndexTest, BuildRefusesWhatCannotBe) {
  auto device = Cpu(1);
  const SyntheticKeys keys(2, 50, 20, 10);
  const auto status = [&](const std::string& spec, const std::vector<HeadKeys>& head_keys) {
    return LayerIndex::Build(*device, spec, head_keys, 20, Progress()).status();
  };
  // More lists than keys.
  EXPECT_TRUE(absl::IsInvalidArgument(status("IVF64,Flat", keys.All())));
  EXPECT_TRUE(absl::IsInvalidArgument(status("Flat", {})));
  std::vector<HeadKeys> different = keys.All();
  different[1][0].n_keys = 49;
  EXPECT_TRUE(absl::IsInvalidArgument(status("Flat", different)));
  EXPECT_TRUE(absl::IsInvalidArgument(
      status("Flat", keys.Some({{nullptr, 10, 5}, {nullptr, 10, 14}}))));  // overlap
  SyntheticKeys nan = keys;
  nan.keys[1][77] = BFloat16(std::nanf(""));
  const absl::Status nan_status = status("SQ8", nan.All());
  EXPECT_TRUE(absl::IsInvalidArgument(nan_status));
  EXPECT_THAT(std::string(nan_status.message()), HasSubstr("NaN"));
}

TEST(LayerIndexTest, SearchRefusesShapesThatDoNotFit) {
  const SyntheticKeys keys(2, 100, 20, 11);
  auto index = Build("Flat", keys.All(), 20);
  auto device = Cpu(1);
  const std::vector<float> queries = RandomQueries(3 * 20, 12);
  std::vector<int64_t> candidates;
  LayerSearchArgs args;
  args.queries = queries.data();
  args.n_queries = 1;
  args.n_heads = 3;
  args.n_candidates = 4;
  EXPECT_TRUE(absl::IsInvalidArgument(index->Search(*device, args, &candidates)));
  args.n_heads = 2;
  args.n_candidates = 0;
  EXPECT_TRUE(absl::IsInvalidArgument(index->Search(*device, args, &candidates)));
  args.n_candidates = 4;
  const std::vector<uint64_t> short_bits(1);
  args.filter.bits = &short_bits;
  EXPECT_TRUE(absl::IsInvalidArgument(index->Search(*device, args, &candidates)));
  args.filter.bits = nullptr;
  args.n_queries = 0;
  EXPECT_TRUE(index->Search(*device, args, &candidates).ok());
  EXPECT_TRUE(candidates.empty());
}

TEST(LayerIndexTest, BuildReportsProgressAndCanBeCancelled) {
  const SyntheticKeys keys(2, 40'000, 20, 13);
  auto device = Cpu(2);
  int64_t last = 0;
  std::atomic<bool> cancelled{false};
  const Progress progress(
      [&](const ProgressUpdate& update) {
        EXPECT_EQ(update.total, 80'000);
        EXPECT_GE(update.done, last);
        last = update.done;
      },
      &cancelled);
  EXPECT_TRUE(LayerIndex::Build(*device, "SQ8", keys.All(), 20, progress).ok());
  EXPECT_EQ(last, 80'000);
  cancelled = true;
  last = 0;
  EXPECT_TRUE(
      absl::IsCancelled(LayerIndex::Build(*device, "SQ8", keys.All(), 20, progress).status()));
}

TEST(ValidateSpecTest, TakesWhatFaissCanBuild) {
  for (const std::string spec : {"auto", "exact", "Flat", "SQ8", "IVF4096,SQ8", "HNSW32",
                                 "PQ32x4fs", "OPQ16,IVF1024,PQ16", "IVF65536_HNSW32,Flat"}) {
    EXPECT_TRUE(ValidateSpec(spec, 64).ok()) << spec << ": " << ValidateSpec(spec, 64);
  }
}

TEST(ValidateSpecTest, RefusesTheRestWithAReason) {
  for (const std::string& spec :
       std::vector<std::string>{std::string(""),
                                std::string("flat earth"),
                                std::string("IVF"),
                                std::string("IVF10"),
                                std::string("IVF99999999999999999999,Flat"),
                                std::string("IVF2000000,Flat"),
                                std::string("HNSW99999999"),
                                std::string("PQ300"),
                                std::string("IDMap,Flat"),
                                std::string("HNSW0"),
                                std::string("HNSW1"),
                                std::string("HNSW1000000"),
                                std::string("PCA64,HNSW0"),
                                std::string("IVF16_HNSW0,Flat"),
                                std::string("IVF16(HNSW1),Flat"),
                                std::string("PQ0"),
                                std::string("PQ16x0"),
                                std::string("PQ16x17"),
                                std::string("OPQ0,Flat"),
                                std::string("IVF16,PQ0"),
                                std::string("IVF0,Flat"),
                                std::string("PCA0,Flat"),
                                std::string("LSH"),
                                std::string("Flat,RFlat"),
                                std::string("IVF16,Flat,RFlat"),
                                std::string("NSG32"),
                                std::string("\0Flat", 5),
                                std::string(1000, '('),
                                std::string("AUTO")}) {
    const absl::Status status = ValidateSpec(spec, 64);
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << spec << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("index specification"));
  }
}

class LayerIndexFileTest : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "layer_index_XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    path_ = folder_ / "index";
    index_ = Build(GetParam(), keys_.Some({{nullptr, 60, 0}, {nullptr, 30, 70}}), 20);
    ASSERT_NE(index_, nullptr);
    ASSERT_TRUE(index_->Save(path_).ok());
    bytes_ = *ReadFile(path_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  absl::Status LoadOf(const std::string& bytes) {
    std::ofstream(path_, std::ios::binary) << bytes;
    return LayerIndex::Load(path_).status();
  }
  // With the hash made to fit, as a file made to harm could have it.
  absl::Status LoadRehashed(std::string bytes) {
    bytes.resize(bytes.size() - 16);
    const Hash128 hash = FastHash128(bytes);
    bytes.append(reinterpret_cast<const char*>(&hash.low), 8);
    bytes.append(reinterpret_cast<const char*>(&hash.high), 8);
    return LoadOf(bytes);
  }

  const SyntheticKeys keys_{2, 100, 20, 14};
  std::filesystem::path folder_;
  std::filesystem::path path_;
  std::unique_ptr<LayerIndex> index_;
  std::string bytes_;
};

INSTANTIATE_TEST_SUITE_P(Kinds, LayerIndexFileTest, ::testing::Values("IVF4,SQ8", "Scan4"),
                         [](const auto& info) {
                           return std::string(info.param == "Scan4" ? "Codes" : "Faiss");
                         });

TEST_P(LayerIndexFileTest, LoadRefusesEveryTruncation) {
  for (size_t size = 0; size < bytes_.size(); size += size < 64 ? 1 : 97) {
    EXPECT_TRUE(absl::IsDataLoss(LoadOf(bytes_.substr(0, size)))) << size;
  }
  EXPECT_TRUE(absl::IsDataLoss(LoadOf(bytes_ + "x")));
  EXPECT_TRUE(LoadOf(bytes_).ok());
}

TEST_P(LayerIndexFileTest, LoadRefusesEveryFlippedBit) {
  std::mt19937 random(15);
  for (int i = 0; i < 150; ++i) {
    std::string bytes = bytes_;
    bytes[random() % bytes.size()] ^= static_cast<char>(1 << random() % 8);
    EXPECT_TRUE(absl::IsDataLoss(LoadOf(bytes)));
  }
}

TEST_P(LayerIndexFileTest, LoadRefusesOtherFilesAndVersions) {
  EXPECT_TRUE(absl::IsNotFound(LayerIndex::Load(folder_ / "absent").status()));
  EXPECT_TRUE(absl::IsDataLoss(LoadOf("")));
  EXPECT_TRUE(absl::IsDataLoss(LoadOf(std::string(10'000, 'x'))));
  std::string other = bytes_;
  other[7] = '3';
  const absl::Status status = LoadRehashed(other);
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(std::string(status.message()), HasSubstr("format version"));
}

TEST_P(LayerIndexFileTest, LoadsVersion1WhichHasNoEffort) {
  uint64_t trailer_size = 0;
  const size_t size_at = bytes_.size() - 24;
  std::memcpy(&trailer_size, bytes_.data() + size_at, 8);
  // Behind two strings and four numbers.
  size_t effort_at = size_at - trailer_size;
  for (int i = 0; i < 2; ++i) {
    uint32_t n_letters = 0;
    std::memcpy(&n_letters, bytes_.data() + effort_at, 4);
    effort_at += 4 + n_letters;
  }
  effort_at += 16;
  std::string old = bytes_;
  old[7] = '1';
  trailer_size -= 8;
  std::memcpy(old.data() + size_at, &trailer_size, 8);
  old.erase(effort_at, 8);
  ASSERT_TRUE(LoadRehashed(old).ok());
  absl::StatusOr<std::unique_ptr<LayerIndex>> loaded = LayerIndex::Load(path_);
  ASSERT_TRUE(loaded.ok()) << loaded.status();
  EXPECT_EQ((*loaded)->n_keys(), index_->n_keys());
  EXPECT_EQ((*loaded)->effort().n_candidates, 0);
}

TEST_P(LayerIndexFileTest, LoadSurvivesATrailerMadeToHarm) {
  // The trailer is fovea's own, read after the hash: sizes in it must not be believed.
  uint64_t trailer_size = 0;
  std::memcpy(&trailer_size, bytes_.data() + bytes_.size() - 24, 8);
  const size_t begin = bytes_.size() - 24 - trailer_size;
  std::mt19937 random(16);
  int n_refused = 0;
  for (int i = 0; i < 200; ++i) {
    std::string bytes = bytes_;
    const size_t at = begin + random() % (trailer_size + 8);
    if (i % 2 == 0) {
      bytes[at] = static_cast<char>(random() % 2 == 0 ? 0xff : random());
    } else {
      for (size_t j = at; j < std::min(at + 8, bytes.size() - 16); ++j) bytes[j] = '\xff';
    }
    const absl::Status status = LoadRehashed(bytes);
    EXPECT_TRUE(status.ok() || absl::IsDataLoss(status)) << status;
    n_refused += !status.ok();
  }
  EXPECT_GT(n_refused, 25);  // what is left changes means and names
}

TEST_P(LayerIndexFileTest, AFailedSaveLeavesTheOldFile) {
  const SyntheticKeys more(2, 20'000, 20, 17);
  auto large = Build("Flat", more.All(), 20);
  EXPECT_TRUE(absl::IsNotFound(index_->Save(folder_ / "absent" / "index")));
  const pid_t child = fork();
  if (child == 0) {
    const rlimit limit{1 << 20, 1 << 20};  // stands for a full disk
    signal(SIGXFSZ, SIG_IGN);
    setrlimit(RLIMIT_FSIZE, &limit);
    _exit(large->Save(path_).ok() ? 1 : 0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(*ReadFile(path_), bytes_);
  EXPECT_EQ(std::distance(std::filesystem::directory_iterator(folder_), {}), 1);
}

}  // namespace
}  // namespace fovea::index
