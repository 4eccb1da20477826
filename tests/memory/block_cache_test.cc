#include "memory/block_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "base/entries.h"
#include "synthetic_memory.h"

namespace fovea::memory {
namespace {

using storage::Block;
using storage::Slot;

constexpr uint32_t kWindow = 64;  // tokens, as in SyntheticSettings
constexpr size_t kWholeWindowBytes = kWindow * kTestKvHeads * kTestHeadDim * sizeof(BFloat16);

class BlockCacheTest : public testing::Test {
 protected:
  // A memory with windows of these sizes.
  void MakeMemory(EntryType type, const std::vector<uint32_t>& sizes) {
    ASSERT_OK_AND_ASSIGN(memory_, Memory::Open(folder_.path() / EntryTypeName(type),
                                               {.mode = storage::OpenMode::kCreate}));
    StoreSettings settings = SyntheticSettings("exact");
    settings.entry_type = type;
    ASSERT_OK(memory_->InitializeSettings(settings));
    Mutation mutation;
    Slot next = 0;
    slots_.clear();
    for (const uint32_t n_tokens : sizes) {
      mutation.PutWindow(SyntheticWindow(next, n_tokens));
      for (int layer = 0; layer < kTestLayers; ++layer) {
        mutation.PutBlock(next, layer, SyntheticBlock(next, layer, n_tokens, type));
      }
      slots_.push_back(next);
      next += n_tokens;
    }
    mutation.PutNextSlot(next);
    ASSERT_OK(store().Commit(std::move(mutation)));
  }

  storage::DocumentStore& store() { return memory_->store(); }

  void ExpectStored(const HalfBlock& half, Slot slot, int layer, bool keys) {
    ASSERT_OK_AND_ASSIGN(const Block block, store().GetBlock(slot, layer));
    const EntryVector& want = keys ? block.keys : block.values;
    ASSERT_EQ(half.size_bytes(), want.size_bytes());
    ASSERT_EQ(half.data().type(), want.type());
    EXPECT_EQ(std::memcmp(half.data().address(), want.data().address(), half.size_bytes()), 0);
  }

  TemporaryFolder folder_;
  std::unique_ptr<Memory> memory_;
  std::vector<Slot> slots_;
};

TEST_F(BlockCacheTest, GivesWhatIsStored) {
  for (const EntryType type : {EntryType::kBFloat16, EntryType::kFloat32}) {
    MakeMemory(type, {kWindow, kWindow - 1, 1});
    BlockCache cache(&store(), size_t{1} << 30);
    for (int round = 0; round < 2; ++round) {
      for (const Slot slot : slots_) {
        for (int layer = 0; layer < kTestLayers; ++layer) {
          ASSERT_OK_AND_ASSIGN(const HalfBlock keys, cache.Keys(slot, layer));
          ExpectStored(keys, slot, layer, true);
          ASSERT_OK_AND_ASSIGN(const HalfBlock values, cache.Values(slot, layer));
          ExpectStored(values, slot, layer, false);
        }
      }
    }
    EXPECT_TRUE(absl::IsNotFound(cache.Keys(Slot{1} << 40, 0).status()));
  }
}

TEST_F(BlockCacheTest, TheLeastRecentlyUsedGoesFirst) {
  MakeMemory(EntryType::kBFloat16, {kWindow, kWindow, kWindow});
  BlockCache cache(&store(), 2 * kWholeWindowBytes);
  ASSERT_OK_AND_ASSIGN(const HalfBlock first, cache.Keys(slots_[0], 0));
  ASSERT_OK_AND_ASSIGN(const HalfBlock second, cache.Keys(slots_[1], 0));
  const void* const second_at = second.data().address();
  ASSERT_OK_AND_ASSIGN(const HalfBlock again, cache.Keys(slots_[0], 0));
  EXPECT_EQ(again.data().address(), first.data().address()) << "it is in the cache";
  ASSERT_OK(cache.Keys(slots_[2], 0).status());
  EXPECT_EQ(cache.size_bytes(), 2 * kWholeWindowBytes);
  ASSERT_OK_AND_ASSIGN(const HalfBlock still, cache.Keys(slots_[0], 0));
  EXPECT_EQ(still.data().address(), first.data().address());
  ASSERT_OK_AND_ASSIGN(const HalfBlock read_again, cache.Keys(slots_[1], 0));
  EXPECT_NE(read_again.data().address(), second_at) << "it had gone, and its memory is in use";
  ExpectStored(second, slots_[1], 0, true);  // held, so as good as ever
}

TEST_F(BlockCacheTest, MappedValuesTakeNoMemoryOfItsOwn) {
  for (const EntryType type : {EntryType::kBFloat16, EntryType::kFloat32}) {
    MakeMemory(type, {kWindow, kWindow, 1});
    BlockCache cache(&store(), size_t{1} << 30);
    // Not in a file yet: a copy.
    ASSERT_OK_AND_ASSIGN(const HalfBlock copied, cache.MappedValues(slots_[1], 0));
    ExpectStored(copied, slots_[1], 0, false);
    EXPECT_EQ(cache.size_bytes(), copied.size_bytes());
    ASSERT_OK(store().Compact());
    ASSERT_OK_AND_ASSIGN(const HalfBlock same, cache.MappedValues(slots_[1], 0));
    EXPECT_EQ(same.data().address(), copied.data().address());
    cache.Clear();
    for (int round = 0; round < 2; ++round) {
      ASSERT_OK_AND_ASSIGN(const HalfBlock mapped, cache.MappedValues(slots_[0], 1));
      ExpectStored(mapped, slots_[0], 1, false);
      EXPECT_EQ(cache.size_bytes(), 0u);
    }
    // Who wants a copy of all gets one, and both stay.
    ASSERT_OK_AND_ASSIGN(const HalfBlock mapped, cache.MappedValues(slots_[0], 1));
    ASSERT_OK_AND_ASSIGN(const HalfBlock values, cache.Values(slots_[0], 1));
    ExpectStored(values, slots_[0], 1, false);
    EXPECT_NE(values.data().address(), mapped.data().address());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(values.data().address()) % EntryBytes(type), 0u);
    EXPECT_EQ(cache.size_bytes(), values.size_bytes());
    EXPECT_TRUE(absl::IsNotFound(cache.MappedValues(Slot{1} << 40, 0).status()));
  }
}

TEST_F(BlockCacheTest, LetsGoOfFilesThatTheStoreRemoved) {
  MakeMemory(EntryType::kBFloat16, {kWindow, kWindow});
  BlockCache cache(&store(), size_t{1} << 30);
  ASSERT_OK(store().Compact());
  ASSERT_OK_AND_ASSIGN(const HalfBlock before, cache.MappedValues(slots_[0], 0));
  cache.ForgetRemovedFiles();
  ASSERT_OK_AND_ASSIGN(const HalfBlock kept, cache.MappedValues(slots_[0], 0));
  EXPECT_EQ(kept.data().address(), before.data().address());
  // Without the other window what stays moves to a new file.
  Mutation mutation;
  mutation.DeleteWindow(slots_[1]);
  ASSERT_OK(store().Commit(std::move(mutation)));
  ASSERT_OK(store().Compact());
  cache.ForgetRemovedFiles();
  ASSERT_OK_AND_ASSIGN(const HalfBlock after, cache.MappedValues(slots_[0], 0));
  EXPECT_NE(after.data().address(), before.data().address());
  ExpectStored(after, slots_[0], 0, false);
  ExpectStored(before, slots_[0], 0, false);  // who has it still may use it
}

TEST_F(BlockCacheTest, AMemoryKeepsNoBlocksOfWindowsThatWent) {
  ASSERT_OK_AND_ASSIGN(memory_, CreateSyntheticMemory(folder_.path() / "m", "exact"));
  ASSERT_OK_AND_ASSIGN(DocumentRecord document, AddDocument(store(), {.n_windows = 3}));
  ASSERT_OK(store().Compact());  // so that values can be mapped
  ASSERT_OK(memory_->Publish());
  std::shared_ptr<const Generation> before;
  HalfBlock keys;
  for (int round = 0; round < 4; ++round) {
    before = memory_->Current();
    for (const LiveWindow& window : before->windows) {
      for (int layer = 0; layer < kTestLayers; ++layer) {
        ASSERT_OK_AND_ASSIGN(keys, memory_->cache().Keys(window.slot_begin, layer));
        ASSERT_OK(memory_->cache().Values(window.slot_begin, layer).status());
        ASSERT_OK(memory_->cache().MappedValues(window.slot_begin, layer).status());
      }
    }
    EXPECT_EQ(memory_->cache().size_bytes(), 3 * kTestLayers * 2 * kWholeWindowBytes);
    // As a new version of the document does it.
    const DocumentNumber old = document.number;
    ASSERT_OK_AND_ASSIGN(document, AddDocument(store(), {.n_windows = 3}));
    ASSERT_OK(memory_->DeleteDocuments({old}));
    EXPECT_EQ(memory_->cache().size_bytes(), 0u);
  }
  // A question that began before goes on, and what it reads goes with the next change.
  const Slot slot = before->windows.back().slot_begin;
  const Block block = SyntheticBlock(slot, kTestLayers - 1, kWindow);
  EXPECT_EQ(std::memcmp(keys.data().address(), block.keys.data().address(), keys.size_bytes()), 0);
  ASSERT_OK(memory_->cache().Keys(slot, 0, before->hold.get()).status());
  ASSERT_OK(memory_->Publish());
  EXPECT_EQ(memory_->cache().size_bytes(), 0u);
}

TEST_F(BlockCacheTest, PublishingKeepsBlocksOfWindowsThatStay) {
  ASSERT_OK_AND_ASSIGN(memory_, CreateSyntheticMemory(folder_.path() / "m", "exact"));
  ASSERT_OK(AddDocument(store(), {.n_windows = 2}).status());
  ASSERT_OK(memory_->Publish());
  const Slot slot = memory_->Current()->windows.back().slot_begin;
  ASSERT_OK_AND_ASSIGN(const HalfBlock keys, memory_->cache().Keys(slot, 0));
  ASSERT_OK(AddDocument(store(), {}).status());
  ASSERT_OK(memory_->Publish());
  ASSERT_OK_AND_ASSIGN(const HalfBlock still, memory_->cache().Keys(slot, 0));
  EXPECT_EQ(still.data().address(), keys.data().address());
}

// Four threads ask for values of all windows in turn: ask(slot, i) of the i-th.
template <typename Ask>
void AskByThreads(const std::vector<Slot>& slots, Ask ask) {
  std::vector<std::thread> threads;
  for (size_t t = 1; t <= 4; ++t) {
    threads.emplace_back([&slots, &ask, t] {
      for (size_t i = 0; i < 200; ++i) ask(slots[i * t % slots.size()], i);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

TEST_F(BlockCacheTest, ThreadsShareMappedValues) {
  MakeMemory(EntryType::kBFloat16, std::vector<uint32_t>(12, kWindow));
  ASSERT_OK(store().Compact());
  BlockCache cache(&store(), 5 * kWholeWindowBytes);
  AskByThreads(slots_, [&](Slot slot, size_t i) {
    absl::StatusOr<HalfBlock> half = cache.MappedValues(slot, 1);
    ASSERT_TRUE(half.ok()) << half.status();
    ExpectStored(*half, slot, 1, false);
    if (i % 50 == 49) cache.ForgetRemovedFiles();
  });
  EXPECT_EQ(cache.size_bytes(), 0u);
}

TEST_F(BlockCacheTest, ThreadsShareIt) {
  MakeMemory(EntryType::kBFloat16, std::vector<uint32_t>(12, kWindow));
  BlockCache cache(&store(), 5 * kWholeWindowBytes);
  AskByThreads(slots_, [&](Slot slot, size_t) {
    absl::StatusOr<HalfBlock> half = cache.Values(slot, 1);
    ASSERT_TRUE(half.ok()) << half.status();
    ExpectStored(*half, slot, 1, false);
  });
  EXPECT_LE(cache.size_bytes(), cache.capacity_bytes());
}

TEST(AutomaticCacheBytesTest, TakesHalfOfTheMachineWhereNobodyElseNeedsIt) {
  constexpr uint64_t kGiB = uint64_t{1} << 30;
  // An idle machine: half of it.
  EXPECT_EQ(AutomaticCacheBytes({.total_bytes = 16 * kGiB, .available_bytes = 15 * kGiB}, 0),
            8 * kGiB);
  // What the cache has counts as reachable, so that it does not shrink by having grown.
  EXPECT_EQ(AutomaticCacheBytes({.total_bytes = 16 * kGiB, .available_bytes = 7 * kGiB}, 8 * kGiB),
            8 * kGiB);
  // Others took most of it: what is left but for an eighth of the machine.
  EXPECT_EQ(AutomaticCacheBytes({.total_bytes = 16 * kGiB, .available_bytes = 5 * kGiB}, 0),
            3 * kGiB);
  EXPECT_EQ(AutomaticCacheBytes({.total_bytes = 16 * kGiB, .available_bytes = 1 * kGiB}, 4 * kGiB),
            3 * kGiB);
  // Never nothing.
  EXPECT_EQ(AutomaticCacheBytes({.total_bytes = 16 * kGiB, .available_bytes = kGiB / 2}, 0),
            kGiB / 4);
  EXPECT_EQ(AutomaticCacheBytes({}, 0), 2 * kGiB) << "a system that does not say";
}

}  // namespace
}  // namespace fovea::memory
