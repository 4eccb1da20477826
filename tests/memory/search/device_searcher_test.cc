#include "memory/search/device_searcher.h"

#include <unistd.h>

#include <random>

#include "memory/residency_plan.h"
#include "memory/resident_entries.h"
#include "memory/search/searcher.h"
#include "memory/statistics.h"
#include "memory/upkeep/rebuild.h"
#include "tests/compute/guarded_device.h"
#include "tests/memory/search/same_mass.h"
#include "tests/memory/synthetic_memory.h"

namespace fovea::memory {
namespace {

constexpr int64_t kPositions = 3;
constexpr size_t kTokenBytes = kTestLayers * kTestKvHeads * kTestHeadDim * 2;  // keys or values

// A memory of three documents of 10 windows, all but the last one in a segment with codes.
class DeviceSearcherTest : public testing::Test {
 protected:
  void SetUp() override {
    device_ = TestDevice();
    auto memory = CreateSyntheticMemory(folder_.path() / "memory", "Scan8");
    ASSERT_TRUE(memory.ok()) << memory.status();
    memory_ = *std::move(memory);
    Add();
    Add();
    const auto rebuilt = Rebuild(*device_, memory_.get(), "Scan8", Progress());
    ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
    Add();
    ASSERT_EQ(memory_->Current()->segments.size(), 1u);
    ASSERT_EQ(memory_->Current()->segments[0]->layers.size(), size_t{kTestLayers});
    std::mt19937 random(7);
    std::normal_distribution<float> normal;
    queries_.resize(kPositions * kTestHeads * kTestHeadDim);
    for (float& q : queries_) q = normal(random);
  }
  void Add() {
    const auto document = AddDocument(memory_->store(), {.n_windows = 10});
    ASSERT_TRUE(document.ok()) << document.status();
    documents_.push_back(*document);
    ASSERT_TRUE(memory_->Publish().ok());
  }
  int64_t n_tokens() const { return static_cast<int64_t>(memory_->Current()->n_tokens); }
  size_t HalfBytes() const { return static_cast<size_t>(n_tokens()) * kTokenBytes; }
  absl::StatusOr<ResidencyPlan> Plan(bool is_approximate, size_t device_bytes,
                                     size_t pinned_bytes = size_t{1} << 40) {
    return PlanResidency(
        *memory_->Current(), is_approximate,
        {.device_bytes = device_bytes, .pinned_bytes = pinned_bytes, .is_given = true});
  }
  model::MemoryQuery Query(int layer, const float* queries) const {
    model::MemoryQuery query;
    query.memory_layer = layer;
    query.queries = queries;
    query.n_queries = kPositions;
    query.n_heads = kTestHeads;
    query.n_kv_heads = kTestKvHeads;
    query.head_dim = kTestHeadDim;
    query.scale = 0.25f;
    return query;
  }
  // Values stay in the store where they do not fit the device: pinned memory has this room.
  void LimitPinned(size_t size_bytes) {
    memory_->Current()->source->resident().set_pinned_limit_bytes(size_bytes);
  }
  // What a searcher on the guarded device says, against an exact search on the host.
  void ExpectExact(compute::Device& guarded, const SearchOptions& options,
                   double tolerance = 1e-5) {
    auto on_device = MemorySearcher::Create(&guarded, memory_->Current(), options);
    ASSERT_TRUE(on_device.ok()) << on_device.status();
    ASSERT_EQ((*on_device)->place(), model::MemoryPlace::kDevice);
    SearchOptions exact = options;
    exact.mode = SearchMode::kExact;
    auto on_host = MemorySearcher::Create(device_.get(), memory_->Current(), exact);
    ASSERT_TRUE(on_host.ok()) << on_host.status();
    const size_t n = queries_.size() * sizeof(float);
    const compute::Buffer queries = *guarded.UploadConstant(queries_.data(), n);
    const compute::Buffer output = *guarded.Allocate(n);
    const compute::Buffer lse = *guarded.Allocate(kPositions * kTestHeads * sizeof(float));
    for (int layer = 0; layer < kTestLayers; ++layer) {
      std::vector<float> want(queries_.size()), got(queries_.size());
      std::vector<float> want_lse(kPositions * kTestHeads), got_lse(want_lse.size());
      ASSERT_TRUE(
          (*on_host)->Attend(Query(layer, queries_.data()), want.data(), want_lse.data()).ok());
      const absl::Status status = (*on_device)
                                      ->Attend(Query(layer, queries.data<float>()),
                                               output.data<float>(), lse.data<float>());
      ASSERT_TRUE(status.ok()) << status;
      ASSERT_TRUE(guarded.CopyToHost(output.data<void>(), n, got.data()).ok());
      ASSERT_TRUE(guarded.CopyToHost(lse.data<void>(), lse.size_bytes(), got_lse.data()).ok());
      for (size_t i = 0; i < want.size(); ++i) ASSERT_NEAR(got[i], want[i], tolerance);
      for (size_t i = 0; i < want_lse.size(); ++i) ASSERT_NEAR(got_lse[i], want_lse[i], tolerance);
    }
    ExpectSameMass((*on_device)->Mass(), (*on_host)->Mass());
  }
  static model::EncodedWindow SessionWindow() {
    model::EncodedWindow window{.n_tokens = 20, .keys = {}, .values = {}, .queries = {}};
    std::mt19937 random(5);
    std::normal_distribution<float> normal(0.0f, 2.0f);
    for (int layer = 0; layer < kTestLayers; ++layer) {
      for (auto* half : {&window.keys, &window.values}) {
        std::vector<float> numbers(static_cast<size_t>(window.n_tokens * kTestKvHeads) *
                                   kTestHeadDim);
        for (float& x : numbers) x = normal(random);
        EntryVector& entries = half->emplace_back(EntryType::kBFloat16, numbers.size());
        entries.Set(0, numbers.data(), numbers.size());
      }
    }
    return window;
  }
  // Six questions of one or more positions: two of all, two of one document, one with a window of
  // its own, one of all. Outputs, log-sum-exps and shares are those of each by itself. Returns how
  // much less the device was asked for.
  template <typename CountOps>
  int ExpectTogetherIsAsAlone(compute::Device& device, SearchMode mode, CountOps count_ops) {
    const std::vector<int64_t> n_queries = {1, 2, 1, 3, 1, 1};
    constexpr int64_t kRows = 9;  // of all
    constexpr auto kWidth = static_cast<size_t>(kTestHeads * kTestHeadDim);
    std::vector<std::unique_ptr<MemorySearcher>> together, alone;
    for (auto* searchers : {&together, &alone}) {
      for (size_t i = 0; i < n_queries.size(); ++i) {
        SearchOptions options{.mode = mode, .top_k = 5};
        if (i == 2 || i == 3) options.scope.documents = {documents_[1].id};
        auto searcher = MemorySearcher::Create(&device, memory_->Current(), options);
        EXPECT_TRUE(searcher.ok()) << searcher.status();
        if (i == 4) (*searcher)->AddSessionWindow(SessionWindow());
        searchers->push_back(*std::move(searcher));
      }
    }
    std::mt19937 random(17);
    std::normal_distribution<float> normal;
    std::vector<float> numbers(kRows * kWidth);
    for (float& x : numbers) x = 2.0f * normal(random);
    std::vector<float> local(kRows * kTestHeads);
    for (float& x : local) x = normal(random);
    const auto upload = [&](const std::vector<float>& from) {
      return *device.UploadConstant(from.data(), from.size() * sizeof(float));
    };
    const compute::Buffer queries = upload(numbers);
    const compute::Buffer local_lse = upload(local);
    const compute::Buffer output = *device.Allocate(numbers.size() * sizeof(float));
    const compute::Buffer lse = *device.Allocate(local.size() * sizeof(float));
    const auto results = [&] {
      std::vector<float> all(numbers.size() + local.size());
      EXPECT_TRUE(device.CopyToHost(output.data<void>(), output.size_bytes(), all.data()).ok());
      EXPECT_TRUE(
          device.CopyToHost(lse.data<void>(), lse.size_bytes(), all.data() + numbers.size()).ok());
      return all;
    };
    int n_fewer = 0;
    for (int layer = 0; layer < kTestLayers; ++layer) {
      const auto requests_of = [&](const auto& searchers) {
        std::vector<model::MemoryRequest> requests;
        int64_t row = 0;
        for (size_t i = 0; i < n_queries.size(); ++i) {
          const auto at = static_cast<size_t>(row);
          model::MemoryQuery query = Query(layer, queries.data<float>() + at * kWidth);
          query.n_queries = n_queries[i];
          query.local_lse = local_lse.data<float>() + at * kTestHeads;
          requests.push_back({.memory = searchers[i].get(),
                              .query = query,
                              .output = output.data<float>() + at * kWidth,
                              .lse = lse.data<float>() + at * kTestHeads});
          row += n_queries[i];
        }
        EXPECT_EQ(row, kRows);
        return requests;
      };
      // What a first call alone does, uploading windows of its own, is done.
      for (const auto* searchers : {&together, &alone}) {
        const model::MemoryRequest own = requests_of(*searchers)[4];
        EXPECT_TRUE(own.memory->Attend(own.query, own.output, own.lse).ok());
      }
      const auto clear = [&] {
        EXPECT_TRUE(device.Fill(NAN, kRows * kWidth, output.data<float>()).ok());
        EXPECT_TRUE(device.Fill(NAN, kRows * kTestHeads, lse.data<float>()).ok());
      };
      clear();
      const int begin = count_ops();
      for (const model::MemoryRequest& request : requests_of(alone)) {
        const absl::Status status =
            request.memory->Attend(request.query, request.output, request.lse);
        EXPECT_TRUE(status.ok()) << status;
      }
      const int middle = count_ops();
      const std::vector<float> want = results();
      clear();
      const int before = count_ops();
      std::vector<model::MemoryRequest> requests = requests_of(together);
      requests[0].memory->AttendTogether(requests);
      n_fewer += middle - begin - (count_ops() - before);
      for (const auto& request : requests) EXPECT_TRUE(request.status.ok()) << request.status;
      const std::vector<float> got = results();
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_EQ(got[i], want[i]) << i;
        if (got[i] != want[i]) break;
      }
    }
    for (size_t i = 0; i < n_queries.size(); ++i) {
      EXPECT_EQ(together[i]->n_rows(), alone[i]->n_rows());
      EXPECT_FALSE(alone[i]->Mass().empty());
      ExpectSameMass(together[i]->Mass(), alone[i]->Mass(), 0.0f);
    }
    return n_fewer;
  }
  // Everything that a searcher says of three positions, with a conversation's window and without
  // one, of all documents and of one.
  std::vector<float> Answers(compute::Device& device, SearchMode mode, ValuePlace* values) {
    const auto view = memory_->Current();
    const auto plan = PlanResidency(*view, mode == SearchMode::kApproximate,
                                    view->source->resident().Limits(device));
    EXPECT_TRUE(plan.ok()) << plan.status();
    *values = plan->values;
    std::vector<float> all;
    const size_t n = queries_.size() * sizeof(float);
    const compute::Buffer queries = *device.UploadConstant(queries_.data(), n);
    const compute::Buffer output = *device.Allocate(n);
    const compute::Buffer lse = *device.Allocate(kPositions * kTestHeads * sizeof(float));
    for (const bool restricted : {false, true}) {
      for (const bool has_session : {false, true}) {
        // 700: more than one document has.
        for (const int top_k : {5, 700}) {
          SearchOptions options{.mode = mode, .top_k = top_k};
          if (restricted) options.scope.documents = {documents_[1].id};
          auto searcher = MemorySearcher::Create(&device, view, options);
          EXPECT_TRUE(searcher.ok()) << searcher.status();
          EXPECT_EQ((*searcher)->place(), model::MemoryPlace::kDevice);
          if (has_session) (*searcher)->AddSessionWindow(SessionWindow());
          for (int layer = 0; layer < kTestLayers; ++layer) {
            const absl::Status status = (*searcher)->Attend(
                Query(layer, queries.data<float>()), output.data<float>(), lse.data<float>());
            EXPECT_TRUE(status.ok()) << status;
            const size_t at = all.size();
            all.resize(at + queries_.size() + kPositions * kTestHeads);
            EXPECT_TRUE(device.CopyToHost(output.data<void>(), n, all.data() + at).ok());
            EXPECT_TRUE(device
                            .CopyToHost(lse.data<void>(), lse.size_bytes(),
                                        all.data() + at + queries_.size())
                            .ok());
          }
          for (const SlotMass& mass : (*searcher)->Mass()) {
            all.push_back(static_cast<float>(mass.slot));
            all.insert(all.end(), mass.mass.begin(), mass.mass.end());
          }
        }
      }
    }
    return all;
  }
  template <typename MakeDevice>
  void ExpectStoredIsAsResident(MakeDevice make_device) {
    for (const SearchMode mode : {SearchMode::kExact, SearchMode::kApproximate}) {
      SCOPED_TRACE(mode == SearchMode::kExact ? "keys" : "codes");
      const bool by_codes = mode == SearchMode::kApproximate;
      std::vector<float> want;
      for (const bool in_store : {false, true}) {
        const std::unique_ptr<compute::Device> device = make_device();
        device->set_entry_limit_bytes(HalfBytes() - (by_codes ? 1 : 0));
        LimitPinned(!in_store ? 4 * HalfBytes() : by_codes ? HalfBytes() : 0);
        ValuePlace values;
        const std::vector<float> got = Answers(*device, mode, &values);
        EXPECT_EQ(values, in_store ? ValuePlace::kStore : ValuePlace::kPinned);
        if (in_store) {
          EXPECT_EQ(got, want);
        }
        want = got;
      }
    }
  }
  const void* KeysOfSlab(compute::Device& device, bool is_approximate, size_t slab) {
    const auto view = memory_->Current();
    const auto entries = view->source->resident().Get(device, *view, is_approximate, Progress());
    EXPECT_TRUE(entries.ok()) << entries.status();
    return (*entries)->Parts(0, nullptr)[slab].entries.keys.data();
  }

  TemporaryFolder folder_;
  std::unique_ptr<compute::Device> device_;
  std::unique_ptr<Memory> memory_;
  std::vector<DocumentRecord> documents_;
  std::vector<float> queries_;
};

TEST_F(DeviceSearcherTest, WhatFitsDecidesWhatLiesWhere) {
  // Codes of 8 bits of the first two documents: 16 bytes and a factor of 2 a token and head.
  const auto coded_tokens = static_cast<size_t>(n_tokens() * 2 / 3);
  const size_t code_bytes = coded_tokens * kTestLayers * kTestKvHeads * (kTestHeadDim + 2);
  const size_t tail_bytes = HalfBytes() / 3;
  const auto few = Plan(true, 2 * HalfBytes());
  ASSERT_TRUE(few.ok()) << few.status();
  EXPECT_FALSE(few->uses_codes);
  EXPECT_EQ(few->DeviceBytes(), 2 * HalfBytes());
  EXPECT_EQ(few->PinnedBytes(), 0u);
  const auto keys = Plan(true, 2 * HalfBytes() - 1);
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_FALSE(keys->uses_codes);
  EXPECT_EQ(keys->DeviceBytes(), HalfBytes());
  EXPECT_EQ(keys->PinnedBytes(), HalfBytes());
  const auto codes = Plan(true, HalfBytes() - 1);
  ASSERT_TRUE(codes.ok()) << codes.status();
  EXPECT_TRUE(codes->uses_codes);
  EXPECT_EQ(codes->DeviceBytes(), code_bytes + tail_bytes);
  EXPECT_EQ(codes->PinnedBytes(), 2 * HalfBytes() - tail_bytes);
  ASSERT_EQ(codes->slabs.size(), 2u);
  EXPECT_EQ(codes->slabs[0].bits, std::vector<int>({8, 8}));
  EXPECT_EQ(codes->slabs[1].bits, std::vector<int>({0, 0}));
}

TEST_F(DeviceSearcherTest, WhatDoesNotFitSaysWhatToDo) {
  const auto exact = Plan(false, HalfBytes() - 1);
  EXPECT_TRUE(absl::IsResourceExhausted(exact.status())) << exact.status();
  for (const char* const text :
       {"1920 tokens", "--gpu-memory", "--mode approximate", "--device cuda:N", "--device cpu"}) {
    EXPECT_THAT(std::string(exact.status().message()), testing::HasSubstr(text));
  }
  const auto approximate = Plan(true, 1000);
  EXPECT_TRUE(absl::IsResourceExhausted(approximate.status())) << approximate.status();
  EXPECT_THAT(std::string(approximate.status().message()),
              testing::Not(testing::HasSubstr("--mode approximate")));
  // Nor where the host has no room for the keys.
  const auto no_keys = Plan(true, HalfBytes() / 2, HalfBytes() / 2);
  EXPECT_TRUE(absl::IsResourceExhausted(no_keys.status())) << no_keys.status();
  EXPECT_THAT(std::string(no_keys.status().message()), testing::HasSubstr("of the host's memory"));
}

// Where the host has no room for them either, values stay in the store.
TEST_F(DeviceSearcherTest, ValuesComeLast) {
  const size_t tail_bytes = HalfBytes() / 3;
  const size_t coded_bytes = HalfBytes() - tail_bytes;
  struct Case {
    bool is_approximate;
    size_t device_bytes, pinned_bytes;
    bool uses_codes, has_pinned_keys;
    ValuePlace values;
  };
  const size_t codes = Plan(true, HalfBytes() - 1)->code_bytes;
  for (const Case& c : {
           Case{false, 2 * HalfBytes(), 0, false, false, ValuePlace::kDevice},
           Case{false, HalfBytes(), HalfBytes(), false, false, ValuePlace::kPinned},
           Case{false, HalfBytes(), HalfBytes() - 1, false, false, ValuePlace::kStore},
           Case{true, HalfBytes(), HalfBytes() - 1, false, false, ValuePlace::kStore},
           Case{true, HalfBytes() - 1, coded_bytes + HalfBytes(), true, true, ValuePlace::kPinned},
           Case{true, HalfBytes() - 1, coded_bytes, true, true, ValuePlace::kStore},
       }) {
    const auto plan = Plan(c.is_approximate, c.device_bytes, c.pinned_bytes);
    ASSERT_TRUE(plan.ok()) << plan.status();
    EXPECT_EQ(plan->uses_codes, c.uses_codes) << c.device_bytes << ' ' << c.pinned_bytes;
    EXPECT_EQ(plan->has_pinned_keys, c.has_pinned_keys) << c.device_bytes << ' ' << c.pinned_bytes;
    EXPECT_EQ(plan->values, c.values) << c.device_bytes << ' ' << c.pinned_bytes;
  }
  const auto least = Plan(true, codes + tail_bytes, coded_bytes);
  ASSERT_TRUE(least.ok()) << least.status();
  EXPECT_EQ(least->DeviceBytes(), codes + tail_bytes);
  EXPECT_EQ(least->PinnedBytes(), coded_bytes);
  EXPECT_TRUE(absl::IsResourceExhausted(Plan(true, codes + tail_bytes - 1, coded_bytes).status()));
}

TEST_F(DeviceSearcherTest, SearchesByKeysAndByCodesFindTheSame) {
  for (const size_t limit : {2 * HalfBytes(), HalfBytes(), HalfBytes() - 1}) {
    for (const bool restricted : {false, true}) {
      SCOPED_TRACE(StrCat(limit, " bytes", restricted ? ", one document" : ""));
      compute::GuardedDevice guarded(2);
      guarded.set_entry_limit_bytes(limit);
      SearchOptions options{.mode = SearchMode::kApproximate, .top_k = 5};
      if (restricted) options.scope.documents = {documents_[1].id};
      ExpectExact(guarded, options);
    }
  }
}

// The same keys and the same sums as with values that the device reads itself: the same bits.
TEST_F(DeviceSearcherTest, ValuesInTheStoreGiveTheBitsOfThoseInMemory) {
  ExpectStoredIsAsResident([] { return std::make_unique<compute::GuardedDevice>(2); });
}

TEST_F(DeviceSearcherTest, ValuesInTheStoreOnAGpu) {
  auto gpu = compute::Device::Create("cuda", 2);
  if (absl::IsUnimplemented(gpu.status()) || absl::IsUnavailable(gpu.status())) {
    GTEST_SKIP() << std::string(gpu.status().message());
  }
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  ExpectStoredIsAsResident([&] { return *(*gpu)->CreateAnother(2); });
}

TEST_F(DeviceSearcherTest, StepsWithValuesInTheStoreAreNotRecorded) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(HalfBytes());
  LimitPinned(0);
  const SearchOptions options{.mode = SearchMode::kExact, .top_k = 5};
  uint64_t recording_id = 7;
  auto searcher = MemorySearcher::Create(&guarded, memory_->Current(), options);
  ASSERT_TRUE(searcher.ok()) << searcher.status();
  ASSERT_TRUE((*searcher)->BeginStep(&recording_id).ok());
  EXPECT_EQ(recording_id, 0u);
  ExpectExact(guarded, options);
}

TEST_F(DeviceSearcherTest, QuestionsAskedTogetherShareAReadWithValuesInTheStoreToo) {
  for (const SearchMode mode : {SearchMode::kExact, SearchMode::kApproximate}) {
    compute::GuardedDevice guarded(2);
    guarded.set_entry_limit_bytes(HalfBytes() - (mode == SearchMode::kExact ? 0 : 1));
    LimitPinned(mode == SearchMode::kExact ? 0 : HalfBytes());
    EXPECT_GT(ExpectTogetherIsAsAlone(guarded, mode, [&] { return guarded.n_ops(); }),
              2 * 3 * kTestLayers);
  }
}

// What no longer fits is loaded again without values, what was loaded so is not served to those who
// read all values.
TEST_F(DeviceSearcherTest, WhereValuesLieIsDecidedAnew) {
  compute::GuardedDevice guarded(2);
  const SearchOptions exact{.mode = SearchMode::kExact, .top_k = 5};
  const SearchOptions dense{.mode = SearchMode::kDense, .top_k = 5};
  LimitPinned(0);
  guarded.set_entry_limit_bytes(HalfBytes());
  ExpectExact(guarded, exact);
  const auto refused = MemorySearcher::Create(&guarded, memory_->Current(), dense);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  EXPECT_THAT(std::string(refused.status().message()),
              testing::HasSubstr("dense attention reads all keys and values"));
  guarded.set_entry_limit_bytes(4 * HalfBytes());
  Add();
  const auto searcher = MemorySearcher::Create(&guarded, memory_->Current(), dense);
  ASSERT_TRUE(searcher.ok()) << searcher.status();
  EXPECT_EQ((*searcher)->place(), model::MemoryPlace::kDevice);
  guarded.set_entry_limit_bytes(HalfBytes());
  Add();
  guarded.set_entry_limit_bytes(HalfBytes());
  ExpectExact(guarded, exact);
}

// Attention to all values is the device's own memory's: what was loaded with pinned values, for a
// search that needed the room, is loaded again.
TEST_F(DeviceSearcherTest, DenseAttentionReadsNoPinnedValues) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(HalfBytes());
  ExpectExact(guarded, {.mode = SearchMode::kExact, .top_k = 5});
  guarded.set_entry_limit_bytes(4 * HalfBytes());
  Add();
  auto dense = MemorySearcher::Create(&guarded, memory_->Current(),
                                      {.mode = SearchMode::kDense, .top_k = 5});
  ASSERT_TRUE(dense.ok()) << dense.status();
  const compute::Buffer queries =
      *guarded.UploadConstant(queries_.data(), queries_.size() * sizeof(float));
  const compute::Buffer output = *guarded.Allocate(queries.size_bytes());
  const compute::Buffer lse = *guarded.Allocate(kPositions * kTestHeads * sizeof(float));
  const absl::Status status =
      (*dense)->Attend(Query(0, queries.data<float>()), output.data<float>(), lse.data<float>());
  EXPECT_TRUE(status.ok()) << status;
}

// More than are gathered at a time.
TEST_F(DeviceSearcherTest, ManyQueriesTakeTurnsForTheirValues) {
  constexpr int64_t kMany = 150;
  std::vector<float> all;
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  for (size_t i = 0; i < kMany * kTestHeads * kTestHeadDim; ++i) all.push_back(normal(random));
  std::vector<float> want, got(all.size());
  for (const bool in_store : {false, true}) {
    compute::GuardedDevice guarded(2);
    guarded.set_entry_limit_bytes(HalfBytes());
    LimitPinned(in_store ? 0 : HalfBytes());
    auto searcher = MemorySearcher::Create(&guarded, memory_->Current(),
                                           {.mode = SearchMode::kExact, .top_k = 1024});
    ASSERT_TRUE(searcher.ok()) << searcher.status();
    const compute::Buffer queries = *guarded.UploadConstant(all.data(), all.size() * sizeof(float));
    const compute::Buffer output = *guarded.Allocate(queries.size_bytes());
    const compute::Buffer lse = *guarded.Allocate(kMany * kTestHeads * sizeof(float));
    model::MemoryQuery query = Query(0, queries.data<float>());
    query.n_queries = kMany;
    ASSERT_TRUE((*searcher)->Attend(query, output.data<float>(), lse.data<float>()).ok());
    ASSERT_TRUE(guarded.CopyToHost(output.data<void>(), output.size_bytes(), got.data()).ok());
    if (in_store) {
      EXPECT_EQ(got, want);
    }
    want = got;
  }
}

// Segments with FAISS's indexes: one list is as good as all.
class FaissSearcherTest : public DeviceSearcherTest {
 protected:
  void SetUp() override {
    DeviceSearcherTest::SetUp();
    const auto rebuilt = Rebuild(*device_, memory_.get(), "IVF1,SQ4", Progress());
    ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
    ASSERT_EQ(rebuilt->specs, std::vector<std::string>({"IVF1,SQ4"}));
    Add();
  }
  void ExpectExactWithIndexes(compute::Device& device, double tolerance) {
    const auto view = memory_->Current();
    const ResidencyLimits limits = view->source->resident().Limits(device);
    const auto plan = PlanResidency(*view, true, limits);
    ASSERT_TRUE(plan.ok()) << plan.status();
    ASSERT_TRUE(plan->uses_codes);
    ASSERT_GT(plan->index_bytes, 0u);
    EXPECT_EQ(plan->code_bytes, 0u);
    EXPECT_LE(plan->DeviceBytes(), limits.device_bytes);
    for (const bool restricted : {false, true}) {
      SCOPED_TRACE(restricted ? "one document" : "all");
      SearchOptions options{.mode = SearchMode::kApproximate, .top_k = 5};
      if (restricted) options.scope.documents = {documents_[1].id};
      ExpectExact(device, options, tolerance);
    }
  }
};

TEST_F(FaissSearcherTest, SearchesIndexesInThePlaceOfCodes) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(HalfBytes() - 1);  // the keys would fit else
  ExpectExactWithIndexes(guarded, 1e-5);
  const SearchStats stats = ComputeSearchStats(*memory_, guarded);
  EXPECT_EQ(stats.by, "indexes");
  EXPECT_TRUE(stats.is_on_gpu);
  EXPECT_GT(stats.gpu_index_bytes, 0u);
  EXPECT_THAT(stats.faiss, testing::StartsWith(index::FaissVersion()));
}

TEST_F(FaissSearcherTest, WhatIndexesFindIsAttendedToFromTheStore) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(HalfBytes() - 1);
  LimitPinned(2 * HalfBytes() - HalfBytes() / 4 - 1);
  const auto plan = PlanResidency(*memory_->Current(), true,
                                  memory_->Current()->source->resident().Limits(guarded));
  ASSERT_TRUE(plan.ok()) << plan.status();
  EXPECT_EQ(plan->values, ValuePlace::kStore);
  ExpectExactWithIndexes(guarded, 1e-5);
}

TEST_F(FaissSearcherTest, WhatIsDeletedIsNotFound) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(HalfBytes() - 1);
  ExpectExactWithIndexes(guarded, 1e-5);  // loaded before
  ASSERT_TRUE(memory_->DeleteDocuments({documents_[0].number}).ok());
  guarded.set_entry_limit_bytes(HalfBytes() - 1);
  ExpectExactWithIndexes(guarded, 1e-5);
  // Loaded after it: the index has keys that the slab has not.
  compute::GuardedDevice other(2);
  other.set_entry_limit_bytes(HalfBytes() - 1);
  ExpectExactWithIndexes(other, 1e-5);
}

TEST_F(FaissSearcherTest, AnotherIndexIsLoadedAgain) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(HalfBytes() - 1);
  ExpectExactWithIndexes(guarded, 1e-5);
  const auto rebuilt = Rebuild(*device_, memory_.get(), "IVF1,SQ8", Progress());
  ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
  ExpectExactWithIndexes(guarded, 1e-5);
}

TEST_F(FaissSearcherTest, StepsAreNotRecorded) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(HalfBytes() - 1);
  auto searcher = MemorySearcher::Create(&guarded, memory_->Current(),
                                         {.mode = SearchMode::kApproximate, .top_k = 5});
  ASSERT_TRUE(searcher.ok()) << searcher.status();
  uint64_t recording_id = 7;
  ASSERT_TRUE((*searcher)->BeginStep(&recording_id).ok());
  EXPECT_EQ(recording_id, 0u);
}

TEST_F(FaissSearcherTest, OnAGpu) {
  auto gpu = compute::Device::Create("cuda", 2);
  if (absl::IsUnimplemented(gpu.status()) || absl::IsUnavailable(gpu.status())) {
    GTEST_SKIP() << std::string(gpu.status().message());
  }
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  if (!index::FaissHasGpuPart()) {
    GTEST_SKIP() << "FAISS " << index::FaissVersion() << " has no part for GPUs";
  }
  (*gpu)->set_entry_limit_bytes(HalfBytes() - 1);
  ExpectExactWithIndexes(**gpu, 1e-4);
  // Built there as well.
  for (const char* const spec : {"IVF1,SQ4", "IVF2,SQ8"}) {
    SCOPED_TRACE(spec);
    const auto rebuilt = Rebuild(**gpu, memory_.get(), spec, Progress());
    ASSERT_TRUE(rebuilt.ok()) << rebuilt.status();
    ASSERT_EQ(rebuilt->specs, std::vector<std::string>({spec}));
    for (const auto& recalls : rebuilt->needle_recall) {
      for (const double recall : recalls) EXPECT_GE(recall, 0.99);
    }
    Add();
    (*gpu)->set_entry_limit_bytes(HalfBytes() - 1);
    if (std::string(spec) == "IVF1,SQ4") ExpectExactWithIndexes(**gpu, 1e-4);
  }
}

TEST_F(DeviceSearcherTest, QuestionsAskedTogetherGetWhatEachAloneGets) {
  for (const SearchMode mode : {SearchMode::kExact, SearchMode::kApproximate}) {
    SCOPED_TRACE(mode == SearchMode::kExact ? "keys" : "codes");
    compute::GuardedDevice guarded(2);
    if (mode == SearchMode::kApproximate) guarded.set_entry_limit_bytes(HalfBytes() - 1);
    const int n_fewer = ExpectTogetherIsAsAlone(guarded, mode, [&] { return guarded.n_ops(); });
    // Two of six join the one before: each is a search and two copies less in a layer.
    EXPECT_EQ(n_fewer, 2 * 3 * kTestLayers);
  }
}

TEST_F(DeviceSearcherTest, QuestionsAskedTogetherOnAGpu) {
  auto gpu = compute::Device::Create("cuda", 2);
  if (absl::IsUnimplemented(gpu.status()) || absl::IsUnavailable(gpu.status())) {
    GTEST_SKIP() << std::string(gpu.status().message());
  }
  ASSERT_TRUE(gpu.ok()) << gpu.status();
  ExpectTogetherIsAsAlone(**gpu, SearchMode::kExact, [] { return 0; });
  (*gpu)->set_entry_limit_bytes(HalfBytes() - 1);
  ExpectTogetherIsAsAlone(**gpu, SearchMode::kApproximate, [] { return 0; });
}

TEST_F(DeviceSearcherTest, DeletedDocumentsAreNotFoundAndNothingIsLoadedAgain) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(HalfBytes() - 1);
  const void* const segment = KeysOfSlab(guarded, true, 0);
  const void* const tail = KeysOfSlab(guarded, true, 1);
  ASSERT_TRUE(memory_->DeleteDocuments({documents_[0].number}).ok());
  guarded.set_entry_limit_bytes(HalfBytes() - 1);  // the keys would fit else
  ExpectExact(guarded, {.mode = SearchMode::kApproximate, .top_k = 5});
  EXPECT_EQ(KeysOfSlab(guarded, true, 0), segment);
  EXPECT_EQ(KeysOfSlab(guarded, true, 1), tail);
}

TEST_F(DeviceSearcherTest, NewDocumentsAreLoadedAlone) {
  compute::GuardedDevice guarded(2);
  const void* const segment = KeysOfSlab(guarded, false, 0);
  const void* const tail = KeysOfSlab(guarded, false, 1);
  Add();
  EXPECT_EQ(KeysOfSlab(guarded, false, 0), segment);
  EXPECT_NE(KeysOfSlab(guarded, false, 1), tail);
  ExpectExact(guarded, {.mode = SearchMode::kExact, .top_k = 5});
}

// Steps of one token, recorded and replayed, more of them than their log has rows, name what calls
// of their own name.
TEST_F(DeviceSearcherTest, StepsAreAttributedAsCallsAre) {
  for (const SearchMode mode : {SearchMode::kExact, SearchMode::kApproximate}) {
    compute::GuardedDevice guarded(2);
    if (mode == SearchMode::kApproximate) guarded.set_entry_limit_bytes(HalfBytes() - 1);
    const SearchOptions options{.mode = mode, .top_k = 5};
    auto by_calls = MemorySearcher::Create(&guarded, memory_->Current(), options);
    auto by_steps = MemorySearcher::Create(&guarded, memory_->Current(), options);
    ASSERT_TRUE(by_calls.ok() && by_steps.ok()) << by_calls.status() << by_steps.status();
    constexpr size_t kNumbers = kTestHeads * kTestHeadDim;
    const compute::Buffer queries = *guarded.Allocate(kNumbers * sizeof(float));
    const compute::Buffer local_lse = *guarded.Allocate(kTestHeads * sizeof(float));
    const compute::Buffer output = *guarded.Allocate(kNumbers * sizeof(float));
    const compute::Buffer lse = *guarded.Allocate(kTestHeads * sizeof(float));
    ASSERT_TRUE(guarded.Fill(0.5f, kTestHeads, local_lse.data<float>()).ok());
    const auto attend = [&](MemorySearcher& searcher, bool is_step) -> absl::Status {
      for (int layer = 0; layer < kTestLayers; ++layer) {
        model::MemoryQuery query = Query(layer, queries.data<float>());
        query.n_queries = 1;
        query.local_lse = local_lse.data<float>();
        query.is_step = is_step;
        RETURN_IF_ERROR(searcher.Attend(query, output.data<float>(), lse.data<float>()));
      }
      return absl::OkStatus();
    };
    std::vector<float> got(kNumbers), want(kNumbers);
    std::mt19937 random(3);
    std::normal_distribution<float> normal;
    std::unique_ptr<compute::Recording> recording;
    for (const int n_steps : {300, 3}) {
      for (int step = 0; step < n_steps; ++step) {
        for (float& q : want) q = normal(random);
        ASSERT_TRUE(
            guarded.CopyFromHost(want.data(), queries.size_bytes(), queries.data<void>()).ok());
        ASSERT_TRUE(attend(**by_calls, false).ok());
        ASSERT_TRUE(guarded.CopyToHost(output.data<void>(), output.size_bytes(), want.data()).ok());
        uint64_t recording_id = 0;
        ASSERT_TRUE((*by_steps)->BeginStep(&recording_id).ok());
        ASSERT_NE(recording_id, 0u);
        const absl::Status status =
            recording != nullptr ? recording->Replay() : attend(**by_steps, true);
        ASSERT_TRUE(status.ok()) << status;
        ASSERT_TRUE(guarded.CopyToHost(output.data<void>(), output.size_bytes(), got.data()).ok());
        ASSERT_EQ(got, want);
        if (recording == nullptr) {
          auto recorded = guarded.Record([&] { return attend(**by_steps, true); });
          ASSERT_TRUE(recorded.ok()) << recorded.status();
          recording = *std::move(recorded);
        }
      }
      EXPECT_EQ((*by_steps)->n_rows(), (*by_calls)->n_rows());
      EXPECT_FALSE((*by_calls)->Mass().empty());
      ExpectSameMass((*by_steps)->Mass(), (*by_calls)->Mass(), 1e-4f);
      (*by_calls)->ResetMass();
      (*by_steps)->ResetMass();
      EXPECT_TRUE((*by_steps)->Mass().empty());
    }
  }
}

TEST_F(DeviceSearcherTest, ALimitOfTheUsersIsKept) {
  compute::GuardedDevice guarded(2);
  guarded.set_entry_limit_bytes(1000);
  const auto refused = MemorySearcher::Create(&guarded, memory_->Current(), {});
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status())) << refused.status();
  // Where nobody set one, the host searches.
  guarded.set_entry_limit_bytes(std::nullopt);
  guarded.set_memory({.free_bytes = 1000, .total_bytes = 2000});
  const auto on_host = MemorySearcher::Create(&guarded, memory_->Current(), {});
  ASSERT_TRUE(on_host.ok()) << on_host.status();
  EXPECT_EQ((*on_host)->place(), model::MemoryPlace::kHost);
  EXPECT_THAT((*on_host)->host_note(),
              testing::AllOf(testing::HasSubstr("on the CPU"), testing::HasSubstr("1920 tokens")));
  // Nobody gets more than there is.
  guarded.set_entry_limit_bytes(size_t{1} << 40);
  const auto refused_too = MemorySearcher::Create(&guarded, memory_->Current(), {});
  EXPECT_TRUE(absl::IsResourceExhausted(refused_too.status())) << refused_too.status();
  EXPECT_THAT(std::string(refused_too.status().message()),
              testing::AllOf(testing::HasSubstr("0.0 MB"), testing::HasSubstr("other programs")));
  guarded.set_entry_limit_bytes(std::nullopt);
  guarded.set_memory({.free_bytes = 3 * HalfBytes(), .total_bytes = 4 * HalfBytes()});
  const auto on_device = MemorySearcher::Create(&guarded, memory_->Current(), {});
  ASSERT_TRUE(on_device.ok()) << on_device.status();
  EXPECT_EQ((*on_device)->place(), model::MemoryPlace::kDevice);
  EXPECT_EQ((*on_device)->host_note(), "");
}

TEST_F(DeviceSearcherTest, WhatReadsAllValuesIsNotAnsweredFromPinnedMemory) {
  compute::GuardedDevice guarded(2);
  guarded.set_memory({.free_bytes = 3 * HalfBytes() / 2, .total_bytes = 4 * HalfBytes()});
  const auto exact =
      MemorySearcher::Create(&guarded, memory_->Current(), {.mode = SearchMode::kExact});
  ASSERT_TRUE(exact.ok()) << exact.status();
  EXPECT_EQ((*exact)->place(), model::MemoryPlace::kDevice);
  for (const bool audits : {false, true}) {
    const auto dense = MemorySearcher::Create(
        &guarded, memory_->Current(),
        {.mode = audits ? SearchMode::kExact : SearchMode::kDense, .audit = audits});
    ASSERT_TRUE(dense.ok()) << dense.status();
    EXPECT_EQ((*dense)->place(), model::MemoryPlace::kHost);
    EXPECT_THAT((*dense)->host_note(),
                testing::HasSubstr(audits ? "an audit reads all" : "dense attention reads all"));
  }
}

TEST_F(DeviceSearcherTest, DenseAttentionToManyPiecesIsTheHosts) {
  compute::GuardedDevice guarded(2);
  SearchOptions options{.mode = SearchMode::kDense};
  for (int i = 0; i < 520; ++i) {
    const auto document = AddDocument(memory_->store(), {.n_windows = 1});
    ASSERT_TRUE(document.ok()) << document.status();
    if (i % 2 == 0) options.scope.documents.push_back(document->id);
  }
  ASSERT_TRUE(memory_->Publish().ok());
  const auto place = [&] {
    const auto searcher = MemorySearcher::Create(&guarded, memory_->Current(), options);
    EXPECT_TRUE(searcher.ok()) << searcher.status();
    return (*searcher)->place();
  };
  EXPECT_EQ(place(), model::MemoryPlace::kHost);
  options.scope.documents.resize(200);
  EXPECT_EQ(place(), model::MemoryPlace::kDevice);
  options.scope = {};
  EXPECT_EQ(place(), model::MemoryPlace::kDevice);
}

TEST_F(DeviceSearcherTest, StatsSayWhatLiesWhere) {
  compute::GuardedDevice guarded(1);
  guarded.set_entry_limit_bytes(HalfBytes());
  const SearchStats by_keys = ComputeSearchStats(*memory_, guarded);
  EXPECT_TRUE(by_keys.is_on_gpu);
  EXPECT_EQ(by_keys.by, "keys");
  EXPECT_EQ(by_keys.gpu_key_bytes, HalfBytes());
  EXPECT_EQ(by_keys.pinned_value_bytes, HalfBytes());
  EXPECT_EQ(by_keys.gpu_value_bytes + by_keys.gpu_code_bytes + by_keys.pinned_key_bytes, 0u);
  guarded.set_entry_limit_bytes(HalfBytes() - 1);
  const SearchStats by_codes = ComputeSearchStats(*memory_, guarded);
  EXPECT_EQ(by_codes.by, "codes");
  EXPECT_GT(by_codes.gpu_code_bytes, 0u);
  EXPECT_EQ(by_codes.pinned_key_bytes, HalfBytes() / 3 * 2);
  LimitPinned(HalfBytes());
  const SearchStats in_store = ComputeSearchStats(*memory_, guarded);
  EXPECT_TRUE(in_store.is_on_gpu);
  EXPECT_EQ(in_store.by, "codes");
  EXPECT_EQ(in_store.stored_value_bytes, HalfBytes());
  EXPECT_EQ(in_store.gpu_value_bytes + in_store.pinned_value_bytes, 0u);
  guarded.set_entry_limit_bytes(1);
  const SearchStats neither = ComputeSearchStats(*memory_, guarded);
  EXPECT_FALSE(neither.is_on_gpu);
  EXPECT_EQ(neither.by, "indexes");
  EXPECT_THAT(neither.note, testing::HasSubstr("does not fit"));
  const SearchStats on_host = ComputeSearchStats(*memory_, *device_);
  EXPECT_EQ(on_host.by, "indexes");
  EXPECT_EQ(on_host.note, "");
}

}  // namespace
}  // namespace fovea::memory
