// The durable truth: documents, windows, blocks, segments, in RocksDB (blocks in BlobDB). Every
// record carries a checksum that is verified when it is read. One writer process at a time, any
// number of readers; a reader follows the writer with Refresh().
//
//   ASSIGN_OR_RETURN(auto store, DocumentStore::Open(dir, {.mode = OpenMode::kWrite}));
//   Mutation mutation;
//   mutation.PutWindow(window);
//   RETURN_IF_ERROR(store->Commit(std::move(mutation)));   // synced: on disk when it returns OK
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "base/status.h"
#include "storage/records.h"

namespace rocksdb {
class FileSystem;
}

namespace fovea::storage {

enum class OpenMode {
  kCreate,  // writer; makes the folder and an empty store where there is none
  kWrite,   // writer; NotFound where there is no store
  kRead,    // reader; works on read-only folders and while a writer is open
};

struct StoreOptions {
  OpenMode mode = OpenMode::kRead;
  // Opens what can be read of a damaged store: a log that lost commits which were reported as
  // stored, table files that do not open. Verify then reports what is missing. For
  // `verify [--repair]`; a commit in this mode makes the loss final.
  bool salvage = false;
  // Memory for blocks of text records; keys and values of windows are not cached here.
  size_t block_cache_bytes = size_t{16} << 20;
  // Memory for what is not in table files yet. Twice this at most while a full buffer is written,
  // and what larger commits take that are begun and not finished.
  size_t write_buffer_bytes = size_t{64} << 20;
  // Tests put a fault-injecting file system here; null: the real one.
  std::shared_ptr<rocksdb::FileSystem> file_system = nullptr;
};

// Changes that become visible and durable together, in the order in which they were put. Movable;
// not thread-safe. A record that breaks an invariant of records.h makes Commit fail.
class Mutation {
 public:
  Mutation();
  ~Mutation();
  Mutation(Mutation&&) noexcept;
  Mutation& operator=(Mutation&&) noexcept;

  void PutSettings(const StoreSettings& settings);
  void PutWindow(const WindowRecord& window);
  void PutBlock(Slot slot_begin, int memory_layer, const Block& block);
  void PutQuerySample(Slot slot_begin, const QuerySample& sample);
  // The window with its blocks and sample.
  void DeleteWindow(Slot slot_begin);
  void PutDocument(const DocumentRecord& document);
  void PutLink(const WindowLink& link);
  // The record and all its links (not the windows).
  void DeleteDocument(DocumentNumber number);
  void PutSegment(const SegmentRecord& segment);
  void DeleteSegment(uint64_t id);
  // The generation that queries see (SegmentRecord::generation).
  void PutGeneration(uint64_t generation);
  // All of `other`, after what is here: records of large blocks can be made by several threads.
  void Append(Mutation other);
  // First slot that is free after this commit. Needed with PutWindow.
  void PutNextSlot(Slot next_slot);
  void PutNextDocumentNumber(DocumentNumber number);
  void PutNextSegmentId(uint64_t id);

  size_t size_bytes() const;  // of what is collected so far: long documents commit in spans

 private:
  friend class DocumentStore;
  friend class DocumentStoreImpl;
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

struct Counters {
  Slot next_slot = 0;
  DocumentNumber next_document = 1;
  uint64_t next_segment = 1;
  uint64_t generation = 0;
  // One more with every commit; a reader compares it to know whether anything changed.
  uint64_t epoch = 0;
};

struct BytesByKind {
  uint64_t text = 0;    // windows, documents, links
  uint64_t blocks = 0;  // keys, values, samples
};

// Something that verification found.
struct Damage {
  std::string kind;  // "settings", "document", "link", "window", "block", "sample", "segment"; of
                     // the store's files: "table" (see CopyReadable), "file"
  Slot slot_begin = 0;    // of the window concerned, where there is one
  int memory_layer = -1;  // of the block concerned
  DocumentNumber document = 0;
  std::string what;  // for people: expected, actual
};

// See DocumentStore::HoldWindows.
class WindowHold {
 public:
  virtual ~WindowHold() = default;
};

// Thread-safe; a read beside Refresh sees the state before or after it. Errors: NotFound for absent
// records, DataLoss for damaged ones (naming record, expected and actual checksum),
// ResourceExhausted for a full disk, PermissionDenied for a read-only folder opened for writing,
// FailedPrecondition for another format version, Unavailable when another process writes.
//
// A reader sees the store as it was at Open or at the last Refresh. One exception: where the
// writer's Compact has removed a file that a read needs, the read catches up with the writer by
// itself; a window that was deleted since is then NotFound.
class DocumentStore {
 public:
  static absl::StatusOr<std::unique_ptr<DocumentStore>> Open(const std::filesystem::path& folder,
                                                             const StoreOptions& options);
  // Whether `folder` holds a store.
  static bool Exists(const std::filesystem::path& folder);
  virtual ~DocumentStore() = default;

  virtual const std::filesystem::path& folder() const = 0;

  // Durable when it returns. All or nothing. InvalidArgument: nothing was written, other mutations
  // still can be. After any other error reads go on, but every further commit fails: open the store
  // again to write. All of the failed commit is there then, or nothing (it may have reached the
  // disk before the error); until then it may be visible here where it was a large one.
  virtual absl::Status Commit(Mutation mutation) = 0;
  // The same in two steps, so that the next large commit is put together while this one goes to
  // the disk: BeginCommit makes the mutation visible here and gives its epoch, FinishCommit waits
  // until all up to that epoch are durable. No commit is durable without those before it.
  virtual absl::StatusOr<uint64_t> BeginCommit(Mutation mutation) = 0;
  virtual absl::Status FinishCommit(uint64_t epoch) = 0;

  // Catches up with the writer process: every commit that had returned OK before is visible after.
  // Returns whether anything changed since Open or the last call. Writers: false. After an error
  // the old view stays.
  virtual absl::StatusOr<bool> Refresh() = 0;

  // Windows that are stored now, with their blocks, can be read with the hold while it lives,
  // though a later Commit deletes them; their space is freed by the first Compact after it. Null
  // for a reader, whose store moves on with Refresh. Does not outlive the store.
  virtual std::shared_ptr<const WindowHold> HoldWindows() const = 0;

  virtual absl::StatusOr<std::optional<StoreSettings>> Settings() const = 0;
  virtual absl::StatusOr<Counters> ReadCounters() const = 0;
  // The oldest that can say what was ever stored here (docs/storage-format.md).
  virtual absl::StatusOr<int> FormatVersion() const = 0;

  // In ascending order of the key; `visit` may return an error to stop.
  virtual absl::Status ForEachDocument(
      const std::function<absl::Status(const DocumentRecord&)>& visit) const = 0;
  virtual absl::Status ForEachLink(const std::function<absl::Status(const WindowLink&)>& visit)
      const = 0;  // by document, ordinal
  virtual absl::StatusOr<std::vector<WindowLink>> Links(DocumentNumber document) const = 0;
  virtual absl::StatusOr<std::vector<SegmentRecord>> Segments() const = 0;  // all generations

  // `hold` here and below: null, or one of this store, which finds what it holds as well.
  virtual absl::StatusOr<WindowRecord> GetWindow(Slot slot_begin,
                                                 const WindowHold* hold = nullptr) const = 0;
  // The last window that begins before `end`. NotFound: none does.
  virtual absl::StatusOr<WindowRecord> FindWindowBefore(Slot end) const = 0;
  // Keys, values, or both of a block; the part that is not asked for stays empty and is not read.
  enum class BlockPart { kKeys, kValues, kBoth };
  virtual absl::StatusOr<Block> GetBlock(Slot slot_begin, int memory_layer,
                                         BlockPart part = BlockPart::kBoth) const = 0;
  // Hands kKeys or kValues of a block to `use`, valid during the call: for those who keep it in a
  // place of their own. Returns what `use` returns.
  virtual absl::Status VisitBlock(Slot slot_begin, int memory_layer, BlockPart part,
                                  absl::FunctionRef<absl::Status(const BlockView&)> use,
                                  const WindowHold* hold = nullptr) const = 0;
  // The same without a copy where the store can map its files: view.file is set then.
  virtual absl::Status MapBlock(Slot slot_begin, int memory_layer, BlockPart part,
                                absl::FunctionRef<absl::Status(const BlockView&)> use,
                                const WindowHold* hold = nullptr) const = 0;
  virtual absl::StatusOr<QuerySample> GetQuerySample(Slot slot_begin) const = 0;

  // Reads every record. Damaged ones go to `report`; only a failure of the walk itself is an error.
  // n_checked counts records by kind.
  struct VerifyCounts {
    int64_t documents = 0;
    int64_t windows = 0;
    int64_t blocks = 0;
  };
  virtual absl::StatusOr<VerifyCounts> Verify(
      const std::function<absl::Status(const Damage&)>& report) const = 0;

  // Copies every record that can be read, as it is, to `to`, an empty store that is open for
  // writing. A table file that cannot be read stays in its store for good: RocksDB cannot compact
  // it, and what is put in the place of its records does not make walks over them readable.
  // Requires a writer. `progress` gets the bytes copied so far; an error that it returns ends the
  // copy, which is useless then, as after any other error.
  virtual absl::Status CopyReadable(
      DocumentStore* to, const std::function<absl::Status(uint64_t n_bytes)>& progress) = 0;

  // Frees the space of what was deleted, blocks included. Long; needs free space for a copy of the
  // files that hold deleted blocks; safe to interrupt by ending the process. FailedPrecondition in
  // a reader.
  virtual absl::Status Compact() = 0;
  // The part of Compact that concerns texts: afterwards no file has those that were deleted. Quick
  // beside it, as keys and values stay where they are.
  virtual absl::Status CompactTexts() = 0;
  virtual absl::StatusOr<BytesByKind> SizeByKind() const = 0;
};

}  // namespace fovea::storage
