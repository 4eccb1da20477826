// Memories for tests, written straight into the store: random keys and values, queries that look
// for one key each, letters as texts. No model is needed.
#pragma once

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "base/hash.h"
#include "compute/device.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "memory/memory.h"
#include "tests/storage/store_test_util.h"

namespace fovea::memory {

using storage::DocumentNumber;
using storage::DocumentRecord;
using storage::Mutation;
using storage::SegmentRecord;
using storage::StoreSettings;
using storage::TemporaryFolder;
using storage::WindowLink;
using storage::WindowRecord;

constexpr int kTestLayers = 2;
constexpr int64_t kTestHeads = 4;
constexpr int64_t kTestKvHeads = 2;
constexpr int64_t kTestHeadDim = 16;

inline StoreSettings SyntheticSettings(const std::string& index_spec) {
  StoreSettings settings;
  settings.fingerprint = "00112233445566778899aabbccddeeff";
  settings.model = "synthetic";
  settings.window = 64;
  settings.overlap = 8;
  settings.index_spec = index_spec;
  settings.n_mem_layers = kTestLayers;
  settings.n_kv_heads = kTestKvHeads;
  settings.head_dim = kTestHeadDim;
  return settings;
}

// One token a letter; content follows from the slot.
inline WindowRecord SyntheticWindow(Slot slot_begin, uint32_t n_tokens) {
  std::mt19937 random(static_cast<uint32_t>(slot_begin * 2654435761u));
  WindowRecord window;
  window.slot_begin = slot_begin;
  for (int i = 0; i < 4; ++i) window.context_ids.push_back(static_cast<int32_t>('a' + i));
  for (uint32_t i = 0; i < n_tokens; ++i) {
    const char letter = i % 6 == 5 ? ' ' : static_cast<char>('a' + random() % 26);
    window.text.push_back(letter);
    window.ids.push_back(letter);
    window.ends.push_back(i + 1);
  }
  for (uint32_t begin = 0; begin < n_tokens; begin += 24) window.passage_begins.push_back(begin);
  window.content_hash = FastHash128(window.text);
  return window;
}

// Keys all of length 6 in random directions, so that a key's own query stands far out.
inline storage::Block SyntheticBlock(Slot slot_begin, int memory_layer, uint32_t n_tokens,
                                     EntryType type = EntryType::kBFloat16) {
  std::mt19937 random(static_cast<uint32_t>(slot_begin * 97 + memory_layer));
  std::normal_distribution<float> normal;
  storage::Block block;
  block.n_tokens = n_tokens;
  block.n_kv_heads = kTestKvHeads;
  block.head_dim = kTestHeadDim;
  std::vector<float> keys, values;
  for (int64_t row = 0; row < block.n_kv_heads * block.n_tokens; ++row) {
    float key[kTestHeadDim];
    float norm = 0.0f;
    for (float& x : key) {
      x = normal(random);
      norm += x * x;
    }
    for (float& x : key) keys.push_back(x * 6.0f / std::sqrt(norm));
    for (int64_t i = 0; i < kTestHeadDim; ++i) values.push_back(normal(random));
  }
  for (auto [half, numbers] : {std::pair{&block.keys, &keys}, {&block.values, &values}}) {
    *half = EntryVector(type, numbers->size());
    half->Set(0, numbers->data(), numbers->size());
  }
  return block;
}

// Queries for the first keys of the window: four times the key.
inline storage::QuerySample SyntheticSample(Slot slot_begin, uint32_t n_tokens) {
  storage::QuerySample sample;
  sample.n_queries = std::min<int64_t>(4, n_tokens);
  sample.queries.resize(kTestLayers);
  for (int layer = 0; layer < kTestLayers; ++layer) {
    const storage::Block block = SyntheticBlock(slot_begin, layer, n_tokens);
    for (int64_t query = 0; query < sample.n_queries; ++query) {
      for (int64_t head = 0; head < kTestHeads; ++head) {
        const int64_t kv_head = head * kTestKvHeads / kTestHeads;
        for (int64_t i = 0; i < kTestHeadDim; ++i) {
          const float key =
              block
                  .keys[static_cast<size_t>((kv_head * block.n_tokens + query) * kTestHeadDim + i)];
          sample.queries[static_cast<size_t>(layer)].emplace_back(4.0f * key);
        }
      }
    }
  }
  return sample;
}

struct DocumentShape {
  int n_windows = 4;
  uint32_t n_tokens = 64;  // in a window
  // Slots that are taken in all, windows at the beginning; 0: as many as tokens. Numbers are
  // cheap: a test of many slots need not store many tokens.
  uint64_t n_slots = 0;
  bool complete = true;
  bool with_blocks = true;
};

inline void PutWindowWithBlocks(Slot slot_begin, uint32_t n_tokens, bool with_blocks,
                                Mutation* mutation) {
  mutation->PutWindow(SyntheticWindow(slot_begin, n_tokens));
  if (!with_blocks) return;
  for (int layer = 0; layer < kTestLayers; ++layer) {
    mutation->PutBlock(slot_begin, layer, SyntheticBlock(slot_begin, layer, n_tokens));
  }
  mutation->PutQuerySample(slot_begin, SyntheticSample(slot_begin, n_tokens));
}

// Appends a document; returns its record.
inline absl::StatusOr<DocumentRecord> AddDocument(storage::DocumentStore& store,
                                                  const DocumentShape& shape) {
  ASSIGN_OR_RETURN(const storage::Counters counters, store.ReadCounters());
  DocumentRecord document;
  document.number = counters.next_document;
  document.sources = {{.source = StrCat("books/", document.number, ".txt"),
                       .collection = "default",
                       .title = StrCat("Document ", document.number),
                       .replaceable = true}};
  document.complete = shape.complete;
  document.ingested_unix_s = 1700000000;
  Mutation mutation;
  std::string text;
  Slot slot = counters.next_slot;
  for (int i = 0; i < shape.n_windows; ++i) {
    PutWindowWithBlocks(slot, shape.n_tokens, shape.with_blocks, &mutation);
    WindowLink link;
    link.document = document.number;
    link.ordinal = static_cast<uint64_t>(i);
    link.slot_begin = slot;
    link.n_tokens = shape.n_tokens;
    link.byte_begin = text.size();
    link.n_bytes = shape.n_tokens;
    mutation.PutLink(link);
    text += SyntheticWindow(slot, shape.n_tokens).text;
    slot += shape.n_tokens;
  }
  document.id = Sha256Hex(text).substr(0, 32);
  document.size_bytes = text.size();
  document.n_tokens = text.size();
  document.n_windows = static_cast<uint64_t>(shape.n_windows);
  mutation.PutDocument(document);
  mutation.PutNextDocumentNumber(document.number + 1);
  mutation.PutNextSlot(std::max(slot, counters.next_slot + shape.n_slots));
  RETURN_IF_ERROR(store.Commit(std::move(mutation)));
  return document;
}

// A new memory with settings, open for writing.
inline absl::StatusOr<std::unique_ptr<Memory>> CreateSyntheticMemory(
    const std::filesystem::path& folder, const std::string& index_spec) {
  MemoryOptions options;
  options.mode = storage::OpenMode::kCreate;
  ASSIGN_OR_RETURN(std::unique_ptr<Memory> memory, Memory::Open(folder, options));
  RETURN_IF_ERROR(memory->InitializeSettings(SyntheticSettings(index_spec)));
  return memory;
}

inline absl::StatusOr<std::unique_ptr<Memory>> OpenMemory(const std::filesystem::path& folder,
                                                          storage::OpenMode mode) {
  MemoryOptions options;
  options.mode = mode;
  return Memory::Open(folder, options);
}

inline std::unique_ptr<compute::Device> TestDevice() {
  auto device = compute::Device::Create("cpu", 1);
  FOVEA_CHECK(device.ok());
  return *std::move(device);
}

// Segments of the generation that queries see, by slot.
inline std::vector<SegmentRecord> VisibleSegments(const storage::DocumentStore& store) {
  auto segments = store.Segments();
  const auto counters = store.ReadCounters();
  FOVEA_CHECK(segments.ok() && counters.ok());
  std::erase_if(*segments,
                [&](const auto& segment) { return segment.generation != counters->generation; });
  std::sort(segments->begin(), segments->end(),
            [](const auto& a, const auto& b) { return a.slot_begin < b.slot_begin; });
  return *std::move(segments);
}

// Names of the files in a folder, sorted.
inline std::vector<std::string> FilesIn(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline std::vector<std::string> FilesOf(const std::vector<SegmentRecord>& segments) {
  std::vector<std::string> names;
  for (const SegmentRecord& segment : segments) {
    for (const storage::SegmentFile& file : segment.files) names.push_back(file.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

inline void FlipBit(const std::filesystem::path& path, uint64_t byte) {
  std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
  file.seekg(static_cast<std::streamoff>(byte));
  const char old = static_cast<char>(file.get());
  file.seekp(static_cast<std::streamoff>(byte));
  file.put(static_cast<char>(old ^ 0x10));
  FOVEA_CHECK(file.good());
}

// Cancels at the `n`-th update of one stage (counted from 1).
class CancelAt {
 public:
  CancelAt(std::string stage, int n) : stage_(std::move(stage)), n_(n) {}
  Progress progress() {
    return Progress(
        [this](const ProgressUpdate& update) {
          if (update.stage == stage_ && --n_ == 0) cancelled_ = true;
        },
        &cancelled_);
  }

 private:
  const std::string stage_;
  std::atomic<int> n_;
  std::atomic<bool> cancelled_{false};
};

}  // namespace fovea::memory
