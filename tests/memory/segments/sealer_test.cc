#include "memory/segments/sealer.h"

#include <random>

#include "memory/segment_files.h"
#include "tests/memory/synthetic_memory.h"

namespace fovea::memory {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

TEST(SegmentTierTest, IsTheLogarithmToBase4OfTheSizeAndAThird) {
  EXPECT_EQ(SegmentTier(1), -2);
  EXPECT_EQ(SegmentTier(kSealTailSlots), -2);
  EXPECT_EQ(SegmentTier(4 * kSealTailSlots), -1);
  EXPECT_EQ(SegmentTier(kSealSlots * 3 / 4 - 1), -1);
  EXPECT_EQ(SegmentTier(kSealSlots * 3 / 4), 0);
  EXPECT_EQ(SegmentTier(kSealSlots), 0);
  EXPECT_EQ(SegmentTier(3 * kSealSlots - 1), 0);
  EXPECT_EQ(SegmentTier(3 * kSealSlots), 1);
  EXPECT_EQ(SegmentTier(4 * kSealSlots), 1);
  EXPECT_EQ(SegmentTier(kMaxSegmentSlots), 3);
}

TEST(MergeCountTest, FourOfATierBecomeOne) {
  const uint64_t s = kSealSlots;
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{s}), 1u);
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{s, s, s}), 1u);
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{s, s, s, s}), 4u);
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{4 * s, s, s, s, s}), 4u);
}

TEST(MergeCountTest, ATailThatIsNearlyWholeIsMerged) {
  const uint64_t s = kSealSlots;
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{s + 900, s, s + 300, s * 9 / 10}), 4u);
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{s, s, s, s / 2}), 1u);
}

TEST(MergeCountTest, AMergeThatFillsATierCascades) {
  const uint64_t s = kSealSlots;
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{4 * s, 4 * s, 4 * s, s, s, s, s}), 7u);
}

TEST(MergeCountTest, SmallerOnesBeforeALargeOneCountWithIt) {
  const uint64_t s = kSealSlots;
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{s, s, s, 16 * s}), 4u);
}

TEST(MergeCountTest, FullSegmentsAreNotMerged) {
  const uint64_t full = kMaxSegmentSlots;
  EXPECT_EQ(MergeCount(std::vector<uint64_t>{full, full, full, full}), 1u);
}

TEST(MergeCountTest, NumberOfSegmentsStaysLogarithmic) {
  std::mt19937 random(1);
  std::vector<uint64_t> segments;
  uint64_t total = 0;
  for (int seal = 0; seal < 3000; ++seal) {
    const uint64_t size = kSealSlots + random() % 5000;
    total += size;
    segments.push_back(size);
    const size_t count = MergeCount(segments);
    uint64_t merged = 0;
    for (size_t i = 0; i < count; ++i) {
      merged += segments.back();
      segments.pop_back();
    }
    segments.push_back(merged);
    ASSERT_LE(merged, kMaxSegmentSlots + kMaxSegmentSlots / 2);
    // Three of each tier below the full ones, and the full ones.
    ASSERT_LE(segments.size(), 9 + total / kMaxSegmentSlots) << "after " << seal << " seals";
  }
}

class SealerTest : public testing::Test {
 protected:
  void Create(const std::string& spec) {
    auto memory = CreateSyntheticMemory(folder_ / "m", spec);
    ASSERT_OK(memory.status());
    memory_ = *std::move(memory);
  }
  storage::DocumentStore& store() { return memory_->store(); }
  absl::Status Seal() { return SealAll(*device_, &store(), memory_->index_folder(), Progress()); }

  TemporaryFolder folder_;
  std::unique_ptr<compute::Device> device_ = TestDevice();
  std::unique_ptr<Memory> memory_;
};

TEST_F(SealerTest, AGrowingSegmentBelowTheThresholdStays) {
  Create("auto");
  ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots - 1}).status());
  ASSERT_OK_AND_ASSIGN(const auto plan, PlanSealing(store()));
  EXPECT_FALSE(plan.has_value());
}

TEST_F(SealerTest, TheEndOfAnIngestIsSealedFromFewerSlotsOn) {
  Create("auto");
  ASSERT_OK(AddDocument(store(), {.n_slots = kSealTailSlots - 1}).status());
  ASSERT_OK_AND_ASSIGN(auto sealer, BackgroundSealer::Start(&store(), memory_->index_folder(), {}));
  ASSERT_OK(sealer->WaitUntilIdle(Progress()));
  EXPECT_THAT(VisibleSegments(store()), IsEmpty());
  ASSERT_OK(AddDocument(store(), {.n_slots = 1}).status());
  sealer->Notify();
  ASSERT_OK(sealer->WaitUntilIdle(Progress()));
  EXPECT_THAT(VisibleSegments(store()), SizeIs(1));
}

TEST_F(SealerTest, SealsAllThatIsCommittedAtTheThreshold) {
  Create("auto");
  ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots}).status());
  ASSERT_OK(Seal());
  const auto segments = VisibleSegments(store());
  ASSERT_THAT(segments, SizeIs(1));
  EXPECT_EQ(segments[0].slot_begin, 0u);
  EXPECT_EQ(segments[0].slot_end, kSealSlots);
  EXPECT_EQ(segments[0].n_tokens, 4u * 64u);
  EXPECT_EQ(segments[0].spec, "exact");
  EXPECT_EQ(segments[0].requested_spec, "auto");
  EXPECT_EQ(segments[0].fingerprint, SyntheticSettings("").fingerprint);
  EXPECT_THAT(segments[0].files, IsEmpty());
}

TEST_F(SealerTest, ManySealsLeaveFewSegmentsWithoutGaps) {
  Create("auto");
  for (int i = 0; i < 21; ++i) {
    ASSERT_OK(AddDocument(store(), {.n_windows = 1, .n_slots = kSealSlots}).status());
    ASSERT_OK(Seal());
  }
  const auto segments = VisibleSegments(store());
  ASSERT_THAT(segments, SizeIs(3));  // 21 = 16 + 4 + 1
  EXPECT_EQ(segments[0].slot_end, 16 * kSealSlots);
  EXPECT_EQ(segments[1].slot_end, 20 * kSealSlots);
  EXPECT_EQ(segments[2].slot_end, 21 * kSealSlots);
  Slot end = 0;
  for (const SegmentRecord& segment : segments) {
    EXPECT_EQ(segment.slot_begin, end);
    end = segment.slot_end;
  }
  ASSERT_OK_AND_ASSIGN(const auto all, store().Segments());
  EXPECT_THAT(all, SizeIs(3)) << "merged segments are gone";
}

TEST_F(SealerTest, AVeryLargeGrowingSegmentIsCutBetweenWindows) {
  Create("auto");
  ASSERT_OK(AddDocument(store(), {.n_windows = 1, .n_slots = kMaxSegmentSlots - 32}).status());
  ASSERT_OK(AddDocument(store(), {.n_windows = 2, .n_slots = kSealSlots}).status());
  ASSERT_OK(Seal());
  const auto segments = VisibleSegments(store());
  ASSERT_THAT(segments, SizeIs(2));
  EXPECT_EQ(segments[0].slot_end, kMaxSegmentSlots - 32);  // not inside of the window that follows
  EXPECT_EQ(segments[0].n_tokens, 64u);
  EXPECT_EQ(segments[1].n_tokens, 128u);
}

TEST_F(SealerTest, MergedIndexesReplaceTheirFiles) {
  Create("IVF4,Flat");
  for (int i = 0; i < 4; ++i) {
    ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots}).status());
    ASSERT_OK(Seal());
  }
  const auto segments = VisibleSegments(store());
  ASSERT_THAT(segments, SizeIs(1));
  EXPECT_EQ(segments[0].spec, "IVF4,Flat");
  EXPECT_THAT(segments[0].files, SizeIs(kTestLayers));
  EXPECT_EQ(FilesIn(memory_->index_folder()), FilesOf(segments));
}

TEST_F(SealerTest, RefusesSegmentsWithAGap) {
  Create("auto");
  ASSERT_OK(AddDocument(store(), {.n_slots = 2 * kSealSlots}).status());
  SegmentRecord segment;
  segment.id = 1;
  segment.slot_begin = 100;
  segment.slot_end = 200;
  segment.spec = "exact";
  Mutation mutation;
  mutation.PutSegment(segment);
  mutation.PutNextSegmentId(2);
  ASSERT_OK(store().Commit(std::move(mutation)));
  const absl::Status status = PlanSealing(store()).status();
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("[100,200)"));
}

TEST_F(SealerTest, BackgroundSealerFollowsCommits) {
  Create("IVF4,Flat");
  ASSERT_OK_AND_ASSIGN(const auto sealer,
                       BackgroundSealer::Start(&store(), memory_->index_folder(), {}));
  for (int i = 0; i < 5; ++i) {
    ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots}).status());
    sealer->Notify();
  }
  ASSERT_OK(sealer->WaitUntilIdle(Progress()));
  const auto segments = VisibleSegments(store());
  // How many there are depends on how far each look saw.
  ASSERT_FALSE(segments.empty());
  EXPECT_EQ(segments.back().slot_end, 5 * kSealSlots);
  EXPECT_EQ(FilesIn(memory_->index_folder()), FilesOf(segments));
  ASSERT_OK(sealer->WaitUntilIdle(Progress()));  // nothing left to do
}

TEST_F(SealerTest, BackgroundSealerKeepsItsErrorAndTriesAgain) {
  Create("IVF4,Flat");
  ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots, .with_blocks = false}).status());
  ASSERT_OK_AND_ASSIGN(const auto sealer,
                       BackgroundSealer::Start(&store(), memory_->index_folder(), {}));
  sealer->Notify();
  const absl::Status status = sealer->WaitUntilIdle(Progress());
  EXPECT_TRUE(absl::IsDataLoss(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("window at slot 0"));

  Mutation repair;
  for (Slot slot = 0; slot < 4 * 64; slot += 64) {
    for (int layer = 0; layer < kTestLayers; ++layer) {
      repair.PutBlock(slot, layer, SyntheticBlock(slot, layer, 64));
    }
  }
  ASSERT_OK(store().Commit(std::move(repair)));
  ASSERT_OK(sealer->WaitUntilIdle(Progress()));
  EXPECT_THAT(VisibleSegments(store()), SizeIs(1));
}

TEST_F(SealerTest, BackgroundSealerBuildsDamagedSegmentsAgain) {
  Create("IVF4,Flat");
  ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots}).status());
  ASSERT_OK(Seal());
  const SegmentRecord damaged = VisibleSegments(store())[0];
  std::filesystem::remove(memory_->index_folder() / damaged.files[1].name);
  ASSERT_OK_AND_ASSIGN(const auto sealer,
                       BackgroundSealer::Start(&store(), memory_->index_folder(), {damaged.id}));
  ASSERT_OK(sealer->WaitUntilIdle(Progress()));
  const auto segments = VisibleSegments(store());
  ASSERT_THAT(segments, SizeIs(1));
  EXPECT_NE(segments[0].id, damaged.id);
  EXPECT_EQ(OpenSegment(segments[0], memory_->index_folder()).damage, "");
  EXPECT_EQ(FilesIn(memory_->index_folder()), FilesOf(segments));
}

TEST_F(SealerTest, WaitingCanBeCancelled) {
  Create("IVF4,Flat");
  ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots}).status());
  ASSERT_OK_AND_ASSIGN(const auto sealer,
                       BackgroundSealer::Start(&store(), memory_->index_folder(), {}));
  const std::atomic<bool> cancelled{true};
  EXPECT_TRUE(absl::IsCancelled(sealer->WaitUntilIdle(Progress(nullptr, &cancelled))));
  ASSERT_OK(sealer->WaitUntilIdle(Progress()));
  EXPECT_THAT(VisibleSegments(store()), SizeIs(1));
}

TEST_F(SealerTest, DestroyingABusySealerLeavesOldOrNewSegments) {
  Create("IVF4,Flat");
  for (int i = 0; i < 3; ++i) {
    ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots}).status());
    ASSERT_OK_AND_ASSIGN(auto sealer,
                         BackgroundSealer::Start(&store(), memory_->index_folder(), {}));
    sealer->Notify();
    sealer.reset();
    for (const SegmentRecord& segment : VisibleSegments(store())) {
      EXPECT_EQ(OpenSegment(segment, memory_->index_folder()).damage, "");
    }
  }
}

}  // namespace
}  // namespace fovea::memory
