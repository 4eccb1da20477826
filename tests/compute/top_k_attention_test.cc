#include "compute/top_k_attention.h"

#include <cstddef>
#include <cstring>

#include "base/float16.h"
#include "compute/rescore.h"
#include "tests/compute/op_test.h"

namespace fovea::compute {
namespace {

constexpr int64_t kDim = 20, kKvHeads = 2, kHeads = 6, kQueries = 5, kGroup = kHeads / kKvHeads;
constexpr int kTopK = 7;

// Entries in blocks of unlike sizes, ids by block · 1000 + token.
template <typename T>
struct Blocks {
  std::vector<int64_t> sizes = {3, 40, 1, 11};
  std::vector<std::vector<T>> numbers;  // [n_kv_heads, n_tokens, head_dim]
  std::vector<EntryBlock> table;

  explicit Blocks(uint32_t seed) {
    for (const int64_t size : sizes) {
      std::vector<T>& block = numbers.emplace_back();
      for (const float x : RandomFloats(static_cast<size_t>(kKvHeads * size * kDim), seed++)) {
        block.emplace_back(x);
      }
    }
    for (size_t b = 0; b < sizes.size(); ++b) table.push_back({numbers[b].data(), sizes[b]});
  }
  const T* At(int64_t id, int64_t kv_head) const {
    const auto block = static_cast<size_t>(id / 1000);
    return numbers[block].data() + (kv_head * sizes[block] + id % 1000) * kDim;
  }
};

EntryPlace PlaceOf(int64_t id) {
  return {static_cast<uint32_t>(id / 1000), static_cast<uint32_t>(id % 1000)};
}

template <typename T>
struct Search {
  Blocks<T> keys{1}, values{50};
  std::vector<float> queries = RandomFloats(kQueries * kHeads * kDim, 99);
  std::vector<TopK> kept = std::vector<TopK>(kKvHeads, TopK(kQueries* kGroup, kTopK));

  // All tokens are candidates, in two segments: blocks 0 and 1, and the rest; some are none. The
  // last query of the last head has no candidates.
  std::vector<int64_t> first, second;
  std::vector<EntryPlace> first_places, second_places;

  absl::Status Find(Device& device) {
    for (int64_t row = 0; row < kQueries * kHeads; ++row) {
      const bool has_none = row == kQueries * kHeads - 1;
      for (int64_t i = 0; i < 45; ++i) {
        const int64_t id = i < 3 ? i : 1000 + i - 3;
        const bool is_none = i >= 43 || has_none || i % 13 == 12;
        first.push_back(is_none ? -1 : id);
        first_places.push_back(is_none ? EntryPlace{77, 77} : PlaceOf(id));
      }
      for (int64_t i = 0; i < 12; ++i) {
        const int64_t id = i < 1 ? 2000 : 3000 + i - 1;
        second.push_back(has_none ? -1 : id - 2000);
        second_places.push_back(PlaceOf(id));
      }
    }
    const Candidates candidates[] = {{0, 45, first, first_places},
                                     {2000, 12, second, second_places}};
    return Rescore(device,
                   {.queries = {queries.data(), {kQueries, kHeads, kDim}},
                    .candidates = candidates,
                    .keys = {keys.table}},
                   kept);
  }
  std::span<const ScoredId> Row(int64_t query, int64_t head) {
    return kept[static_cast<size_t>(head / kGroup)].Sorted(query * kGroup + head % kGroup);
  }
};

template <typename T>
void ExpectKeepsTheBestCandidates() {
  MAKE_DEVICE_OR_SKIP(device, "cpu", 3);
  Search<T> search;
  ASSERT_TRUE(search.Find(*device).ok());
  for (int64_t query = 0; query < kQueries; ++query) {
    for (int64_t head = 0; head < kHeads; ++head) {
      std::vector<ScoredId> all;
      const int64_t row = query * kHeads + head;
      const float* q = search.queries.data() + row * kDim;
      for (int64_t i = 0; i < 57 && row < kQueries * kHeads - 1; ++i) {
        const int64_t id = i < 45 ? search.first[static_cast<size_t>(row * 45 + i)]
                                  : search.second[static_cast<size_t>(row * 12 + i - 45)] + 2000;
        if (id < 0) continue;
        all.push_back({KeyScore(q, search.keys.At(id, head / kGroup), kDim), id});
      }
      std::sort(all.begin(), all.end(),
                [](const ScoredId& a, const ScoredId& b) { return a.score > b.score; });
      if (all.size() > kTopK) all.resize(kTopK);
      const std::span<const ScoredId> kept = search.Row(query, head);
      ASSERT_EQ(kept.size(), all.size());
      for (size_t j = 0; j < all.size(); ++j) {
        EXPECT_EQ(kept[j].id, all[j].id);
        EXPECT_EQ(kept[j].score, all[j].score);
      }
    }
  }
}

TEST(RescoreTest, KeepsTheBestCandidates) { ExpectKeepsTheBestCandidates<BFloat16>(); }

TEST(RescoreTest, KeepsTheBestCandidatesOfFloat32Keys) { ExpectKeepsTheBestCandidates<float>(); }

template <typename T>
void ExpectTheSoftmaxOfWhatWasKept() {
  MAKE_DEVICE_OR_SKIP(device, "cpu", 3);
  Search<T> search;
  ASSERT_TRUE(search.Find(*device).ok());
  std::vector<EntryPlace> places(kQueries * kHeads * kTopK, EntryPlace{77, 77});
  for (int64_t row = 0; row < kQueries * kHeads; ++row) {
    size_t at = static_cast<size_t>(row * kTopK);
    for (const ScoredId& hit : search.Row(row / kHeads, row % kHeads)) {
      places[at++] = PlaceOf(hit.id);
    }
  }
  std::vector<float> output(kQueries * kHeads * kDim, NAN), lse(kQueries * kHeads, NAN);
  const float scale = 0.3f;
  ASSERT_TRUE(TopKAttention(*device, {.kept = search.kept,
                                      .values = {search.values.table},
                                      .places = places,
                                      .scale = scale,
                                      .output = {output.data(), {kQueries, kHeads, kDim}},
                                      .lse = {lse.data(), {kQueries, kHeads}}})
                  .ok());
  std::vector<float> other(lse.size(), 0.7f);
  other[4] = -std::numeric_limits<float>::infinity();
  std::vector<float> weights(places.size(), NAN);
  ASSERT_TRUE(TopKWeights(*device, {.kept = search.kept,
                                    .scale = scale,
                                    .lse = {lse.data(), {kQueries, kHeads}},
                                    .other_lse = {other.data(), {kQueries, kHeads}},
                                    .weights = {weights.data(), {kQueries, kHeads, kTopK}}})
                  .ok());
  for (int64_t row = 0; row < kQueries * kHeads; ++row) {
    const std::span<const ScoredId> kept = search.Row(row / kHeads, row % kHeads);
    double sum = 0.0;
    for (const ScoredId& hit : kept) sum += std::exp(static_cast<double>(hit.score) * scale);
    std::vector<double> want(kDim);
    double largest = 0.0;
    for (const ScoredId& hit : kept) {
      const T* value = search.values.At(hit.id, row % kHeads / kGroup);
      for (int64_t i = 0; i < kDim; ++i) {
        want[static_cast<size_t>(i)] +=
            std::exp(static_cast<double>(hit.score) * scale) / sum * static_cast<float>(value[i]);
        largest = std::max<double>(largest, std::abs(static_cast<float>(value[i])));
      }
    }
    if (kept.empty()) {
      EXPECT_EQ(lse[static_cast<size_t>(row)], -std::numeric_limits<float>::infinity());
    } else {
      EXPECT_NEAR(lse[static_cast<size_t>(row)], std::log(sum), 8 * kEpsilon * (1 + std::log(sum)));
    }
    for (int64_t i = 0; i < kDim; ++i) {
      EXPECT_NEAR(output[static_cast<size_t>(row * kDim + i)], want[static_cast<size_t>(i)],
                  32 * kEpsilon * largest);
    }
    const double total = sum + std::exp(static_cast<double>(other[static_cast<size_t>(row)]));
    for (size_t j = 0; j < kTopK; ++j) {
      const double share =
          j < kept.size() ? std::exp(static_cast<double>(kept[j].score) * scale) / total : 0.0;
      EXPECT_NEAR(weights[static_cast<size_t>(row * kTopK) + j], share, 32 * kEpsilon);
    }
  }
}

TEST(TopKAttentionTest, IsTheSoftmaxOfWhatWasKept) { ExpectTheSoftmaxOfWhatWasKept<BFloat16>(); }

TEST(TopKAttentionTest, IsTheSoftmaxOfFloat32Entries) { ExpectTheSoftmaxOfWhatWasKept<float>(); }

template <typename T>
void ExpectTheSameFromAnyAddress() {
  MAKE_DEVICE_OR_SKIP(device, "cpu", 2);
  Search<T> search;
  ASSERT_TRUE(search.Find(*device).ok());
  std::vector<EntryPlace> places(kQueries * kHeads * kTopK);
  for (int64_t row = 0; row < kQueries * kHeads; ++row) {
    size_t at = static_cast<size_t>(row * kTopK);
    for (const ScoredId& hit : search.Row(row / kHeads, row % kHeads)) {
      places[at++] = PlaceOf(hit.id);
    }
  }
  const auto attend = [&](const std::vector<EntryBlock>& values) {
    std::vector<float> output(kQueries * kHeads * kDim, NAN), lse(kQueries * kHeads, NAN);
    EXPECT_TRUE(TopKAttention(*device, {.kept = search.kept,
                                        .values = {values},
                                        .places = places,
                                        .output = {output.data(), {kQueries, kHeads, kDim}},
                                        .lse = {lse.data(), {kQueries, kHeads}}})
                    .ok());
    return output;
  };
  std::vector<std::vector<std::byte>> moved;
  std::vector<EntryBlock> table;
  for (size_t b = 0; b < search.values.sizes.size(); ++b) {
    const std::vector<T>& numbers = search.values.numbers[b];
    const size_t n_bytes = numbers.size() * sizeof(T);
    std::vector<std::byte>& bytes = moved.emplace_back(n_bytes + 1);
    std::memcpy(bytes.data() + 1, numbers.data(), n_bytes);
    table.push_back(
        {{search.values.table[b].data.type(), bytes.data() + 1}, search.values.table[b].n_tokens});
  }
  EXPECT_EQ(attend(table), attend(search.values.table));
}

TEST(TopKAttentionTest, ValuesLieAtAnyAddress) {
  ExpectTheSameFromAnyAddress<BFloat16>();
  ExpectTheSameFromAnyAddress<float>();
}

TEST(TopKAttentionTest, RefusesShapesThatDoNotFit) {
  MAKE_DEVICE_OR_SKIP(device, "cpu", 1);
  std::vector<TopK> kept(2, TopK(6, 4));  // 2 queries, groups of 3
  std::vector<float> memory(1000);
  const std::vector<EntryPlace> places(2 * 6 * 4);
  TopKAttentionArgs args{.kept = kept,
                         .values = {},
                         .places = places,
                         .output = {memory.data(), {2, 6, 8}},
                         .lse = {memory.data(), {2, 6}}};
  EXPECT_TRUE(TopKAttention(*device, args).ok());
  args.places = args.places.first(10);
  EXPECT_TRUE(absl::IsInvalidArgument(TopKAttention(*device, args)));
  args.places = places;
  args.output = {memory.data(), {3, 6, 8}};
  args.lse = {memory.data(), {3, 6}};
  EXPECT_TRUE(absl::IsInvalidArgument(TopKAttention(*device, args)));
  EXPECT_TRUE(absl::IsInvalidArgument(TopKWeights(
      *device,
      {.kept = kept, .lse = {memory.data(), {2, 6}}, .weights = {memory.data(), {2, 6, 5}}})));
  std::vector<TopK> few(2, TopK(5, 4));
  const absl::Status status =
      Rescore(*device, {.queries = {memory.data(), {2, 6, 8}}, .candidates = {}, .keys = {}}, few);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
}

}  // namespace
}  // namespace fovea::compute
