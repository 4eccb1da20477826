#include "index/faiss_merge.h"

#include <faiss/IndexIVF.h>
#include <faiss/index_factory.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <set>
#include <string>

namespace fovea::index {
namespace {

constexpr int64_t kDim = 20, kKeys = 3000, kLists = 16;
constexpr int64_t kHeads = 3, kQueries = 20, kFound = 40;

// Heads of one norm each, as key_space.h maps keys: the last dimension of a key makes it that.
struct Heads {
  std::vector<std::unique_ptr<faiss::Index>> indexes;
  std::vector<FaissHead> heads;
  std::vector<std::vector<float>> queries;  // [kHeads][kQueries, kDim]

  explicit Heads(const std::string& spec) {
    std::mt19937 random(std::random_device{}());
    std::normal_distribution<float> normal;
    for (int64_t h = 0; h < kHeads; ++h) {
      const float radius = 10.0f + 4.0f * static_cast<float>(h);
      std::vector<float> keys;
      for (int64_t i = 0; i < kKeys; ++i) {
        float norm2 = 0.0f;
        for (int64_t d = 0; d + 1 < kDim; ++d) {
          keys.push_back(normal(random) * (1.0f + 0.3f * static_cast<float>(h)));
          norm2 += keys.back() * keys.back();
        }
        keys.push_back(std::sqrt(std::max(0.0f, radius * radius - norm2)));
      }
      std::vector<float>& asked = queries.emplace_back();
      for (int64_t i = 0; i < kQueries; ++i) {
        float norm2 = 0.0f;
        std::vector<float> query(kDim);
        for (int64_t d = 0; d + 1 < kDim; ++d) {
          query[static_cast<size_t>(d)] = normal(random);
          norm2 += query[static_cast<size_t>(d)] * query[static_cast<size_t>(d)];
        }
        for (const float q : query) asked.push_back(q * radius / std::sqrt(norm2));
      }
      indexes.emplace_back(faiss::index_factory(kDim, spec.c_str()));
      auto* const ivf = dynamic_cast<faiss::IndexIVF*>(indexes.back().get());
      if (ivf != nullptr) ivf->cp.min_points_per_centroid = 1;
      indexes.back()->train(kKeys, keys.data());
      indexes.back()->add(kKeys, keys.data());
      heads.push_back({indexes.back().get(), radius});
    }
  }
};

std::vector<int64_t> Search(const faiss::Index& index, const std::vector<float>& queries,
                            size_t n_probe) {
  faiss::SearchParametersIVF parameters;
  parameters.nprobe = n_probe;
  std::vector<int64_t> labels(kQueries * kFound);
  std::vector<float> distances(labels.size());
  index.search(kQueries, queries.data(), kFound, distances.data(), labels.data(), &parameters);
  return labels;
}

class FaissMergeTest : public testing::TestWithParam<const char*> {};

// One structure finds for a head's queries what the head's own finds, with any number of probes.
TEST_P(FaissMergeTest, FindsWhatTheHeadsFind) {
  const Heads heads(GetParam());
  const MergedHeads merged = MergeHeads(heads.heads);
  ASSERT_NE(merged.index, nullptr);
  EXPECT_EQ(merged.index->d, MergedDim(heads.heads[0].index, kHeads));
  EXPECT_EQ(merged.index->ntotal, kHeads * kKeys);
  const auto dim = static_cast<size_t>(merged.index->d);
  for (size_t h = 0; h < kHeads; ++h) {
    std::vector<float> queries(kQueries * dim);
    for (size_t i = 0; i < kQueries; ++i) {
      std::copy_n(heads.queries[h].data() + i * kDim, kDim, queries.data() + i * dim);
      queries[i * dim + static_cast<size_t>(merged.first_axis) + h] = merged.axis_value;
    }
    for (const size_t n_probe : {size_t{1}, size_t{5}, size_t{kLists}}) {
      SCOPED_TRACE(testing::Message() << "head " << h << ", " << n_probe << " probes");
      const std::vector<int64_t> want = Search(*heads.heads[h].index, heads.queries[h], n_probe);
      const std::vector<int64_t> got = Search(*merged.index, queries, n_probe);
      int64_t n_same = 0, n_wanted = 0;
      for (size_t row = 0; row < kQueries; ++row) {
        const auto begin = static_cast<int64_t>(row * kFound);
        const std::set<int64_t> found(got.begin() + begin, got.begin() + begin + kFound);
        for (int64_t j = begin; j < begin + kFound; ++j) {
          if (want[static_cast<size_t>(j)] < 0) continue;
          ++n_wanted;
          n_same += static_cast<int64_t>(found.count(want[static_cast<size_t>(j)]));
        }
        // No more than the head's lists hold: none of another head's keys.
        EXPECT_EQ(found.count(-1) > 0,
                  std::count(want.begin() + begin, want.begin() + begin + kFound, -1) > 0);
      }
      // Codes of 8 bits were rounded once more.
      const double wanted = std::string(GetParam()).find("SQ8") != std::string::npos ? 0.9 : 0.99;
      EXPECT_GE(static_cast<double>(n_same), wanted * static_cast<double>(n_wanted));
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Specs, FaissMergeTest,
                         testing::Values("IVF16,SQfp16", "IVF16,SQ8", "IVF16,Flat"));

TEST(FaissMergeTest, OtherCodesStayByThemselves) {
  for (const char* const spec : {"IVF16,PQ4", "IVF16,SQ4", "SQ8"}) {
    const Heads heads(spec);
    EXPECT_EQ(MergedDim(heads.heads[0].index, kHeads), 0) << spec;
    EXPECT_EQ(MergeHeads(heads.heads).index, nullptr) << spec;
  }
  // One head needs no other.
  Heads one("IVF16,SQ8");
  EXPECT_EQ(MergedDim(one.heads[0].index, 1), 0);
}

}  // namespace
}  // namespace fovea::index
