// BM25 over passages (SQLite FTS5): derived from the store, rebuilt like the FAISS files. A row is
// a passage, its row number the passage's first slot; slots are never reused and grow with each
// commit, so "everything below next_slot() is indexed" says all there is to say about its state.
// The text itself is not kept here (a contentless FTS table). Words are folded (NFKC,
// lower case, no diacritics; text_words.h) and stemmed (English); text of scripts without spaces
// between words is indexed by character and searched by pairs of characters.
//
// The file is a SQLite database in WAL mode whose pages have checksums (sqlite_checksums.h): what
// is damaged is an error, never another passage. Beside the words it has a hash of each window that
// they are of, so that the sound index of another store is not taken for this one's (Compare).
// After a power cut the last commits may be missing (next_slot tells), the file is sound. Files of
// earlier versions lack checksums, hashes or both; they are read and added to as they are. In a
// folder where SQLite cannot make its WAL files, a
// reader takes the file as it is when no WAL lies beside it, else a private copy of both; before
// and after each call it looks whether they changed, and starts over with the new ones.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status.h"

namespace fovea::index {

struct PassageText {
  uint64_t slot_begin = 0;
  std::string_view text;
};

// A window of the store: what is added at once.
struct WindowText {
  uint64_t slot_begin = 0;
  uint64_t slot_end = 0;              // after its last token
  std::vector<PassageText> passages;  // ascending, of slots in [slot_begin, slot_end)
};

struct PassageHit {
  uint64_t slot_begin = 0;
  double score = 0.0;  // BM25, larger is better
};

// Thread-safe (calls are serialised). One writing process; readers in other processes see what was
// committed, also where the writer replaces the file: it removes the old one with what SQLite keeps
// beside it before it puts the new one there.
class TextIndex {
 public:
  enum class Mode { kWrite, kRead };
  // kWrite makes the file where there is none. DataLoss for what is not a sound text index of this
  // format (the caller removes and rebuilds it), a FIFO or a folder included; NotFound for kRead
  // without a file.
  static absl::StatusOr<std::unique_ptr<TextIndex>> Open(const std::filesystem::path& path,
                                                         Mode mode);
  virtual ~TextIndex() = default;

  // Adds windows, ascending, and moves next_slot, in one transaction: all or nothing. Slots outside
  // of [present next_slot(), next_slot) are refused with InvalidArgument. FailedPrecondition for
  // kRead, ResourceExhausted for a full disk.
  virtual absl::Status Add(std::span<const WindowText> windows, uint64_t next_slot) = 0;
  virtual absl::StatusOr<uint64_t> NextSlot() const = 0;
  // False for a file of an earlier version, without checksums or without hashes of windows.
  virtual bool is_newest_version() const = 0;

  // What the index has at the slots of `window`.
  enum class Holding {
    kSame,     // this window
    kNothing,  // nothing: it was not added, or the file is of an earlier version without hashes
    kOther,    // another window: the index is of another store
  };
  virtual absl::StatusOr<Holding> Compare(const WindowText& window) const = 0;
  // The first slot of each window that was added, ascending; of a file without hashes none.
  virtual absl::StatusOr<std::vector<uint64_t>> WindowSlots() const = 0;

  // The best passages for the words of `question` (any text: it is never parsed as a query
  // language), best first; equal scores by slot. `allows` hides deleted or filtered passages; it
  // must not call this object. English stop words count only where there is nothing else.
  virtual absl::StatusOr<std::vector<PassageHit>> Search(
      std::string_view question, int n_results,
      absl::FunctionRef<bool(uint64_t slot_begin)> allows) const = 0;

  // The checksums of every page of the file. DataLoss says what is wrong.
  virtual absl::Status VerifyPages() const = 0;
  // The same with SQLite's own integrity check and FTS5's.
  virtual absl::Status Verify() const = 0;
};

}  // namespace fovea::index
