// The text index of a version: which file belongs to which generation, and how it is opened, made
// anew, brought up to the store and put in the place of another one.
//
// Each generation has a file of its own (text-N.sqlite), so that a rebuild can make the next one
// while this one serves. Rows are slots, which are never used again: any of these files serves any
// view of the version, as far as it reaches.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/progress.h"
#include "base/status.h"
#include "index/text_index.h"
#include "storage/document_store.h"

namespace fovea::memory {

// A window as the text index takes it: views of its text.
index::WindowText TextOf(const storage::WindowRecord& window);

// How the windows of a text index differ from those of the store that it should be of.
struct IndexedWindows {
  std::vector<storage::Slot> lacking;  // that the store has, and can be read, below next_slot
  int64_t n_deleted = 0;               // in the index, and not in the store any more
  int64_t n_windows = 0;               // of the store
};
// Of a file without hashes nothing differs.
absl::StatusOr<IndexedWindows> CompareWindows(const index::TextIndex& text_index,
                                              const storage::DocumentStore& store);

// Thread-safe: searches go on while a new file is made, and wait only while it takes its place.
// Whoever changes it (Open, Update, Rebuild, Prepare) does so one at a time.
class TextIndexFile {
 public:
  struct Options {
    bool writes = false;
    // The file is taken as it is: what is missing or damaged is made again by Update and Rebuild
    // alone.
    bool is_salvage = false;
  };
  // `store`, open for writing where options.writes, outlives this.
  TextIndexFile(storage::DocumentStore* store, std::filesystem::path version_folder,
                const Options& options)
      : store_(store), version_folder_(std::move(version_folder)), options_(options) {}

  // Opens the file of the store's generation in the place of what is open. Writers remove the files
  // of earlier ones, make a new one in the place of a damaged or lost one, and bring it up to the
  // store. Readers do without where there is none: status() then says why. A file that lacks
  // windows of the store, or holds others (which is asked of a few), is as good as damaged.
  absl::Status Open();
  // Brings it up to the store: passages of windows that it lacks. Writers only. A damaged file (the
  // first call reads all of its pages), one of an earlier version, and one that holds much of what
  // was deleted are replaced by a new one.
  absl::Status Update(const Progress& progress);
  // A new file in the place of the old one once it is whole. Writers only; readers go on with it.
  absl::Status Rebuild(const Progress& progress);
  // Makes the file of a generation that is not published yet, or goes on with one that an
  // interrupted call left sound. Writers only.
  absl::Status Prepare(uint64_t generation, const Progress& progress);

  std::filesystem::path path() const { return PathOf(generation()); }
  uint64_t generation() const;
  // OK: it is open, and nothing that the last search read was damaged.
  absl::Status status() const;
  // Why Open or Update made a file again that should have been there; empty: they did not.
  std::string made_again() const;
  // Passages of slots below this can be found. As index::TextIndex::NextSlot; 0 where no file is
  // open.
  absl::StatusOr<uint64_t> NextSlot() const;

  // index::TextIndex::Search; nothing where no file is open, or what is read is damaged: status()
  // then says what.
  absl::StatusOr<std::vector<index::PassageHit>> Search(
      std::string_view question, int n_results,
      absl::FunctionRef<bool(uint64_t slot_begin)> allows) const;
  // What is open, for who changes it; null: none.
  index::TextIndex* open_index() const { return open_.get(); }

 private:
  std::filesystem::path PathOf(uint64_t generation) const;
  bool makes_files() const { return options_.writes && !options_.is_salvage; }
  // Opens what lies there in the place of what is open; with the lock.
  absl::Status OpenLocked(uint64_t generation, index::TextIndex::Mode mode);
  // Whether it holds the windows of the store as far as it reaches, and, asked of a few of them,
  // their texts: DataLoss where it does not.
  absl::Status CheckIsOfStore(const index::TextIndex& text_index,
                              const std::filesystem::path& path) const;
  // The same of the window that a hit is in; with the lock.
  absl::Status CheckHit(const index::TextIndex& file, storage::Slot slot) const;
  absl::Status FillOpened();
  // As FillOpened, for writers; where the file turns out to be damaged, a new one takes its place.
  absl::Status FillOrReplace(const Progress& progress);
  // Replace, with the reason for made_again().
  absl::Status MakeAgain(uint64_t generation, const std::string& reason, const Progress& progress);
  // Keeps what a read of `file` ended with for status(), where that is still open.
  void Keep(const index::TextIndex* file, const absl::Status& status) const;
  // Makes a whole file beside the generation's, puts it there, and opens it.
  absl::Status Replace(uint64_t generation, const Progress& progress);
  absl::Status Fill(index::TextIndex* text_index, const Progress& progress);
  // Fills what lies at `path`, or a new file there. DataLoss: it is of no use.
  absl::Status FillPrepared(const std::filesystem::path& path, const Progress& progress);

  storage::DocumentStore* store_;
  const std::filesystem::path version_folder_;
  const Options options_;
  // Guards what follows. SQLite removes the files beside a database by their names when the last
  // connection closes, so an old connection must be closed before a new file has the name: searches
  // hold this, shared, as long as they use one.
  mutable std::shared_mutex mutex_;
  std::unique_ptr<index::TextIndex> open_;
  mutable absl::Status status_;
  uint64_t generation_ = 0;
  std::string made_again_;
  // Of a writer: this file's pages were all found sound, or are its own.
  bool has_sound_pages_ = false;
};

}  // namespace fovea::memory
