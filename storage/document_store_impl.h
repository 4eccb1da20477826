// The store on RocksDB. Only for this folder's sources.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "rocksdb/write_batch.h"
#include "storage/commit_witness.h"
#include "storage/document_store.h"
#include "storage/mutation_impl.h"
#include "storage/record_codec.h"
#include "storage/store_view.h"

namespace fovea::storage {

class DocumentStoreImpl : public DocumentStore {
 public:
  static absl::StatusOr<std::unique_ptr<DocumentStoreImpl>> Open(
      const std::filesystem::path& folder, const StoreOptions& options);
  ~DocumentStoreImpl() override;

  const std::filesystem::path& folder() const override { return context_->folder; }
  absl::Status Commit(Mutation mutation) override;
  absl::StatusOr<uint64_t> BeginCommit(Mutation mutation) override;
  absl::Status FinishCommit(uint64_t epoch) override;
  absl::StatusOr<bool> Refresh() override;
  std::shared_ptr<const WindowHold> HoldWindows() const override;
  absl::StatusOr<std::optional<StoreSettings>> Settings() const override;
  absl::StatusOr<Counters> ReadCounters() const override;
  absl::StatusOr<int> FormatVersion() const override;
  absl::Status ForEachDocument(
      const std::function<absl::Status(const DocumentRecord&)>& visit) const override;
  absl::Status ForEachLink(
      const std::function<absl::Status(const WindowLink&)>& visit) const override;
  absl::StatusOr<std::vector<WindowLink>> Links(DocumentNumber document) const override;
  absl::StatusOr<std::vector<SegmentRecord>> Segments() const override;
  absl::StatusOr<WindowRecord> GetWindow(Slot slot_begin,
                                         const WindowHold* hold = nullptr) const override;
  absl::StatusOr<WindowRecord> FindWindowBefore(Slot end) const override;
  absl::StatusOr<Block> GetBlock(Slot slot_begin, int memory_layer, BlockPart part) const override;
  absl::Status VisitBlock(Slot slot_begin, int memory_layer, BlockPart part,
                          absl::FunctionRef<absl::Status(const BlockView&)> use,
                          const WindowHold* hold = nullptr) const override;
  absl::Status MapBlock(Slot slot_begin, int memory_layer, BlockPart part,
                        absl::FunctionRef<absl::Status(const BlockView&)> use,
                        const WindowHold* hold = nullptr) const override;
  absl::StatusOr<QuerySample> GetQuerySample(Slot slot_begin) const override;
  absl::StatusOr<VerifyCounts> Verify(
      const std::function<absl::Status(const Damage&)>& report) const override;
  absl::Status CopyReadable(DocumentStore* to,
                            const std::function<absl::Status(uint64_t n_bytes)>& progress) override;
  absl::Status Compact() override;
  absl::Status CompactTexts() override;
  absl::StatusOr<BytesByKind> SizeByKind() const override;

 private:
  friend class Verifier;
  using Use = std::function<absl::Status(std::string_view key, std::string_view value)>;

  explicit DocumentStoreImpl(std::shared_ptr<const StoreContext> context)
      : context_(std::move(context)) {}

  std::shared_ptr<StoreView> view() const;
  void SetView(std::shared_ptr<StoreView> view) const;
  // A reader's new view instead of `stale`, unless another thread has already put one there.
  absl::Status ReplaceView(const std::shared_ptr<StoreView>& stale) const;

  // Finds the record, now or in what `hold` (may be null) holds, and hands it to `use`, valid
  // during the call.
  absl::Status Get(ColumnFamily family, RecordType type, const std::string& key, const Use& use,
                   const WindowHold* hold = nullptr) const;
  // `part`: not kBoth. `settings` may be null.
  absl::Status GetBlockHalf(
      Slot slot_begin, int memory_layer, BlockPart part,
      absl::FunctionRef<absl::Status(std::string_view key, std::string_view value,
                                     const StoreSettings* settings)>
          use,
      const WindowHold* hold = nullptr) const;
  // What a read that failed with `status` on attempt number `attempt` does: with OK it is tried
  // again, on the new view of a reader whose files the writer has removed.
  absl::Status HandleFailedRead(const std::shared_ptr<StoreView>& view,
                                const rocksdb::Status& status, int attempt,
                                const std::string& doing) const;
  // Every record with begin <= key < end (empty: to the last one), in ascending order.
  absl::Status ForEach(ColumnFamily family, RecordType type, const std::string& begin,
                       const std::string& end, const Use& use) const;

  absl::Status CheckFormat() const;
  absl::Status CheckFormatUnlessSalvaging() const;
  // Why a store with unknown or missing column families does not open: `failure` says what
  // RocksDB found.
  static absl::Status ExplainForeignStore(const StoreContext& context, const absl::Status& failure);
  absl::Status CreateEmpty();
  // The version of a store with these settings; where they are unknown (null) the one that it has,
  // or if that cannot be read either the newest.
  int FormatVersionFor(const StoreSettings* settings) const;
  absl::Status LoadSettings() const;
  // In salvage: what the counters must at least have been, from the records that can be read.
  absl::StatusOr<Counters> RecoverCounters() const;
  std::shared_ptr<const StoreSettings> CachedSettings() const;
  // Writes what is in memory to table files; with `wait`, before it returns.
  rocksdb::Status Flush(bool wait) const;
  // A batch that fills the buffer by itself is not logged and durable only once it was flushed.
  bool IsLogged(const rocksdb::WriteBatch& batch) const;
  // Makes room in memory first. What is logged is durable when this returns, if all before it are.
  rocksdb::Status Write(rocksdb::WriteBatch* batch) const;
  // The same for one that nothing goes on beside; durable.
  rocksdb::Status WriteAlone(rocksdb::WriteBatch* batch) const;
  // All up to `epoch` are durable. Requires durable_mutex_.
  void MarkDurable(uint64_t epoch);
  // Deletes the keys of `range`, one of `operations`, a range of links, without a range tombstone
  // (WalkOptions says why). Requires commit_mutex_.
  rocksdb::Status DeleteOneByOne(const std::vector<Mutation::Impl::Operation>& operations,
                                 const Mutation::Impl::Operation& range,
                                 rocksdb::WriteBatch* batch) const;
  // The counters after `mutation`, or why it must not be committed. Requires commit_mutex_.
  absl::StatusOr<Counters> CheckMutation(const Mutation& mutation) const;
  absl::Status CompactBlocks(rocksdb::DB& db, rocksdb::ColumnFamilyHandle* blocks);

  const std::shared_ptr<const StoreContext> context_;

  // Guards the pointers, not what they point at: a read holds on to the view that it began with.
  mutable std::mutex view_mutex_;
  mutable std::shared_ptr<StoreView> view_;
  // The shape that blocks must have; null before the first ingest and where the settings are
  // damaged (Settings() and Verify say so).
  mutable std::shared_ptr<const StoreSettings> settings_;
  std::atomic<uint64_t> reported_epoch_{0};  // a reader's: as of Open or the last Refresh
  mutable std::mutex replace_mutex_;         // one thread opens a new view, the others wait for it

  std::mutex commit_mutex_;
  Counters counters_;           // the writer's; as committed
  rocksdb::WriteBatch batch_;   // of the commit that is being made
  size_t batch_bytes_ = 0;      // that it has room for
  absl::Status write_failure_;  // of the commit that ended writing

  // Guards what follows; held during a flush that commits wait for. After commit_mutex_ where both
  // are held.
  std::mutex durable_mutex_;
  std::atomic<uint64_t> written_epoch_{0};  // of the last commit that is in memory or in the log
  uint64_t durable_epoch_ = 0;              // at most
  absl::Status flush_failure_;              // ends writing, too
  std::atomic<bool> has_flush_failed_{false};
  std::optional<CommitWitness> witness_;
};

}  // namespace fovea::storage
