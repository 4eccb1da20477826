#include "memory/search/sharded_source.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <random>
#include <vector>

#include "compute/attention.h"
#include "memory/resident_entries.h"
#include "memory/search/searcher.h"
#include "memory/upkeep/rebuild.h"
#include "tests/compute/guarded_device.h"
#include "tests/memory/search/same_mass.h"
#include "tests/memory/synthetic_memory.h"

namespace fovea::memory {
namespace {

using ::testing::SizeIs;

constexpr int64_t kPositions = 3;
constexpr int kTestTopK = 6;

struct Partial {
  std::vector<float> output = std::vector<float>(kPositions * kTestHeads * kTestHeadDim);
  std::vector<float> lse = std::vector<float>(kPositions * kTestHeads);
};

class ShardedSourceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    device_ = TestDevice();
    ASSERT_OK_AND_ASSIGN(memory_, CreateSyntheticMemory(folder_ / "m", "exact"));
    for (int i = 0; i < 6; ++i) ASSERT_OK(AddDocument(memory_->store(), {}).status());
    ASSERT_OK(memory_->Publish());
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    queries_.resize(kPositions * kTestHeads * kTestHeadDim);
    for (float& x : queries_) x = 0.4f * normal(random);
    local_lse_.resize(kPositions * kTestHeads);
    for (float& x : local_lse_) x = 1.0f + normal(random);
  }

  model::MemoryQuery Query(int layer) const {
    return {.memory_layer = layer,
            .queries = queries_.data(),
            .local_lse = local_lse_.data(),
            .n_queries = kPositions,
            .n_heads = kTestHeads,
            .n_kv_heads = kTestKvHeads,
            .head_dim = kTestHeadDim,
            .scale = 0.25f};
  }
  // Of the documents with these numbers, counted from 0; none: of all.
  std::unique_ptr<MemorySearcher> Searcher(const std::vector<size_t>& documents, SearchMode mode) {
    SearchOptions options{.mode = mode, .top_k = kTestTopK};
    for (const size_t i : documents) {
      options.scope.documents.push_back(memory_->Current()->documents[i].id);
    }
    auto searcher = MemorySearcher::Create(device_.get(), memory_->Current(), options);
    FOVEA_CHECK(searcher.ok());
    return *std::move(searcher);
  }
  std::unique_ptr<ShardedSource> Sharded(std::vector<model::ShardSource*> shards) {
    auto source = ShardedSource::Create(device_.get(), std::move(shards), kTestTopK);
    FOVEA_CHECK(source.ok());
    return *std::move(source);
  }
  Partial Attend(model::MemorySource& source, int layer) const {
    Partial partial;
    EXPECT_OK(source.Attend(Query(layer), partial.output.data(), partial.lse.data()));
    return partial;
  }
  static void ExpectNear(const std::vector<float>& actual, const std::vector<float>& expected,
                         double tolerance = 1e-6) {
    ASSERT_EQ(actual.size(), expected.size());
    // Sums of floats in another order.
    for (size_t i = 0; i < actual.size(); ++i) {
      EXPECT_NEAR(actual[i], expected[i], tolerance * std::max(1.0f, std::fabs(expected[i]))) << i;
    }
  }

  // Shards on a device with memory of its own, searched as one: what the two phases give on the
  // host, and the same keys with the same shares.
  void ExpectAsOnTheHost(compute::Device& device, double tolerance) {
    ASSERT_OK(Rebuild(*device_, memory_.get(), "Scan8", Progress()).status());
    for (int i = 0; i < 2; ++i) ASSERT_OK(AddDocument(memory_->store(), {}).status());
    ASSERT_OK(memory_->Publish());
    MemoryOptions create;
    create.mode = storage::OpenMode::kCreate;
    ASSERT_OK_AND_ASSIGN(const auto fresh, Memory::Open(folder_ / "fresh", create));
    struct Case {
      SearchMode mode;
      bool in_store = false;  // the values
    };
    for (const auto& [mode, in_store] :
         {Case{SearchMode::kExact}, Case{SearchMode::kApproximate}, Case{SearchMode::kDense},
          Case{SearchMode::kExact, true}, Case{SearchMode::kApproximate, true}}) {
      SCOPED_TRACE(StrCat(static_cast<int>(mode), in_store ? ", values in the store" : ""));
      device.set_entry_limit_bytes(std::nullopt);
      const size_t key_bytes = memory_->Current()->n_tokens * kTestLayers * kTestKvHeads *
                               static_cast<size_t>(kTestHeadDim) * 2;
      memory_->Current()->source->resident().set_pinned_limit_bytes(!in_store ? 2 * key_bytes
                                                                    : mode == SearchMode::kExact
                                                                        ? 0
                                                                        : key_bytes);
      if (in_store) device.set_entry_limit_bytes(key_bytes);
      const auto searchers_on = [&](compute::Device& on) {
        std::vector<std::unique_ptr<MemorySearcher>> searchers;
        for (const auto& documents : std::vector<std::vector<size_t>>{{4, 7}, {}, {0, 2, 5}}) {
          SearchOptions options{.mode = mode, .top_k = kTestTopK};
          for (const size_t i : documents) {
            options.scope.documents.push_back(memory_->Current()->documents[i].id);
          }
          const auto& memory = documents.empty() ? *fresh : *memory_;
          if (mode == SearchMode::kApproximate && !on.is_host_memory()) {
            // Less than the keys of all: the codes are read.
            on.set_entry_limit_bytes(memory.Current()->n_tokens * kTestLayers * kTestKvHeads *
                                         kTestHeadDim * 2 -
                                     (documents.empty() ? 0 : 1));
          }
          auto searcher = MemorySearcher::Create(&on, memory.Current(), options);
          EXPECT_OK(searcher.status());
          searchers.push_back(*std::move(searcher));
        }
        return searchers;
      };
      const auto on_host = searchers_on(*device_);
      const auto on_device = searchers_on(device);
      const auto sharded = [&](compute::Device& on, const auto& searchers) {
        std::vector<model::ShardSource*> shards;
        for (const auto& searcher : searchers) shards.push_back(searcher.get());
        return *ShardedSource::Create(&on, shards, kTestTopK);
      };
      const auto of_host = sharded(*device_, on_host);
      const auto of_device = sharded(device, on_device);
      // The one that is asked is the one that holds nothing.
      const auto of_empty_first = *ShardedSource::Create(
          &device, {on_device[1].get(), on_device[0].get(), on_device[2].get()}, kTestTopK);
      ASSERT_EQ(of_device->place(), model::MemoryPlace::kDevice);
      const auto upload = [&](const std::vector<float>& numbers) {
        return *device.UploadConstant(numbers.data(), numbers.size() * sizeof(float));
      };
      const compute::Buffer queries = upload(queries_);
      const compute::Buffer local_lse = upload(local_lse_);
      const compute::Buffer output = *device.Allocate(queries.size_bytes());
      const compute::Buffer lse = *device.Allocate(local_lse.size_bytes());
      for (int layer = 0; layer < kTestLayers; ++layer) {
        const Partial expected = Attend(*of_host, layer);
        model::MemoryQuery query = Query(layer);
        query.queries = queries.data<float>();
        query.local_lse = local_lse.data<float>();
        ASSERT_OK(of_device->Attend(query, output.data<float>(), lse.data<float>()));
        Partial actual;
        ASSERT_OK(
            device.CopyToHost(output.data<void>(), output.size_bytes(), actual.output.data()));
        ASSERT_OK(device.CopyToHost(lse.data<void>(), lse.size_bytes(), actual.lse.data()));
        ExpectNear(actual.output, expected.output, tolerance);
        ExpectNear(actual.lse, expected.lse, tolerance);
        ASSERT_OK(of_empty_first->Attend(query, output.data<float>(), lse.data<float>()));
        Partial again;
        ASSERT_OK(device.CopyToHost(output.data<void>(), output.size_bytes(), again.output.data()));
        EXPECT_EQ(again.output, actual.output);
      }
      // Of the first source alone.
      for (const auto& searcher : on_device) searcher->ResetMass();
      for (int layer = 0; layer < kTestLayers; ++layer) {
        model::MemoryQuery query = Query(layer);
        query.queries = queries.data<float>();
        query.local_lse = local_lse.data<float>();
        ASSERT_OK(of_device->Attend(query, output.data<float>(), lse.data<float>()));
      }
      if (in_store) {
        const auto plan = PlanResidency(*memory_->Current(), mode == SearchMode::kApproximate,
                                        memory_->Current()->source->resident().Limits(device));
        ASSERT_OK(plan.status());
        EXPECT_EQ(plan->values, ValuePlace::kStore);
      }
      for (size_t shard = 0; shard < on_host.size(); ++shard) {
        SCOPED_TRACE(StrCat("shard ", shard));
        EXPECT_EQ(on_device[shard]->n_rows(), on_host[shard]->n_rows());
        std::vector<SlotMass> want = on_host[shard]->Mass();
        std::sort(want.begin(), want.end(),
                  [](const SlotMass& a, const SlotMass& b) { return a.slot < b.slot; });
        EXPECT_EQ(want.empty(), shard == 1);
        ExpectSameMass(on_device[shard]->Mass(), want, static_cast<float>(10 * tolerance));
      }
    }
  }

  // Audits of shards on a device, against that of one searcher on the host that sees what they see.
  void ExpectAuditOfAll(compute::Device& device, double tolerance) {
    const auto make = [&](compute::Device& on, const std::vector<size_t>& documents) {
      SearchOptions options{.mode = SearchMode::kExact, .top_k = kTestTopK, .audit = true};
      for (const size_t i : documents) {
        options.scope.documents.push_back(memory_->Current()->documents[i].id);
      }
      auto searcher = MemorySearcher::Create(&on, memory_->Current(), options);
      EXPECT_OK(searcher.status());
      return *std::move(searcher);
    };
    const auto whole = make(*device_, {0, 2, 4, 5});
    const auto a = make(device, {4});
    const auto b = make(device, {0, 2, 5});
    ASSERT_OK_AND_ASSIGN(const auto source,
                         ShardedSource::Create(&device, {a.get(), b.get()}, kTestTopK));
    const compute::Buffer queries =
        *device.UploadConstant(queries_.data(), queries_.size() * sizeof(float));
    const compute::Buffer output = *device.Allocate(queries.size_bytes());
    const compute::Buffer lse = *device.Allocate(local_lse_.size() * sizeof(float));
    for (int layer = 0; layer < kTestLayers; ++layer) {
      Attend(*whole, layer);
      model::MemoryQuery query = Query(layer);
      query.queries = queries.data<float>();
      query.local_lse = nullptr;
      ASSERT_OK(source->Attend(query, output.data<float>(), lse.data<float>()));
    }
    const AuditResult want = whole->Audit();
    for (const auto* const shard : {a.get(), b.get()}) {
      const AuditResult got = shard->Audit();
      EXPECT_EQ(got.n_confident, want.n_confident);
      for (size_t layer = 0; layer < size_t{kTestLayers}; ++layer) {
        EXPECT_LT(want.captured_mass[layer], 0.999);
        EXPECT_NEAR(got.captured_mass[layer], want.captured_mass[layer], 10 * tolerance);
        EXPECT_NEAR(got.needle_recall[layer], want.needle_recall[layer], 10 * tolerance);
      }
    }
    SearchOptions unaudited{.mode = SearchMode::kExact, .top_k = kTestTopK};
    ASSERT_OK_AND_ASSIGN(const auto c,
                         MemorySearcher::Create(&device, memory_->Current(), unaudited));
    ASSERT_OK_AND_ASSIGN(const auto mixed,
                         ShardedSource::Create(&device, {a.get(), c.get()}, kTestTopK));
    model::MemoryQuery query = Query(0);
    query.queries = queries.data<float>();
    query.local_lse = nullptr;
    EXPECT_TRUE(
        absl::IsInvalidArgument(mixed->Attend(query, output.data<float>(), lse.data<float>())));
  }

  TemporaryFolder folder_{storage::FastTemporaryRoot()};
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<Memory> memory_;
  std::vector<float> queries_;
  std::vector<float> local_lse_;
};

TEST_F(ShardedSourceTest, ShardsAreAsGoodAsOneSourceWithEverything) {
  for (const SearchMode mode : {SearchMode::kExact, SearchMode::kDense}) {
    SCOPED_TRACE(static_cast<int>(mode));
    const auto whole = Searcher({}, mode);
    const auto a = Searcher({4}, mode);
    const auto b = Searcher({0, 2, 5}, mode);
    const auto c = Searcher({1, 3}, mode);
    const auto sharded = Sharded({a.get(), b.get(), c.get()});
    for (int layer = 0; layer < kTestLayers; ++layer) {
      const Partial expected = Attend(*whole, layer);
      const Partial actual = Attend(*sharded, layer);
      ExpectNear(actual.output, expected.output);
      ExpectNear(actual.lse, expected.lse);
    }
    // The same keys were kept, with the same shares of the whole softmax.
    std::map<Slot, std::vector<float>> mass;
    for (const MemorySearcher* shard : {a.get(), b.get(), c.get()}) {
      EXPECT_EQ(shard->n_rows(), whole->n_rows());
      for (const SlotMass& slot : shard->Mass()) mass[slot.slot] = slot.mass;
    }
    const std::vector<SlotMass> expected = whole->Mass();
    ASSERT_THAT(mass, SizeIs(expected.size()));
    for (const SlotMass& slot : expected) {
      ASSERT_TRUE(mass.contains(slot.slot)) << slot.slot;
      ExpectNear(mass[slot.slot], slot.mass);
    }
  }
}

TEST_F(ShardedSourceTest, ShardsOnADeviceAreAsGoodAsOnTheHost) {
  compute::GuardedDevice guarded(2);
  ExpectAsOnTheHost(guarded, 1e-6);
}

TEST_F(ShardedSourceTest, AuditsOfShardsOnADeviceAreOfTheirSearchInOne) {
  compute::GuardedDevice guarded(2);
  ExpectAuditOfAll(guarded, 1e-6);
}

TEST_F(ShardedSourceTest, AuditsOfShardsOnTheHostAreRefused) {
  SearchOptions options{.mode = SearchMode::kExact, .top_k = kTestTopK, .audit = true};
  ASSERT_OK_AND_ASSIGN(const auto shard,
                       MemorySearcher::Create(device_.get(), memory_->Current(), options));
  Partial partial;
  EXPECT_TRUE(absl::IsUnimplemented(
      Sharded({shard.get()})->Attend(Query(0), partial.output.data(), partial.lse.data())));
}

TEST_F(ShardedSourceTest, ShardsOnAGpu) {
  auto gpu = compute::Device::Create("cuda", 2);
  if (absl::IsUnimplemented(gpu.status()) || absl::IsUnavailable(gpu.status())) {
    GTEST_SKIP() << std::string(gpu.status().message());
  }
  ASSERT_OK(gpu.status());
  ExpectAsOnTheHost(**gpu, 1e-4);
  (*gpu)->set_entry_limit_bytes(std::nullopt);
  ExpectAuditOfAll(**gpu, 1e-4);
}

// What the two phases are for.
TEST_F(ShardedSourceTest, PartialsOfEachShardsOwnBestKeysWouldBeAnotherModel) {
  const auto whole = Searcher({}, SearchMode::kExact);
  const Partial expected = Attend(*whole, 0);
  Partial merged;
  std::fill(merged.lse.begin(), merged.lse.end(), -INFINITY);
  for (const auto& documents : std::vector<std::vector<size_t>>{{0, 1, 2}, {3, 4, 5}}) {
    const auto shard = Searcher(documents, SearchMode::kExact);
    const Partial part = Attend(*shard, 0);
    ASSERT_OK(compute::MergePartials(
        *device_, {.output = {merged.output.data(), {kPositions, kTestHeads, kTestHeadDim}},
                   .lse = {merged.lse.data(), {kPositions, kTestHeads}},
                   .other_output = {part.output.data(), {kPositions, kTestHeads, kTestHeadDim}},
                   .other_lse = {part.lse.data(), {kPositions, kTestHeads}}}));
  }
  for (size_t i = 0; i < merged.lse.size(); ++i) EXPECT_GT(merged.lse[i], expected.lse[i] + 0.01f);
}

TEST_F(ShardedSourceTest, AShardThatHoldsNothingChangesNothing) {
  MemoryOptions options;
  options.mode = storage::OpenMode::kCreate;
  // One that nothing was ever ingested into, and one whose documents are gone.
  ASSERT_OK_AND_ASSIGN(const auto fresh, Memory::Open(folder_ / "fresh", options));
  ASSERT_OK_AND_ASSIGN(const auto emptied, CreateSyntheticMemory(folder_ / "emptied", "exact"));
  std::vector<std::unique_ptr<MemorySearcher>> empty;
  for (const auto& memory : {fresh.get(), emptied.get()}) {
    ASSERT_OK_AND_ASSIGN(auto searcher, MemorySearcher::Create(device_.get(), memory->Current(),
                                                               {.top_k = kTestTopK}));
    empty.push_back(std::move(searcher));
  }
  const auto whole = Searcher({}, SearchMode::kExact);
  const auto shard = Searcher({}, SearchMode::kExact);
  const auto sharded = Sharded({empty[0].get(), shard.get(), empty[1].get()});
  const Partial expected = Attend(*whole, 1);
  const Partial actual = Attend(*sharded, 1);
  EXPECT_EQ(actual.output, expected.output);
  EXPECT_EQ(actual.lse, expected.lse);

  const Partial nothing = Attend(*Sharded({empty[0].get(), empty[1].get()}), 0);
  for (const float x : nothing.output) EXPECT_EQ(x, 0.0f);
  for (const float x : nothing.lse) EXPECT_EQ(x, -INFINITY);
}

TEST_F(ShardedSourceTest, OfEqualKeysTheEarlierShardsStays) {
  // The same documents twice: each key has its equal in the other shard. Of five, three stay in the
  // first one and two in the second.
  const auto a = Searcher({}, SearchMode::kExact);
  const auto b = Searcher({}, SearchMode::kExact);
  ASSERT_OK_AND_ASSIGN(const auto sharded,
                       ShardedSource::Create(device_.get(), {a.get(), b.get()}, 5));
  Attend(*sharded, 0);
  std::map<Slot, float> first;
  for (const SlotMass& slot : a->Mass()) first[slot.slot] = slot.mass[0];
  const std::vector<SlotMass> second = b->Mass();
  EXPECT_LT(second.size(), first.size());
  for (const SlotMass& slot : second) {
    ASSERT_TRUE(first.contains(slot.slot)) << slot.slot;
    EXPECT_LE(slot.mass[0], first[slot.slot] + 1e-6f);
  }
}

TEST_F(ShardedSourceTest, ShardsMustBeThereAndInOnePlace) {
  EXPECT_TRUE(absl::IsInvalidArgument(ShardedSource::Create(device_.get(), {}, 4).status()));
  class Elsewhere final : public model::ShardSource {
   public:
    absl::Status Attend(const model::MemoryQuery&, float*, float*) override {
      return absl::OkStatus();
    }
    absl::StatusOr<model::MemoryHits> FindTop(const model::MemoryQuery&, int) override {
      return model::MemoryHits();
    }
    absl::Status AttendTo(const model::MemoryQuery&, model::MemoryHits*, float*, float*) override {
      return absl::OkStatus();
    }
    absl::Status AddMass(const model::MemoryQuery&, model::MemoryHits*, const float*) override {
      return absl::OkStatus();
    }
    model::MemoryPlace place() const override { return model::MemoryPlace::kDevice; }
  };
  Elsewhere elsewhere;
  const auto here = Searcher({}, SearchMode::kExact);
  EXPECT_EQ(here->place(), model::MemoryPlace::kHost);
  EXPECT_TRUE(absl::IsInvalidArgument(
      ShardedSource::Create(device_.get(), {here.get(), &elsewhere}, 4).status()));
  EXPECT_TRUE(
      absl::IsInvalidArgument(ShardedSource::Create(device_.get(), {here.get()}, 0).status()));
}

}  // namespace
}  // namespace fovea::memory
