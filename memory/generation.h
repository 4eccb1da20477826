// A published, immutable view of a memory: its documents, live windows and segments at one moment,
// and what they are read from. A query pins one with a shared_ptr and is not disturbed by what is
// committed meanwhile, nor by the memory's going on to another version.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status.h"
#include "index/layer_index.h"
#include "memory/opened_version.h"
#include "storage/document_store.h"

namespace fovea::model {
class Transformer;
}

namespace fovea::memory {

using storage::Slot;

// A stored window that belongs to a complete document.
struct LiveWindow {
  Slot slot_begin = 0;
  uint32_t n_tokens = 0;
  uint32_t document = 0;    // index into Generation::documents
  uint64_t byte_begin = 0;  // of its text in the document
  uint64_t ordinal = 0;
  // Tokens that no query selects (memory/sinks.h); ascending.
  std::vector<storage::TokenRange> sinks = {};
};

// A sealed segment with its indexes opened.
struct Segment {
  storage::SegmentRecord record;
  // One per memory layer; empty: searched exactly (specification "exact", or index files that are
  // missing or damaged: `damage` then says which and why).
  std::vector<std::unique_ptr<index::LayerIndex>> layers;
  std::string damage;
};

struct Generation {
  // What the rest names is read from here. A reader's store may know later commits of another
  // process: a window that they deleted, and whose space was freed, is NotFound then. A writer's
  // keeps the windows for as long as somebody looks at them.
  std::shared_ptr<OpenedVersion> source;
  std::shared_ptr<const storage::WindowHold> hold = nullptr;
  std::optional<storage::StoreSettings> settings;        // unset before the first ingest
  uint64_t epoch = 0;                                    // of the store when this view was taken
  uint64_t generation = 0;                               // of the segments
  std::vector<storage::DocumentRecord> documents;        // complete ones, by number
  std::vector<LiveWindow> windows;                       // by slot_begin
  std::vector<std::shared_ptr<const Segment>> segments;  // by slot_begin
  Slot sealed_end = 0;  // the growing segment is [sealed_end, next_slot)
  Slot next_slot = 0;
  uint64_t n_tokens = 0;          // live ones
  uint64_t n_windows_stored = 0;  // with those of documents that are not complete yet

  // The live window that holds `slot`; null when it is not live.
  const LiveWindow* FindWindow(Slot slot) const;
};

// FailedPrecondition, naming both, when the fingerprint of `model` is not the memory's, or when its
// entries are bfloat16 and the memory's float32. (A bfloat16 memory of a model whose entries are
// float32 is an older one: it stays as it is until it is encoded again.)
absl::Status CheckModel(const Generation& generation, const model::Transformer& model);

// The record of a window of the generation.
absl::StatusOr<storage::WindowRecord> ReadWindow(const Generation& generation, Slot slot_begin);

// The document's text, exactly as it was ingested, piece by piece.
absl::Status ReadText(const Generation& generation, const storage::DocumentRecord& document,
                      absl::FunctionRef<absl::Status(std::string_view piece)> visit);

// Bytes [start, end) of a document's text, but for a character that the range cuts: that is left
// out.
struct TextRange {
  uint64_t start = 0;
  uint64_t end = 0;
  std::string text;
};
// `end`: unset, to the end of the text. InvalidArgument for what is no range of the document's
// bytes. Reads the windows that hold the range, and no others.
absl::StatusOr<TextRange> ReadTextRange(const Generation& generation,
                                        const storage::DocumentRecord& document, uint64_t start,
                                        std::optional<uint64_t> end);

// What a query may see. Empty lists: no restriction. Both given: documents in one of the
// collections that are also listed.
struct QueryScope {
  std::vector<std::string> collections;
  std::vector<std::string> documents;  // ids, or unique prefixes of at least 6 digits
  bool operator==(const QueryScope&) const = default;
};

// The indexes into generation.windows that `scope` allows, ascending. NotFound names a collection
// or document that does not exist; InvalidArgument an ambiguous prefix.
absl::StatusOr<std::vector<uint32_t>> SelectWindows(const Generation& generation,
                                                    const QueryScope& scope);

// The document with this id or unique prefix of it.
absl::StatusOr<const storage::DocumentRecord*> FindDocument(const Generation& generation,
                                                            const std::string& id_prefix);

}  // namespace fovea::memory
