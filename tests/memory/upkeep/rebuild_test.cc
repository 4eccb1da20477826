#include "memory/upkeep/rebuild.h"

#include "memory/segment_files.h"
#include "memory/segments/sealer.h"
#include "memory/statistics.h"
#include "tests/memory/synthetic_memory.h"

namespace fovea::memory {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class RebuildTest : public testing::Test {
 protected:
  // Three documents far enough apart for three segments.
  void SetUp() override {
    auto memory = CreateSyntheticMemory(folder_ / "m", "auto");
    ASSERT_OK(memory.status());
    memory_ = *std::move(memory);
    for (int i = 0; i < 3; ++i) {
      ASSERT_OK(AddDocument(store(), {.n_slots = kMaxSegmentSlots}).status());
    }
    ASSERT_OK(SealAll(*device_, &store(), memory_->index_folder(), Progress()));
    ASSERT_OK(memory_->Publish());
    ASSERT_THAT(memory_->Current()->segments, SizeIs(3));
  }
  storage::DocumentStore& store() { return memory_->store(); }
  absl::StatusOr<RebuildResult> Run(const std::string& spec,
                                    const Progress& progress = Progress()) {
    return Rebuild(*device_, memory_.get(), spec, progress);
  }
  void ExpectRebuilt(const std::string& spec) {
    const auto view = memory_->Current();
    ASSERT_THAT(view->segments, SizeIs(3));
    std::vector<SegmentRecord> records;
    Slot end = 0;
    for (const auto& segment : view->segments) {
      EXPECT_EQ(segment->damage, "");
      EXPECT_EQ(segment->record.spec, spec);
      EXPECT_THAT(segment->layers, SizeIs(spec == "exact" ? 0 : kTestLayers));
      EXPECT_EQ(segment->record.slot_begin, end);
      end = segment->record.slot_end;
      records.push_back(segment->record);
    }
    EXPECT_EQ(end, view->next_slot);
    ASSERT_OK_AND_ASSIGN(const auto all, store().Segments());
    EXPECT_THAT(all, SizeIs(3)) << "those of other generations are gone";
    EXPECT_EQ(FilesIn(memory_->index_folder()), FilesOf(records));
  }

  TemporaryFolder folder_;
  std::unique_ptr<compute::Device> device_ = TestDevice();
  std::unique_ptr<Memory> memory_;
};

TEST_F(RebuildTest, MakesANewGenerationWithTheNewSpecification) {
  const auto before = memory_->Current();
  ASSERT_OK_AND_ASSIGN(const RebuildResult result, Run("IVF4,Flat"));
  EXPECT_EQ(result.generation, before->generation + 1);
  EXPECT_EQ(result.segments_built, 3);
  EXPECT_EQ(result.segments_resumed, 0);
  EXPECT_THAT(result.specs, ElementsAre("IVF4,Flat", "IVF4,Flat", "IVF4,Flat"));
  EXPECT_THAT(result.needle_recall, SizeIs(3));
  EXPECT_THAT(result.needle_recall, Each(SizeIs(kTestLayers)));
  EXPECT_EQ(memory_->Current()->generation, result.generation);
  ExpectRebuilt("IVF4,Flat");
  EXPECT_EQ(memory_->settings()->index_spec, "IVF4,Flat");
  // A view that a query holds is as it was.
  ASSERT_THAT(before->segments, SizeIs(3));
  EXPECT_EQ(before->segments[0]->record.spec, "exact");
}

TEST_F(RebuildTest, WithoutASpecificationKeepsTheMemorys) {
  ASSERT_OK(Run("IVF4,Flat").status());
  ASSERT_OK_AND_ASSIGN(const RebuildResult result, Run(""));
  EXPECT_EQ(result.segments_built, 3);
  ExpectRebuilt("IVF4,Flat");
}

TEST_F(RebuildTest, SurvivesReopening) {
  ASSERT_OK(Run("IVF4,Flat").status());
  memory_.reset();
  ASSERT_OK_AND_ASSIGN(memory_, OpenMemory(folder_ / "m", storage::OpenMode::kWrite));
  ExpectRebuilt("IVF4,Flat");
  EXPECT_EQ(memory_->settings()->index_spec, "IVF4,Flat");
}

TEST_F(RebuildTest, IncludesTheGrowingSegment) {
  ASSERT_OK(AddDocument(store(), {.n_windows = 2}).status());
  ASSERT_OK_AND_ASSIGN(const RebuildResult result, Run("IVF4,Flat"));
  EXPECT_EQ(result.segments_built, 4);
  EXPECT_EQ(memory_->Current()->sealed_end, memory_->Current()->next_slot);
}

TEST_F(RebuildTest, CutsBetweenWindows) {
  ASSERT_OK(AddDocument(store(), {.n_windows = 1, .n_slots = kMaxSegmentSlots - 10}).status());
  ASSERT_OK(AddDocument(store(), {.n_windows = 1}).status());  // spans the limit
  ASSERT_OK(Run("IVF4,Flat").status());
  const auto view = memory_->Current();
  ASSERT_THAT(view->segments, SizeIs(5));
  EXPECT_EQ(view->segments[3]->record.slot_end, 4 * kMaxSegmentSlots - 10);
  EXPECT_EQ(view->segments[4]->record.n_tokens, 64u);
}

TEST_F(RebuildTest, InterruptedAfterEachSegmentItGoesOn) {
  for (int finished = 0; finished <= 2; ++finished) {
    const std::string spec = StrCat("IVF", 4 + finished, ",Flat");
    auto before = memory_->Current();
    CancelAt cancel("rebuild", finished + 1);
    const absl::Status status = Run(spec, cancel.progress()).status();
    ASSERT_TRUE(absl::IsCancelled(status)) << status;

    // Queries see what they saw, also in another process.
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenMemory(folder_ / "m", storage::OpenMode::kRead));
    ASSERT_OK(memory_->Publish());
    for (const auto& view : {memory_->Current(), reader->Current()}) {
      EXPECT_EQ(view->generation, before->generation);
      ASSERT_THAT(view->segments, SizeIs(3));
      EXPECT_EQ(view->segments[0]->record.id, before->segments[0]->record.id);
    }
    if (finished == 1) {  // also when the process ends in between
      before.reset();     // it holds the store, and so the writer's lock
      memory_.reset();
      ASSERT_OK_AND_ASSIGN(memory_, OpenMemory(folder_ / "m", storage::OpenMode::kWrite));
    }
    ASSERT_OK_AND_ASSIGN(const RebuildResult result, Run(spec));
    EXPECT_EQ(result.segments_resumed, finished);
    EXPECT_EQ(result.segments_built, 3 - finished);
    EXPECT_THAT(result.specs, ElementsAre(spec, spec, spec));
    ExpectRebuilt(spec);
  }
}

TEST_F(RebuildTest, AnotherSpecificationStartsAnew) {
  CancelAt cancel("rebuild", 3);
  ASSERT_TRUE(absl::IsCancelled(Run("IVF4,Flat", cancel.progress()).status()));
  ASSERT_OK_AND_ASSIGN(const RebuildResult result, Run("IVF5,Flat"));
  EXPECT_EQ(result.segments_resumed, 0);
  ExpectRebuilt("IVF5,Flat");
}

TEST_F(RebuildTest, ResumingChecksFinishedFiles) {
  CancelAt cancel("rebuild", 3);
  ASSERT_TRUE(absl::IsCancelled(Run("IVF4,Flat", cancel.progress()).status()));
  ASSERT_OK_AND_ASSIGN(const auto segments, store().Segments());
  for (const SegmentRecord& segment : segments) {
    if (segment.files.empty() || segment.slot_begin == 0) continue;
    FlipBit(memory_->index_folder() / segment.files[0].name, 100);
  }
  ASSERT_OK_AND_ASSIGN(const RebuildResult result, Run("IVF4,Flat"));
  EXPECT_EQ(result.segments_resumed, 1);
  EXPECT_EQ(result.segments_built, 2);
  ExpectRebuilt("IVF4,Flat");
}

TEST_F(RebuildTest, SealingGoesOnAfterIt) {
  ASSERT_OK(Run("IVF4,Flat").status());
  ASSERT_OK(AddDocument(store(), {.n_slots = kSealSlots}).status());
  ASSERT_OK(SealAll(*device_, &store(), memory_->index_folder(), Progress()));
  ASSERT_OK(memory_->Publish());
  const auto view = memory_->Current();
  ASSERT_THAT(view->segments, SizeIs(4));
  EXPECT_EQ(view->segments[3]->record.spec, "IVF4,Flat");
  EXPECT_EQ(view->segments[3]->record.generation, view->generation);
}

TEST_F(RebuildTest, MakesTheTextIndexAgain) {
  ASSERT_OK(Run("exact").status());
  ASSERT_NE(memory_->text_index(), nullptr);
  ASSERT_OK_AND_ASSIGN(const uint64_t next_slot, memory_->text_index()->NextSlot());
  EXPECT_EQ(next_slot, memory_->Current()->next_slot);
  const std::string text = SyntheticWindow(kMaxSegmentSlots, 64).text;
  ASSERT_OK_AND_ASSIGN(const auto hits, memory_->text_index()->Search(
                                            text.substr(0, 24), 1, [](uint64_t) { return true; }));
  ASSERT_THAT(hits, SizeIs(1));
  EXPECT_EQ(hits[0].slot_begin, kMaxSegmentSlots);
}

TEST_F(RebuildTest, DropsWhatAnInterruptedIngestHasLeft) {
  const auto complete = memory_->Current();
  ASSERT_OK_AND_ASSIGN(
      const DocumentRecord left,
      AddDocument(store(), {.n_windows = 3, .n_slots = kMaxSegmentSlots, .complete = false}));
  // It goes on from a window that a complete document has as well: that one stays.
  const Slot shared = complete->windows.front().slot_begin;
  storage::WindowLink link;
  link.document = left.number;
  link.ordinal = 3;
  link.slot_begin = shared;
  link.n_tokens = complete->windows.front().n_tokens;
  link.byte_begin = left.size_bytes;
  link.n_bytes = link.n_tokens;
  Mutation mutation;
  mutation.PutLink(link);
  ASSERT_OK(store().Commit(std::move(mutation)));
  ASSERT_OK(memory_->Publish());

  ASSERT_OK_AND_ASSIGN(const Stats before, ComputeStats(*memory_));
  EXPECT_EQ(before.unfinished_documents, 1);
  EXPECT_EQ(before.unfinished_tokens, 3 * 64u);
  EXPECT_EQ(before.tokens, complete->n_tokens);
  EXPECT_EQ(before.slots, before.tokens + before.unfinished_tokens + before.deleted_slots);

  ASSERT_OK(Run("IVF4,Flat").status());
  ASSERT_OK_AND_ASSIGN(const Stats after, ComputeStats(*memory_));
  EXPECT_EQ(after.unfinished_documents, 0);
  EXPECT_EQ(after.unfinished_tokens, 0u);
  EXPECT_EQ(after.slots, after.tokens + after.deleted_slots);
  EXPECT_EQ(after.documents, 3);
  EXPECT_EQ(after.tokens, complete->n_tokens);
  for (const LiveWindow& window : complete->windows) {
    EXPECT_OK(store().GetWindow(window.slot_begin).status());
  }
  EXPECT_TRUE(absl::IsNotFound(store().GetWindow(3 * kMaxSegmentSlots).status()));
}

TEST_F(RebuildTest, RefusesANonsenseSpecification) {
  const absl::Status status = Run("IVFnonsense").status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  ASSERT_OK(memory_->Publish());
  EXPECT_EQ(memory_->Current()->generation, 0u);
  EXPECT_EQ(memory_->settings()->index_spec, "auto");
}

TEST(RebuildEmptyTest, AnEmptyMemoryHasNothingToRebuild) {
  TemporaryFolder folder;
  MemoryOptions options;
  options.mode = storage::OpenMode::kCreate;
  ASSERT_OK_AND_ASSIGN(const auto memory, Memory::Open(folder / "m", options));
  const auto device = TestDevice();
  const absl::Status status = Rebuild(*device, memory.get(), "", Progress()).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(status)) << status;
}

}  // namespace
}  // namespace fovea::memory
