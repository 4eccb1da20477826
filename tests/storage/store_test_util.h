// Records, folders and assertions for tests of the store.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <memory>
#include <random>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "storage/document_store.h"

#define ASSERT_OK(expr)                           \
  do {                                            \
    const absl::Status test_status = (expr);      \
    ASSERT_TRUE(test_status.ok()) << test_status; \
  } while (false)
#define EXPECT_OK(expr)                           \
  do {                                            \
    const absl::Status test_status = (expr);      \
    EXPECT_TRUE(test_status.ok()) << test_status; \
  } while (false)
// Declares `lhs` from an absl::StatusOr that must be OK.
#define ASSERT_OK_AND_ASSIGN(lhs, ...) \
  ASSERT_OK_AND_ASSIGN_IMPL(FOVEA_CONCAT(test_statusor_, __LINE__), lhs, (__VA_ARGS__))
#define ASSERT_OK_AND_ASSIGN_IMPL(tmp, lhs, expr) \
  auto tmp = expr;                                \
  ASSERT_TRUE(tmp.ok()) << tmp.status();          \
  lhs = *std::move(tmp)

namespace fovea::storage {

// Memory-backed where there is such a folder, for tests that sync thousands of times.
inline std::filesystem::path FastTemporaryRoot() {
  std::error_code ignored;
  const std::filesystem::path memory = "/dev/shm";
  return access(memory.c_str(), W_OK) == 0 ? memory : std::filesystem::temp_directory_path(ignored);
}

// A folder of its own, removed at the end.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(
      const std::filesystem::path& parent = std::filesystem::temp_directory_path()) {
    std::string name = parent / "fovea-storage-XXXXXX";
    FOVEA_CHECK(mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  ~TemporaryFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path operator/(const char* name) const { return path_ / name; }

 private:
  std::filesystem::path path_;
};

constexpr int kTestMemoryLayers = 2;

inline StoreSettings TestSettings() {
  StoreSettings settings;
  settings.fingerprint = "9f2c";
  settings.model = "models/small.gguf";
  settings.window = 64;
  settings.overlap = 8;
  settings.n_mem_layers = kTestMemoryLayers;
  settings.n_kv_heads = 3;
  settings.head_dim = 16;
  return settings;
}

// Records whose content follows from their number alone, so that any process can tell what a
// record must say.
inline WindowRecord TestWindow(Slot slot_begin, uint32_t n_tokens) {
  std::mt19937 random(static_cast<uint32_t>(slot_begin * 7919 + n_tokens));
  WindowRecord window;
  window.slot_begin = slot_begin;
  window.content_hash = {.high = random(), .low = random()};
  for (uint32_t i = 0; i < 8; ++i) {
    window.context_ids.push_back(static_cast<int32_t>(random() % 49152));
  }
  for (uint32_t i = 0; i < n_tokens; ++i) {
    window.ids.push_back(static_cast<int32_t>(random() % 49152));
    const uint32_t n_letters = random() % 7;
    for (uint32_t j = 0; j < n_letters; ++j) {
      window.text.push_back(static_cast<char>('a' + random() % 26));
    }
    window.ends.push_back(static_cast<uint32_t>(window.text.size()));
  }
  for (uint32_t begin = 0; begin < n_tokens; begin += 1 + random() % 40) {
    window.passage_begins.push_back(begin);
  }
  return window;
}

inline Block TestBlock(Slot slot_begin, int memory_layer, uint32_t n_tokens,
                       const StoreSettings& settings = TestSettings()) {
  std::mt19937 random(static_cast<uint32_t>(slot_begin * 104729) +
                      static_cast<uint32_t>(memory_layer));
  Block block;
  block.n_tokens = n_tokens;
  block.n_kv_heads = settings.n_kv_heads;
  block.head_dim = settings.head_dim;
  const size_t n_numbers = static_cast<size_t>(block.n_tokens * block.n_kv_heads * block.head_dim);
  for (EntryVector* half : {&block.keys, &block.values}) {
    *half = EntryVector(settings.entry_type, n_numbers);
    const std::span<std::byte> bytes = half->bytes();
    for (size_t i = 0; i < bytes.size(); i += sizeof(uint16_t)) {
      const auto bits = static_cast<uint16_t>(random());
      std::memcpy(bytes.data() + i, &bits, sizeof(bits));
    }
  }
  return block;
}

inline QuerySample TestSample(Slot slot_begin) {
  std::mt19937 random(static_cast<uint32_t>(slot_begin));
  QuerySample sample;
  sample.n_queries = 2;
  sample.queries.resize(kTestMemoryLayers);
  for (auto& layer : sample.queries) {
    layer.resize(2 * 9 * 16);
    for (BFloat16& number : layer) number.bits = static_cast<uint16_t>(random());
  }
  return sample;
}

// A document of `n_windows` windows of `n_tokens` tokens, with everything that belongs to it.
struct TestDocument {
  DocumentRecord record;
  std::vector<WindowLink> links;
};

inline TestDocument MakeDocument(DocumentNumber number, Slot slot_begin, uint64_t n_windows,
                                 uint32_t n_tokens) {
  TestDocument document;
  document.record.number = number;
  document.record.id = "0123456789abcdef0123456789abcdef";
  for (const char* collection : {"default", "books"}) {
    document.record.sources.push_back({.source = StrCat("books/", number, ".txt"),
                                       .collection = collection,
                                       .title = StrCat("Document ", number),
                                       .replaceable = true});
  }
  document.record.complete = true;
  document.record.ingested_unix_s = 1700000000 + static_cast<int64_t>(number);
  for (uint64_t i = 0; i < n_windows; ++i) {
    const Slot slot = slot_begin + i * n_tokens;
    const uint32_t n_bytes = static_cast<uint32_t>(TestWindow(slot, n_tokens).text.size());
    document.links.push_back({.document = number,
                              .ordinal = i,
                              .slot_begin = slot,
                              .n_tokens = n_tokens,
                              .byte_begin = document.record.size_bytes,
                              .n_bytes = n_bytes});
    document.record.size_bytes += n_bytes;
    document.record.n_tokens += n_tokens;
    document.record.n_windows += 1;
  }
  return document;
}

inline void PutDocument(const TestDocument& document, Mutation* mutation) {
  mutation->PutDocument(document.record);
  Slot slot_end = 0;
  for (const WindowLink& link : document.links) {
    mutation->PutLink(link);
    mutation->PutWindow(TestWindow(link.slot_begin, link.n_tokens));
    for (int layer = 0; layer < kTestMemoryLayers; ++layer) {
      mutation->PutBlock(link.slot_begin, layer, TestBlock(link.slot_begin, layer, link.n_tokens));
    }
    mutation->PutQuerySample(link.slot_begin, TestSample(link.slot_begin));
    slot_end = link.slot_begin + link.n_tokens;
  }
  mutation->PutNextSlot(slot_end);
  mutation->PutNextDocumentNumber(document.record.number + 1);
}

inline void DeleteDocument(const TestDocument& document, Mutation* mutation) {
  mutation->DeleteDocument(document.record.number);
  for (const WindowLink& link : document.links) mutation->DeleteWindow(link.slot_begin);
}

inline bool operator==(const StoreSettings& a, const StoreSettings& b) {
  return a.fingerprint == b.fingerprint && a.model == b.model && a.adapter == b.adapter &&
         a.window == b.window && a.overlap == b.overlap && a.encoding == b.encoding &&
         a.index_spec == b.index_spec && a.n_mem_layers == b.n_mem_layers &&
         a.n_kv_heads == b.n_kv_heads && a.head_dim == b.head_dim && a.entry_type == b.entry_type;
}
inline bool operator==(const WindowRecord& a, const WindowRecord& b) {
  return a.slot_begin == b.slot_begin && a.content_hash == b.content_hash &&
         a.context_ids == b.context_ids && a.ids == b.ids && a.ends == b.ends &&
         a.passage_begins == b.passage_begins && a.text == b.text;
}
inline bool SameNumbers(const std::vector<BFloat16>& a, const std::vector<BFloat16>& b) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i].bits != b[i].bits) return false;
  }
  return true;
}
inline bool SameNumbers(const EntryVector& a, const EntryVector& b) {
  return a.type() == b.type() && a.size() == b.size() &&
         (a.empty() || std::memcmp(a.data().address(), b.data().address(), a.size_bytes()) == 0);
}
inline bool operator==(const Block& a, const Block& b) {
  return a.n_tokens == b.n_tokens && a.n_kv_heads == b.n_kv_heads && a.head_dim == b.head_dim &&
         SameNumbers(a.keys, b.keys) && SameNumbers(a.values, b.values);
}
inline bool operator==(const QuerySample& a, const QuerySample& b) {
  if (a.n_queries != b.n_queries || a.queries.size() != b.queries.size()) return false;
  for (size_t i = 0; i < a.queries.size(); ++i) {
    if (!SameNumbers(a.queries[i], b.queries[i])) return false;
  }
  return true;
}
inline bool operator==(const DocumentRecord& a, const DocumentRecord& b) {
  return a.number == b.number && a.id == b.id && a.sources == b.sources &&
         a.size_bytes == b.size_bytes && a.n_tokens == b.n_tokens && a.n_windows == b.n_windows &&
         a.complete == b.complete && a.ingested_unix_s == b.ingested_unix_s;
}
inline bool operator==(const WindowLink& a, const WindowLink& b) {
  return a.document == b.document && a.ordinal == b.ordinal && a.slot_begin == b.slot_begin &&
         a.n_tokens == b.n_tokens && a.byte_begin == b.byte_begin && a.n_bytes == b.n_bytes &&
         a.repeats == b.repeats;
}
inline bool operator==(const SegmentFile& a, const SegmentFile& b) {
  return a.name == b.name && a.size_bytes == b.size_bytes && a.checksum == b.checksum;
}
inline bool operator==(const SegmentRecord& a, const SegmentRecord& b) {
  return a.id == b.id && a.generation == b.generation && a.slot_begin == b.slot_begin &&
         a.slot_end == b.slot_end && a.n_tokens == b.n_tokens && a.spec == b.spec &&
         a.requested_spec == b.requested_spec && a.n_probe == b.n_probe &&
         a.n_candidates == b.n_candidates && a.needle_recall == b.needle_recall &&
         a.faiss_version == b.faiss_version && a.fingerprint == b.fingerprint && a.files == b.files;
}

// What is wrong with what the store says of `document`; empty: it is there in full and right.
inline std::string CheckDocument(const DocumentStore& store, const TestDocument& document) {
  std::vector<DocumentRecord> records;
  const absl::Status walked = store.ForEachDocument([&](const DocumentRecord& record) {
    if (record.number == document.record.number) records.push_back(record);
    return absl::OkStatus();
  });
  if (!walked.ok()) return walked.ToString();
  if (records.size() != 1 || !(records[0] == document.record)) return "record is not there";
  const auto links = store.Links(document.record.number);
  if (!links.ok()) return links.status().ToString();
  if (!std::equal(links->begin(), links->end(), document.links.begin(), document.links.end())) {
    return "links differ";
  }
  for (const WindowLink& link : document.links) {
    const auto window = store.GetWindow(link.slot_begin);
    if (!window.ok()) return window.status().ToString();
    if (!(*window == TestWindow(link.slot_begin, link.n_tokens))) return "window differs";
    for (int layer = 0; layer < kTestMemoryLayers; ++layer) {
      const auto block = store.GetBlock(link.slot_begin, layer);
      if (!block.ok()) return block.status().ToString();
      if (!(*block == TestBlock(link.slot_begin, layer, link.n_tokens))) return "block differs";
    }
    const auto sample = store.GetQuerySample(link.slot_begin);
    if (!sample.ok()) return sample.status().ToString();
    if (!(*sample == TestSample(link.slot_begin))) return "sample differs";
  }
  return "";
}

// What is there of `document` that should not be; empty: nothing.
inline std::string CheckAbsent(const DocumentStore& store, const TestDocument& document) {
  std::string found;
  const absl::Status walked = store.ForEachDocument([&](const DocumentRecord& record) {
    if (record.number == document.record.number) found = "record is there";
    return absl::OkStatus();
  });
  if (!walked.ok()) return walked.ToString();
  if (!found.empty()) return found;
  const auto links = store.Links(document.record.number);
  if (!links.ok()) return links.status().ToString();
  if (!links->empty()) return "links are there";
  for (const WindowLink& link : document.links) {
    if (!absl::IsNotFound(store.GetWindow(link.slot_begin).status())) return "a window is there";
    for (int layer = 0; layer < kTestMemoryLayers; ++layer) {
      for (const auto part : {DocumentStore::BlockPart::kKeys, DocumentStore::BlockPart::kValues}) {
        if (!absl::IsNotFound(store.GetBlock(link.slot_begin, layer, part).status())) {
          return "a block is there";
        }
      }
    }
    if (!absl::IsNotFound(store.GetQuerySample(link.slot_begin).status())) {
      return "a sample is there";
    }
  }
  return "";
}

// Everything that Verify reports, one finding a line.
inline std::vector<Damage> VerifyAll(const DocumentStore& store) {
  std::vector<Damage> found;
  const auto counts = store.Verify([&](const Damage& damage) {
    found.push_back(damage);
    return absl::OkStatus();
  });
  EXPECT_TRUE(counts.ok()) << counts.status();
  return found;
}
inline std::string ToText(const std::vector<Damage>& found) {
  std::string text;
  for (const Damage& damage : found) {
    text += StrCat(damage.kind, " slot ", damage.slot_begin, " layer ", damage.memory_layer,
                   " document ", damage.document, ": ", damage.what, "\n");
  }
  return text;
}

inline absl::StatusOr<std::unique_ptr<DocumentStore>> OpenStore(const std::filesystem::path& folder,
                                                                OpenMode mode,
                                                                StoreOptions options = {}) {
  options.mode = mode;
  return DocumentStore::Open(folder, options);
}

}  // namespace fovea::storage
