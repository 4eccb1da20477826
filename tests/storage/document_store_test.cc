#include "storage/document_store.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/file.h"
#include "tests/storage/store_test_util.h"

namespace fovea::storage {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

absl::Status CommitDocument(DocumentStore* store, const TestDocument& document) {
  Mutation mutation;
  PutDocument(document, &mutation);
  return store->Commit(std::move(mutation));
}

absl::Status CommitSettings(DocumentStore* store) {
  Mutation mutation;
  mutation.PutSettings(TestSettings());
  return store->Commit(std::move(mutation));
}

std::string Message(const absl::Status& status) { return std::string(ToStd(status.message())); }

TEST(DocumentStoreTest, NewStoreIsEmptyAndHasNoSettings) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder / "new/store", OpenMode::kCreate));
  ASSERT_OK_AND_ASSIGN(const auto settings, store->Settings());
  EXPECT_FALSE(settings.has_value());
  ASSERT_OK_AND_ASSIGN(const Counters counters, store->ReadCounters());
  EXPECT_EQ(counters.next_slot, 0u);
  EXPECT_EQ(counters.next_document, 1u);
  EXPECT_EQ(counters.next_segment, 1u);
  EXPECT_EQ(counters.generation, 0u);
  EXPECT_TRUE(DocumentStore::Exists(folder / "new/store"));
  EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
}

TEST(DocumentStoreTest, OpeningWhatDoesNotExistIsNotFoundAndMakesNothing) {
  TemporaryFolder folder;
  for (const OpenMode mode : {OpenMode::kWrite, OpenMode::kRead}) {
    const auto store = OpenStore(folder / "absent", mode);
    EXPECT_TRUE(absl::IsNotFound(store.status())) << store.status();
    EXPECT_THAT(Message(store.status()), HasSubstr("absent"));
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "absent"));
  EXPECT_FALSE(DocumentStore::Exists(folder / "absent"));
}

TEST(DocumentStoreTest, EveryRecordReadsBackInTheWriterAndInReaders) {
  TemporaryFolder folder;
  const TestDocument first = MakeDocument(1, 0, 3, 50);
  const TestDocument second = MakeDocument(2, 150, 1, 7);
  SegmentRecord segment;
  segment.id = 1;
  segment.generation = 4;
  segment.slot_end = 150;
  segment.n_tokens = 149;
  segment.spec = "IVF16,Flat";
  segment.requested_spec = "auto";
  segment.n_probe = 3;
  segment.n_candidates = 64;
  segment.needle_recall = {0.99, 1.0};
  segment.faiss_version = "1.7.3";
  segment.fingerprint = "9f2c";
  segment.files = {{"1-0.faiss", 100, 17}, {"1-1.faiss", 200, ~uint64_t{0}}};

  const auto check = [&](const DocumentStore& store) {
    ASSERT_OK_AND_ASSIGN(const auto settings, store.Settings());
    ASSERT_TRUE(settings.has_value());
    EXPECT_TRUE(*settings == TestSettings());
    EXPECT_THAT(CheckDocument(store, first), IsEmpty());
    EXPECT_THAT(CheckDocument(store, second), IsEmpty());
    ASSERT_OK_AND_ASSIGN(const auto segments, store.Segments());
    ASSERT_EQ(segments.size(), 1u);
    EXPECT_TRUE(segments[0] == segment);
    ASSERT_OK_AND_ASSIGN(const Counters counters, store.ReadCounters());
    EXPECT_EQ(counters.next_slot, 157u);
    EXPECT_EQ(counters.next_document, 3u);
    EXPECT_EQ(counters.next_segment, 2u);
    EXPECT_EQ(counters.generation, 4u);
    EXPECT_EQ(counters.epoch, 3u);
    std::vector<WindowLink> links;
    ASSERT_OK(store.ForEachLink([&](const WindowLink& link) {
      links.push_back(link);
      return absl::OkStatus();
    }));
    ASSERT_EQ(links.size(), 4u);
    EXPECT_TRUE(links[3] == second.links[0]);
    EXPECT_THAT(ToText(VerifyAll(store)), IsEmpty());
  };
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    ASSERT_OK(CommitSettings(store.get()));
    ASSERT_OK(CommitDocument(store.get(), first));
    Mutation mutation;
    PutDocument(second, &mutation);
    mutation.PutSegment(segment);
    mutation.PutNextSegmentId(2);
    mutation.PutGeneration(4);
    ASSERT_OK(store->Commit(std::move(mutation)));
    check(*store);
    // From the log, while the writer is open.
    ASSERT_OK_AND_ASSIGN(const auto reader, OpenStore(folder.path(), OpenMode::kRead));
    check(*reader);
  }
  // From table files.
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenStore(folder.path(), OpenMode::kRead));
  check(*reader);
  ASSERT_OK_AND_ASSIGN(const auto writer, OpenStore(folder.path(), OpenMode::kWrite));
  check(*writer);
}

TEST(DocumentStoreTest, BlockPartsReadOnlyWhatIsAskedFor) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
  ASSERT_OK(CommitSettings(store.get()));
  ASSERT_OK(CommitDocument(store.get(), MakeDocument(1, 0, 1, 20)));
  const Block whole = TestBlock(0, 1, 20);
  ASSERT_OK_AND_ASSIGN(const Block keys, store->GetBlock(0, 1, DocumentStore::BlockPart::kKeys));
  EXPECT_EQ(keys.n_tokens, 20);
  EXPECT_TRUE(SameNumbers(keys.keys, whole.keys));
  EXPECT_TRUE(keys.values.empty());
  ASSERT_OK_AND_ASSIGN(const Block values,
                       store->GetBlock(0, 1, DocumentStore::BlockPart::kValues));
  EXPECT_TRUE(SameNumbers(values.values, whole.values));
  EXPECT_TRUE(values.keys.empty());
  EXPECT_TRUE(absl::IsNotFound(store->GetBlock(0, 2).status()));
  EXPECT_TRUE(absl::IsNotFound(store->GetBlock(20, 0).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(store->GetBlock(0, -1).status()));
}

// Values of a block as MapBlock hands them out, and the file that keeps them.
struct MappedValues {
  BlockView view;
  std::string bytes;  // as they were during the call
};
absl::StatusOr<MappedValues> MapValues(const DocumentStore& store, Slot slot, int layer) {
  MappedValues mapped;
  RETURN_IF_ERROR(
      store.MapBlock(slot, layer, DocumentStore::BlockPart::kValues, [&](const BlockView& view) {
        mapped = {view, std::string(view.bytes)};
        return absl::OkStatus();
      }));
  return mapped;
}

std::string_view BytesOf(const EntryVector& numbers) {
  return {static_cast<const char*>(numbers.data().address()), numbers.size_bytes()};
}

TEST(DocumentStoreTest, MappedBlocksOutliveTheirStoreAndTheirFile) {
  TemporaryFolder folder;
  constexpr uint32_t kTokens = 64;
  const Block want = TestBlock(kTokens, 1, kTokens);
  MappedValues mapped;
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    ASSERT_OK(CommitSettings(store.get()));
    ASSERT_OK(CommitDocument(store.get(), MakeDocument(1, 0, 2, kTokens)));
    ASSERT_OK(CommitDocument(store.get(), MakeDocument(2, 2 * kTokens, 1, 4)));
    // In memory only, so far.
    ASSERT_OK_AND_ASSIGN(const MappedValues unwritten, MapValues(*store, kTokens, 1));
    EXPECT_EQ(unwritten.view.file, nullptr);
    EXPECT_EQ(unwritten.bytes, BytesOf(want.values));
    ASSERT_OK(store->Compact());
    ASSERT_OK_AND_ASSIGN(mapped, MapValues(*store, kTokens, 1));
    ASSERT_NE(mapped.view.file, nullptr);
    EXPECT_EQ(mapped.view.n_tokens, kTokens);
    EXPECT_TRUE(std::filesystem::exists(mapped.view.file->path()));
    // Too small for a file of blobs: it lies among the other records.
    ASSERT_OK_AND_ASSIGN(const MappedValues small, MapValues(*store, 2 * kTokens, 0));
    EXPECT_EQ(small.view.file, nullptr);
    EXPECT_EQ(small.bytes, BytesOf(TestBlock(2 * kTokens, 0, 4).values));
    EXPECT_TRUE(absl::IsNotFound(MapValues(*store, 999, 0).status()));
    // Other reads of the same thread and other threads' are not mapped.
    ASSERT_OK(store->VisitBlock(kTokens, 1, DocumentStore::BlockPart::kValues,
                                [&](const BlockView& view) {
                                  EXPECT_EQ(view.file, nullptr);
                                  EXPECT_EQ(view.bytes, BytesOf(want.values));
                                  return absl::OkStatus();
                                }));
  }
  std::filesystem::remove_all(folder.path());
  EXPECT_EQ(mapped.view.bytes, BytesOf(want.values));
}

TEST(DocumentStoreTest, AFlippedBitInAMappedBlockIsNamed) {
  TemporaryFolder folder;
  constexpr uint32_t kTokens = 64;
  std::filesystem::path blob;
  size_t offset = 0;
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    ASSERT_OK(CommitSettings(store.get()));
    ASSERT_OK(CommitDocument(store.get(), MakeDocument(1, 0, 1, kTokens)));
    ASSERT_OK(store->Compact());
    ASSERT_OK_AND_ASSIGN(const MappedValues mapped, MapValues(*store, 0, 1));
    ASSERT_NE(mapped.view.file, nullptr);
    blob = mapped.view.file->path();
    offset = static_cast<size_t>(mapped.view.bytes.data() - mapped.view.file->bytes().data()) + 77;
  }
  {
    std::fstream file(blob, std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(static_cast<std::streamoff>(offset));
    const int byte = file.get();
    file.seekp(static_cast<std::streamoff>(offset));
    file.put(static_cast<char>(byte ^ 0x10));
  }
  ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), OpenMode::kRead));
  EXPECT_TRUE(absl::IsDataLoss(MapValues(*store, 0, 1).status()));
  ASSERT_OK_AND_ASSIGN(const MappedValues other, MapValues(*store, 0, 0));
  EXPECT_EQ(other.bytes, BytesOf(TestBlock(0, 0, kTokens).values));
}

StoreSettings Float32Settings() {
  StoreSettings settings = TestSettings();
  settings.entry_type = EntryType::kFloat32;
  return settings;
}

TEST(DocumentStoreTest, Float32BlocksPersist) {
  TemporaryFolder folder;
  const Block block = TestBlock(0, 1, 20, Float32Settings());
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    Mutation settings;
    settings.PutSettings(Float32Settings());
    ASSERT_OK(store->Commit(std::move(settings)));
    Mutation mutation;
    mutation.PutWindow(TestWindow(0, 20));
    mutation.PutNextSlot(20);
    for (int layer = 0; layer < kTestMemoryLayers; ++layer) {
      mutation.PutBlock(0, layer, TestBlock(0, layer, 20, Float32Settings()));
    }
    ASSERT_OK(store->Commit(std::move(mutation)));
    ASSERT_OK_AND_ASSIGN(const Block stored, store->GetBlock(0, 1));
    EXPECT_TRUE(stored == block);
  }
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite}) {
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), mode));
    ASSERT_OK_AND_ASSIGN(const auto settings, store->Settings());
    EXPECT_TRUE(settings.value() == Float32Settings());
    EXPECT_EQ(settings->format_version(), 2);
    ASSERT_OK_AND_ASSIGN(const Block stored, store->GetBlock(0, 1));
    EXPECT_TRUE(stored == block);
    EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  }
}

TEST(DocumentStoreTest, BlocksHaveTheTypeThatTheSettingsSay) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
  ASSERT_OK(CommitSettings(store.get()));
  const auto expect_refused = [&](const char* what, const auto& add) {
    Mutation mutation;
    add(&mutation);
    const absl::Status status = store->Commit(std::move(mutation));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr(what));
  };
  expect_refused("block in float32, the settings have bfloat16", [](Mutation* mutation) {
    mutation->PutBlock(0, 0, TestBlock(0, 0, 10, Float32Settings()));
  });
  expect_refused("keys in bfloat16, values in float32", [](Mutation* mutation) {
    Block block = TestBlock(0, 0, 10);
    block.values = TestBlock(0, 0, 10, Float32Settings()).values;
    mutation->PutBlock(0, 0, block);
  });
  expect_refused("settings with entries in float32, the store has them in bfloat16",
                 [](Mutation* mutation) { mutation->PutSettings(Float32Settings()); });
  EXPECT_EQ(store->ReadCounters()->epoch, 1u);
}

TEST(DocumentStoreTest, DeletionRemovesADocumentWithAllThatBelongsToItAndNothingElse) {
  TemporaryFolder folder;
  const TestDocument first = MakeDocument(1, 0, 2, 30);
  const TestDocument second = MakeDocument(2, 60, 3, 30);
  const TestDocument third = MakeDocument(3, 150, 1, 30);
  {
    ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
    ASSERT_OK(CommitSettings(store.get()));
    for (const auto& document : {first, second, third}) {
      ASSERT_OK(CommitDocument(store.get(), document));
    }
    Mutation mutation;
    DeleteDocument(second, &mutation);
    ASSERT_OK(store->Commit(std::move(mutation)));
  }
  for (const OpenMode mode : {OpenMode::kRead, OpenMode::kWrite}) {
    ASSERT_OK_AND_ASSIGN(const auto store, OpenStore(folder.path(), mode));
    EXPECT_THAT(CheckDocument(*store, first), IsEmpty());
    EXPECT_THAT(CheckAbsent(*store, second), IsEmpty());
    EXPECT_THAT(CheckDocument(*store, third), IsEmpty());
    EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
  }
}

TEST(DocumentStoreTest, WindowsThatAreHeldCanBeReadAfterTheirDeletion) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
  ASSERT_OK(CommitSettings(store.get()));
  const TestDocument first = MakeDocument(1, 0, 2, 30);
  const TestDocument second = MakeDocument(2, 60, 2, 30);
  const auto is_readable = [&](Slot slot, const WindowHold* hold) {
    const absl::Status window = store->GetWindow(slot, hold).status();
    const absl::Status block = store->VisitBlock(
        slot, 0, DocumentStore::BlockPart::kKeys, [](const BlockView&) { return absl::OkStatus(); },
        hold);
    EXPECT_EQ(window.code(), block.code());
    EXPECT_TRUE(window.ok() || absl::IsNotFound(window)) << window;
    return window.ok();
  };
  ASSERT_OK(CommitDocument(store.get(), first));
  std::shared_ptr<const WindowHold> hold = store->HoldWindows();
  ASSERT_OK(CommitDocument(store.get(), second));
  EXPECT_TRUE(is_readable(60, hold.get()));  // stored since
  Mutation mutation;
  DeleteDocument(first, &mutation);
  DeleteDocument(second, &mutation);
  ASSERT_OK(store->Commit(std::move(mutation)));
  for (const bool is_compacted : {false, true}) {
    if (is_compacted) ASSERT_OK(store->Compact());
    EXPECT_TRUE(is_readable(0, hold.get()));
    EXPECT_TRUE(is_readable(30, hold.get()));
    EXPECT_FALSE(is_readable(60, hold.get()));  // was not there yet
    EXPECT_THAT(CheckAbsent(*store, first), IsEmpty());
    EXPECT_THAT(CheckAbsent(*store, second), IsEmpty());
  }
  const std::shared_ptr<const WindowHold> late = store->HoldWindows();
  EXPECT_FALSE(is_readable(0, late.get()));
  ASSERT_OK_AND_ASSIGN(const auto reader, OpenStore(folder.path(), OpenMode::kRead));
  EXPECT_EQ(reader->HoldWindows(), nullptr);
}

TEST(DocumentStoreTest, MutationAppliesInTheOrderOfItsCalls) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
  ASSERT_OK(CommitSettings(store.get()));
  const TestDocument document = MakeDocument(1, 0, 2, 10);
  Mutation mutation;
  PutDocument(document, &mutation);
  DeleteDocument(document, &mutation);
  PutDocument(document, &mutation);
  ASSERT_OK(store->Commit(std::move(mutation)));
  EXPECT_THAT(CheckDocument(*store, document), IsEmpty());
}

TEST(DocumentStoreTest, MutationWithOneBadRecordChangesNothing) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
  ASSERT_OK(CommitSettings(store.get()));
  const TestDocument document = MakeDocument(1, 0, 2, 10);

  const auto expect_refused = [&](const char* what, Mutation mutation) {
    const absl::Status status = store->Commit(std::move(mutation));
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr(what));
    EXPECT_THAT(CheckAbsent(*store, document), IsEmpty());
    EXPECT_EQ(store->ReadCounters()->epoch, 1u);
    EXPECT_EQ(store->ReadCounters()->next_slot, 0u);
  };
  const auto with = [&](const auto& add) {
    Mutation mutation;
    PutDocument(document, &mutation);
    add(&mutation);
    return mutation;
  };
  expect_refused("token ends", with([](Mutation* mutation) {
                   WindowRecord window = TestWindow(0, 10);
                   window.ends.pop_back();
                   mutation->PutWindow(window);
                 }));
  expect_refused("first passage", with([](Mutation* mutation) {
                   WindowRecord window = TestWindow(0, 10);
                   window.passage_begins[0] = 1;
                   mutation->PutWindow(window);
                 }));
  expect_refused("numbers for shape", with([](Mutation* mutation) {
                   Block block = TestBlock(0, 0, 10);
                   block.values = EntryVector(block.values.type(), block.values.size() - 1);
                   mutation->PutBlock(0, 0, block);
                 }));
  expect_refused("the settings have [3, n_tokens, 16]", with([](Mutation* mutation) {
                   StoreSettings other = TestSettings();
                   other.head_dim = 8;
                   mutation->PutBlock(0, 0, TestBlock(0, 0, 10, other));
                 }));
  expect_refused("memory layer 2, the settings have 2", with([](Mutation* mutation) {
                   mutation->PutBlock(0, kTestMemoryLayers, TestBlock(0, 0, 10));
                 }));
  expect_refused("no source", with([&](Mutation* mutation) {
                   DocumentRecord record = document.record;
                   record.sources.clear();
                   mutation->PutDocument(record);
                 }));
  expect_refused("next free slot",
                 with([](Mutation* mutation) { mutation->PutWindow(TestWindow(20, 1)); }));
  expect_refused("document number 9", with([&](Mutation* mutation) {
                   DocumentRecord record = document.record;
                   record.number = 9;
                   mutation->PutDocument(record);
                 }));
}

TEST(DocumentStoreTest, NumbersNeverGoBack) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
  Mutation forward;
  forward.PutNextSlot(100);
  forward.PutNextDocumentNumber(5);
  forward.PutNextSegmentId(3);
  ASSERT_OK(store->Commit(std::move(forward)));
  Mutation slot;
  slot.PutNextSlot(99);
  EXPECT_TRUE(absl::IsInvalidArgument(store->Commit(std::move(slot))));
  Mutation document;
  document.PutNextDocumentNumber(4);
  EXPECT_TRUE(absl::IsInvalidArgument(store->Commit(std::move(document))));
  Mutation segment;
  segment.PutNextSegmentId(2);
  EXPECT_TRUE(absl::IsInvalidArgument(store->Commit(std::move(segment))));
}

TEST(DocumentStoreTest, VisitorsStopTheWalkWithTheirError) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
  ASSERT_OK(CommitSettings(store.get()));
  ASSERT_OK(CommitDocument(store.get(), MakeDocument(1, 0, 3, 10)));
  int n_visits = 0;
  const absl::Status status = store->ForEachLink([&](const WindowLink&) {
    return ++n_visits == 2 ? absl::CancelledError("enough") : absl::OkStatus();
  });
  EXPECT_TRUE(absl::IsCancelled(status));
  EXPECT_EQ(n_visits, 2);
}

TEST(DocumentStoreTest, ReadersRefuseToWrite) {
  TemporaryFolder folder;
  { ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate)); }
  ASSERT_OK_AND_ASSIGN(auto reader, OpenStore(folder.path(), OpenMode::kRead));
  EXPECT_EQ(reader->Commit(Mutation()).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(reader->Compact().code(), absl::StatusCode::kFailedPrecondition);
}

TEST(DocumentStoreTest, SecondWriterOfTheSameProcessIsRefused) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate));
  const auto second = OpenStore(folder.path(), OpenMode::kWrite);
  EXPECT_TRUE(absl::IsUnavailable(second.status())) << second.status();
  EXPECT_THAT(Message(second.status()), HasSubstr("this process"));
  ASSERT_OK(CommitSettings(store.get()));  // the first one's lock is intact
}

TEST(DocumentStoreTest, ReaderSeesCommitsOnlyAfterRefresh) {
  TemporaryFolder folder;
  ASSERT_OK_AND_ASSIGN(auto writer, OpenStore(folder.path(), OpenMode::kCreate));
  ASSERT_OK_AND_ASSIGN(auto reader, OpenStore(folder.path(), OpenMode::kRead));
  ASSERT_OK_AND_ASSIGN(bool changed, reader->Refresh());
  EXPECT_FALSE(changed);
  ASSERT_OK(CommitSettings(writer.get()));
  const TestDocument document = MakeDocument(1, 0, 2, 30);
  ASSERT_OK(CommitDocument(writer.get(), document));
  EXPECT_THAT(CheckAbsent(*reader, document), IsEmpty());
  ASSERT_OK_AND_ASSIGN(changed, reader->Refresh());
  EXPECT_TRUE(changed);
  EXPECT_THAT(CheckDocument(*reader, document), IsEmpty());
  ASSERT_OK_AND_ASSIGN(changed, reader->Refresh());
  EXPECT_FALSE(changed);

  // Across the end of the writer, which turns its log into table files, and a new writer.
  Mutation mutation;
  DeleteDocument(document, &mutation);
  ASSERT_OK(writer->Commit(std::move(mutation)));
  writer.reset();
  ASSERT_OK_AND_ASSIGN(writer, OpenStore(folder.path(), OpenMode::kWrite));
  const TestDocument next = MakeDocument(2, 60, 1, 30);
  ASSERT_OK(CommitDocument(writer.get(), next));
  EXPECT_THAT(CheckDocument(*reader, document), IsEmpty());
  ASSERT_OK_AND_ASSIGN(changed, reader->Refresh());
  EXPECT_TRUE(changed);
  EXPECT_THAT(CheckAbsent(*reader, document), IsEmpty());
  EXPECT_THAT(CheckDocument(*reader, next), IsEmpty());
}

TEST(DocumentStoreTest, ReadersLeaveNoFileBehind) {
  TemporaryFolder folder;
  { ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder / "store", OpenMode::kCreate)); }
  const auto list = [&] {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::recursive_directory_iterator(folder.path())) {
      names.push_back(entry.path());
    }
    std::sort(names.begin(), names.end());
    return names;
  };
  const auto before = list();
  ASSERT_OK_AND_ASSIGN(auto reader, OpenStore(folder / "store", OpenMode::kRead));
  ASSERT_OK_AND_ASSIGN(const bool changed, reader->Refresh());
  EXPECT_FALSE(changed);
  EXPECT_EQ(list(), before);
  reader.reset();
  EXPECT_EQ(list(), before);
}

uint64_t FolderBytes(const std::filesystem::path& folder) {
  uint64_t size_bytes = 0;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.is_regular_file()) size_bytes += entry.file_size();
  }
  return size_bytes;
}

TEST(DocumentStoreTest, CompactFreesTheDiskSpaceOfDeletedDocumentsAndKeepsTheOthers) {
  TemporaryFolder folder;
  StoreOptions options;
  options.write_buffer_bytes = 1 << 20;  // several blob files
  ASSERT_OK_AND_ASSIGN(auto store, OpenStore(folder.path(), OpenMode::kCreate, options));
  ASSERT_OK(CommitSettings(store.get()));
  std::vector<TestDocument> documents;
  Slot slot = 0;
  for (DocumentNumber number = 1; number <= 24; ++number) {
    documents.push_back(MakeDocument(number, slot, 4, 128));
    slot += 4 * 128;
    ASSERT_OK(CommitDocument(store.get(), documents.back()));
  }
  const uint64_t block_bytes = 24 * 4 * kTestMemoryLayers * 2 * 128 * 3 * 16 * 2;
  ASSERT_OK(store->Compact());
  const uint64_t full_bytes = FolderBytes(folder.path());
  EXPECT_GE(full_bytes, block_bytes);
  ASSERT_OK_AND_ASSIGN(const BytesByKind full, store->SizeByKind());
  EXPECT_GE(full.blocks, block_bytes);
  EXPECT_LT(full.blocks, block_bytes + block_bytes / 10);
  EXPECT_GT(full.text, 0u);

  // Every file of blocks keeps some documents and loses some.
  Mutation mutation;
  for (size_t i = 0; i < documents.size(); i += 2) DeleteDocument(documents[i], &mutation);
  ASSERT_OK(store->Commit(std::move(mutation)));
  ASSERT_OK(store->Compact());
  const uint64_t half_bytes = FolderBytes(folder.path());
  EXPECT_LT(half_bytes, full_bytes * 6 / 10);
  ASSERT_OK_AND_ASSIGN(const BytesByKind half, store->SizeByKind());
  EXPECT_LT(half.blocks, full.blocks * 6 / 10);
  EXPECT_LT(half.text, full.text * 8 / 10);
  for (size_t i = 0; i < documents.size(); ++i) {
    EXPECT_THAT(
        i % 2 == 0 ? CheckAbsent(*store, documents[i]) : CheckDocument(*store, documents[i]),
        IsEmpty());
  }

  Mutation rest;
  for (size_t i = 1; i < documents.size(); i += 2) DeleteDocument(documents[i], &rest);
  ASSERT_OK(store->Commit(std::move(rest)));
  ASSERT_OK(store->Compact());
  ASSERT_OK_AND_ASSIGN(const BytesByKind none, store->SizeByKind());
  EXPECT_LT(none.blocks, full.blocks / 50);
  EXPECT_LT(FolderBytes(folder.path()), full_bytes / 20);
  EXPECT_THAT(ToText(VerifyAll(*store)), IsEmpty());
}

}  // namespace
}  // namespace fovea::storage
