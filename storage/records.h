// The records of the store and their names for things (docs/storage-format.md has the bytes).
// Plain data; encoding and decoding are in record_codec.h.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/entries.h"
#include "base/file.h"
#include "base/float16.h"
#include "base/hash.h"

namespace fovea::storage {

// A stored token, for ever: numbers grow with each commit and are never used again.
using Slot = uint64_t;
using DocumentNumber = uint64_t;

// A store has the oldest format version that can say what is in it, so that older programs read
// what they understand and refuse the rest by its version.
constexpr int kFormatVersion = 1;
constexpr int kFloat32FormatVersion = 2;  // entries in float32
constexpr int kSourcesFormatVersion = 3;  // documents that several sources refer to
constexpr int kRepeatsFormatVersion = 4;  // windows with tokens that are not to be selected
constexpr int kNewestFormatVersion = kRepeatsFormatVersion;

// What the first ingest fixed. Changed only by a re-encoding rebuild.
struct StoreSettings {
  std::string fingerprint;  // of the model that encoded everything
  std::string model;        // path or name, as given
  std::string adapter;      // path; empty: none
  int window = 1024;        // most tokens in a window
  int overlap = 128;        // tokens of the previous window seen as context
  std::string encoding = "window-local";
  std::string index_spec = "auto";
  int n_mem_layers = 0;
  int n_kv_heads = 0;
  int head_dim = 0;
  EntryType entry_type = EntryType::kBFloat16;  // of all blocks

  int format_version() const {
    return entry_type == EntryType::kFloat32 ? kFloat32FormatVersion : kFormatVersion;
  }
};

// A window: immutable, self-contained (its blocks are a function of context_ids and ids alone).
struct WindowRecord {
  Slot slot_begin = 0;
  Hash128 content_hash;                  // of context_ids and ids
  std::vector<int32_t> context_ids;      // the overlap; empty at the start of a document
  std::vector<int32_t> ids;              // [n_tokens]
  std::vector<uint32_t> ends;            // [n_tokens], byte in `text` where each token ends
  std::vector<uint32_t> passage_begins;  // first token of each passage; [0] is 0
  std::string text;                      // UTF-8, exactly the bytes that the tokens cover
};

// Keys (before RoPE, times the gain) and values of a window at one memory layer, of the type that
// the settings say.
struct Block {
  int64_t n_tokens = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  EntryVector keys;    // [n_kv_heads, n_tokens, head_dim]: one head's keys lie together
  EntryVector values;  // [n_kv_heads, n_tokens, head_dim]
};

// Keys or values of a block where the store read them.
struct BlockView {
  int64_t n_tokens = 0;
  int64_t n_kv_heads = 0;
  int64_t head_dim = 0;
  EntryType type = EntryType::kBFloat16;
  std::string_view bytes;  // entries [n_kv_heads, n_tokens, head_dim], at any address
  // Where the bytes are the file's own, as MapBlock finds them: they live as long as it. Else null.
  std::shared_ptr<const MappedFile> file;
};

// Queries of the memory layers at a few positions of a window, kept as a sample of real queries
// for calibrating indexes.
struct QuerySample {
  int64_t n_queries = 0;
  std::vector<std::vector<BFloat16>> queries;  // [n_mem_layers][n_queries, n_heads, head_dim]
};

// What refers to a document: a file, a record of a JSONL file, standard input. A file that is
// ingested into two collections is two sources, each of which is replaced by itself.
struct SourceReference {
  std::string source = {};  // path, "path#id" or "-"
  std::string collection = {};
  std::string title = {};
  bool replaceable = false;  // new content from the same source takes its place

  bool operator==(const SourceReference&) const = default;
};

// A document is content; its sources refer to it. It goes when the last of them does.
struct DocumentRecord {
  DocumentNumber number = 0;
  std::string id;  // 32 hex digits of the SHA-256 of the text
  // At least one, in the order in which they came; no two with the same source and collection.
  std::vector<SourceReference> sources;
  uint64_t size_bytes = 0;  // of the text
  uint64_t n_tokens = 0;
  uint64_t n_windows = 0;
  // False while its windows are still being committed, and again once nothing refers to it: it is
  // invisible then, and a version with the same windows may still use them.
  bool complete = false;
  int64_t ingested_unix_s = 0;

  // Of the first source.
  const std::string& title() const { return sources.at(0).title; }
  const std::string& source() const { return sources.at(0).source; }
  std::vector<std::string> collections() const;  // each once, in the order of the sources
  bool IsIn(std::string_view collection) const;
};

// Consecutive tokens of a window.
struct TokenRange {
  uint32_t begin = 0;
  uint32_t n_tokens = 0;

  bool operator==(const TokenRange&) const = default;
};

// Window `ordinal` of a document. A window belongs to one document; during a replacement the new
// version may link windows of the old one.
struct WindowLink {
  DocumentNumber document = 0;
  uint64_t ordinal = 0;
  Slot slot_begin = 0;
  uint32_t n_tokens = 0;
  uint64_t byte_begin = 0;  // of the window's text in the document's text
  uint32_t n_bytes = 0;
  // Tokens that no query selects (memory/sinks.h): ascending, none empty, with others between them.
  std::vector<TokenRange> repeats = {};
};

struct SegmentFile {
  std::string name;  // relative to the memory's index folder
  uint64_t size_bytes = 0;
  uint64_t checksum = 0;  // XXH3-64 of the whole file
};

// A sealed run of slots [slot_begin, slot_end) with its index. Segments of one generation do not
// overlap and leave no gap; slots from the last slot_end on are the growing segment.
struct SegmentRecord {
  uint64_t id = 0;          // never reused
  uint64_t generation = 0;  // the rebuild that it belongs to
  Slot slot_begin = 0;
  Slot slot_end = 0;
  uint64_t n_tokens = 0;       // live ones when it was built
  std::string spec;            // what was built: "exact", "IVF1024,Flat", …
  std::string requested_spec;  // what was asked for: "auto", …
  // Calibrated search effort, the largest of all layers; a layer's own is in its index file.
  int n_probe = 0;                    // IVF: nprobe; HNSW: efSearch; 0: none
  int n_candidates = 0;               // to rescore per query head; 0: none
  std::vector<double> needle_recall;  // per memory layer when built; empty for exact
  std::string faiss_version;
  std::string fingerprint;
  std::vector<SegmentFile> files;  // one per memory layer; none for exact
};

}  // namespace fovea::storage
