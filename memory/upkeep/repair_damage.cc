// The repairs of Verify. Each is a commit of its own, so that an interrupted repair leaves what it
// did and the next one goes on.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <utility>

#include "base/hash.h"
#include "memory/block_layout.h"
#include "memory/segment_files.h"
#include "memory/segments/sealer.h"
#include "memory/segments/segment_builder.h"
#include "memory/upkeep/damage.h"

namespace fovea::memory {
namespace {

using storage::DocumentNumber;
using storage::DocumentRecord;
using storage::WindowLink;
using storage::WindowRecord;

// Windows that are encoded together.
constexpr int64_t kEncodeBatchTokens = 4096;

constexpr size_t kIdDigits = 32;
constexpr std::string_view kRecoveredCollection = "recovered";

class Repairer {
 public:
  Repairer(compute::Device& device, Memory* memory, model::Transformer* model,
           const Progress& progress, std::vector<Damage>* damage)
      : device_(device),
        memory_(memory),
        store_(memory->store()),
        model_(model),
        progress_(progress),
        damage_(*damage) {}

  absl::Status Run() {
    // In the order in which one needs the other: documents, their windows, keys and values, and
    // what is derived from them.
    RETURN_IF_ERROR(RestoreRecords());
    RETURN_IF_ERROR(RemoveDocuments());
    RETURN_IF_ERROR(RemoveWindows());
    RETURN_IF_ERROR(EncodeWindows());
    RETURN_IF_ERROR(SealAgain());
    RETURN_IF_ERROR(RebuildSegments());
    RETURN_IF_ERROR(RepairTextIndex());
    // These fail where records stay damaged; that is in the report already.
    for (const absl::Status& status :
         {RemoveOrphanFiles(store_, memory_->index_folder()).status(), memory_->Publish()}) {
      if (!status.ok() && !absl::IsDataLoss(status)) return status;
    }
    return absl::OkStatus();
  }

 private:
  template <typename Visit>
  void ForEach(Repair repair, Visit visit) {
    for (Damage& damage : damage_) {
      if (damage.repair == repair) visit(damage);
    }
  }
  bool Needs(Repair repair) const {
    return std::any_of(damage_.begin(), damage_.end(),
                       [&](const Damage& damage) { return damage.repair == repair; });
  }

  // Damage that a repair meets keeps that one finding from being repaired; anything else (a full
  // disk, cancellation) ends the run.
  absl::Status Settle(const absl::Status& status, Damage* damage) {
    if (status.ok()) {
      damage->repaired = true;
    } else if (absl::IsDataLoss(status) || absl::IsNotFound(status)) {
      damage->finding.what += StrCat("; repairing failed: ", status.message());
    } else {
      return status;
    }
    return absl::OkStatus();
  }

  // Title, source and collections are lost; the text is not.
  absl::Status RestoreRecords() {
    for (Damage& damage : damage_) {
      if (damage.repair != Repair::kRestoreRecord) continue;
      const absl::StatusOr<DocumentRecord> record = RecordFromWindows(damage.document);
      if (!record.ok()) {
        if (!absl::IsDataLoss(record.status()) && !absl::IsNotFound(record.status())) {
          return record.status();
        }
        damage.finding.what += StrCat("; it cannot be put together: ", record.status().message());
        damage.repair = Repair::kRemoveDocument;
        continue;
      }
      storage::Mutation mutation;
      mutation.PutDocument(*record);
      RETURN_IF_ERROR(store_.Commit(std::move(mutation)));
      damage.finding.document = record->id;
      damage.finding.what += StrCat("; recovered as document ", record->id, " in collection \"",
                                    kRecoveredCollection, "\" without title and source: to have ",
                                    "them back, delete it and ingest it again");
      damage.repaired = true;
    }
    return absl::OkStatus();
  }

  absl::StatusOr<DocumentRecord> RecordFromWindows(DocumentNumber number) {
    ASSIGN_OR_RETURN(const std::vector<WindowLink> links, store_.Links(number));
    if (links.empty()) return absl::DataLossError("it has no windows");
    DocumentRecord record;
    record.number = number;
    record.sources = {{.source = "-", .collection = std::string(kRecoveredCollection)}};
    record.complete = true;
    Sha256 hasher;
    for (const WindowLink& link : links) {
      if (link.ordinal != record.n_windows || link.byte_begin != record.size_bytes) {
        return absl::DataLossError(StrCat("window ", record.n_windows, " is missing"));
      }
      ASSIGN_OR_RETURN(const WindowRecord window, store_.GetWindow(link.slot_begin));
      hasher.Update(window.text);
      record.n_windows += 1;
      record.n_tokens += link.n_tokens;
      record.size_bytes += window.text.size();
    }
    record.id = hasher.FinishHex().substr(0, kIdDigits);
    return record;
  }

  absl::Status RemoveDocuments() {
    std::set<DocumentNumber> removed;
    for (Damage& damage : damage_) {
      if (damage.repair != Repair::kRemoveDocument) continue;
      // By its key: nothing of it has to be readable. Its windows go as unlinked ones.
      if (removed.insert(damage.document).second) {
        storage::Mutation mutation;
        mutation.DeleteDocument(damage.document);
        RETURN_IF_ERROR(store_.Commit(std::move(mutation)));
      }
      damage.finding.what += "; it was removed: ingest it again";
    }
    if (removed.empty()) return absl::OkStatus();
    absl::StatusOr<std::vector<Slot>> unlinked = FindUnlinkedWindows(store_, progress_);
    if (absl::IsDataLoss(unlinked.status())) return absl::OkStatus();
    RETURN_IF_ERROR(unlinked.status());
    return DeleteWindows(*unlinked);
  }

  absl::Status RemoveWindows() {
    std::vector<Slot> slots;
    ForEach(Repair::kRemoveWindow,
            [&](const Damage& damage) { slots.push_back(damage.slot_begin); });
    RETURN_IF_ERROR(DeleteWindows(slots));
    ForEach(Repair::kRemoveWindow, [](Damage& damage) { damage.repaired = true; });
    return absl::OkStatus();
  }

  absl::Status DeleteWindows(const std::vector<Slot>& slots) {
    if (slots.empty()) return absl::OkStatus();
    storage::Mutation mutation;
    for (const Slot slot : slots) mutation.DeleteWindow(slot);
    return store_.Commit(std::move(mutation));
  }

  absl::Status EncodeWindows() {
    if (!Needs(Repair::kEncodeWindow)) return absl::OkStatus();
    const auto& known = memory_->settings();
    if (known.has_value() && known->encoding == "reference") {
      ForEach(Repair::kEncodeWindow, [](Damage& damage) {
        damage.finding.what +=
            "; it was encoded with the memory of its day: `fovea rebuild --reencode` makes all of "
            "it again";
      });
      return absl::OkStatus();
    }
    if (model_ == nullptr) {
      ForEach(Repair::kEncodeWindow, [](Damage& damage) {
        damage.finding.what += "; to repair it pass the memory's model";
      });
      return absl::OkStatus();
    }
    absl::StatusOr<std::optional<storage::StoreSettings>> settings_or = store_.Settings();
    if (settings_or.ok() && !settings_or->has_value()) {
      settings_or = absl::DataLossError(StrCat(store_.folder(), ": blocks without settings"));
    }
    if (!settings_or.ok()) {
      for (Damage& damage : damage_) {
        if (damage.repair != Repair::kEncodeWindow) continue;
        RETURN_IF_ERROR(Settle(settings_or.status(), &damage));
      }
      return absl::OkStatus();
    }
    const storage::StoreSettings& settings = **settings_or;
    RETURN_IF_ERROR(memory_->CheckModel(*model_));

    std::map<Slot, std::vector<Damage*>> by_window;
    ForEach(Repair::kEncodeWindow,
            [&](Damage& damage) { by_window[damage.slot_begin].push_back(&damage); });
    std::vector<Job> batch;
    int64_t n_tokens = 0;
    int64_t n_done = 0;
    for (auto& [slot, found] : by_window) {
      absl::StatusOr<WindowRecord> window = store_.GetWindow(slot);
      if (!window.ok()) {
        for (Damage* damage : found) RETURN_IF_ERROR(Settle(window.status(), damage));
        continue;
      }
      n_tokens += static_cast<int64_t>(window->ids.size());
      batch.push_back({*std::move(window), found});
      if (n_tokens < kEncodeBatchTokens) continue;
      n_done += static_cast<int64_t>(batch.size());
      RETURN_IF_ERROR(Encode(settings, std::exchange(batch, {})));
      n_tokens = 0;
      RETURN_IF_ERROR(progress_.Report({.stage = "repair",
                                        .done = n_done,
                                        .total = static_cast<int64_t>(by_window.size()),
                                        .unit = "windows"}));
    }
    return Encode(settings, batch);
  }

  struct Job {
    WindowRecord window;
    std::vector<Damage*> damage;
  };

  absl::Status Encode(const storage::StoreSettings& settings, const std::vector<Job>& jobs) {
    if (jobs.empty()) return absl::OkStatus();
    std::vector<model::WindowTokens> tokens;
    tokens.reserve(jobs.size());
    for (const Job& job : jobs) tokens.push_back({job.window.context_ids, job.window.ids});
    ASSIGN_OR_RETURN(const std::vector<model::EncodedWindow> encoded, model_->Encode(tokens));
    FOVEA_CHECK(encoded.size() == jobs.size());
    storage::Mutation mutation;
    for (size_t i = 0; i < jobs.size(); ++i) {
      const Slot slot = jobs[i].window.slot_begin;
      std::set<int> layers;  // a block's two halves are damage for themselves
      for (const Damage* damage : jobs[i].damage) layers.insert(damage->memory_layer);
      for (const int layer : layers) {
        if (layer >= 0) {
          mutation.PutBlock(slot, layer,
                            ToBlock(encoded[i], layer, settings.n_kv_heads, settings.head_dim,
                                    settings.entry_type));
        } else {
          mutation.PutQuerySample(slot, ToQuerySample(encoded[i]));
        }
      }
    }
    RETURN_IF_ERROR(store_.Commit(std::move(mutation)));
    for (const Job& job : jobs) {
      for (Damage* damage : job.damage) damage->repaired = true;
    }
    memory_->cache().Clear();
    return absl::OkStatus();
  }

  absl::Status SealAgain() {
    if (!Needs(Repair::kSealAgain)) return absl::OkStatus();
    // By their keys: some cannot be read.
    ASSIGN_OR_RETURN(const storage::Counters counters, store_.ReadCounters());
    storage::Mutation mutation;
    for (uint64_t id = 0; id < counters.next_segment; ++id) mutation.DeleteSegment(id);
    RETURN_IF_ERROR(store_.Commit(std::move(mutation)));
    const absl::Status status = SealAll(device_, &store_, memory_->index_folder(), progress_);
    for (Damage& damage : damage_) {
      if (damage.repair == Repair::kSealAgain) RETURN_IF_ERROR(Settle(status, &damage));
      // Files that were damaged belonged to segments that are gone.
      if (damage.repair == Repair::kRebuildSegment) damage.repaired = status.ok();
    }
    return absl::OkStatus();
  }

  absl::Status RebuildSegments() {
    if (!Needs(Repair::kRebuildSegment)) return absl::OkStatus();
    absl::StatusOr<std::vector<storage::SegmentRecord>> segments = store_.Segments();
    std::map<uint64_t, absl::Status> results;
    for (Damage& damage : damage_) {
      if (damage.repair != Repair::kRebuildSegment || damage.repaired) continue;
      auto [result, is_new] = results.try_emplace(damage.segment, segments.status());
      if (is_new && segments.ok()) {
        const auto segment =
            std::find_if(segments->begin(), segments->end(),
                         [&](const auto& record) { return record.id == damage.segment; });
        if (segment != segments->end()) {
          result->second =
              RebuildSegment(device_, &store_, memory_->index_folder(), *segment, progress_)
                  .status();
        }
      }
      RETURN_IF_ERROR(Settle(result->second, &damage));
    }
    return absl::OkStatus();
  }

  absl::Status RepairTextIndex() {
    // Nothing may be wrong with it, but it may lag behind, or hold texts of a deletion that was
    // ended before it had taken them out of the files.
    if (Needs(Repair::kFillText)) RETURN_IF_ERROR(store_.CompactTexts());
    const absl::Status status = Needs(Repair::kRebuildText) ? memory_->RebuildTextIndex(progress_)
                                                            : memory_->UpdateTextIndex(progress_);
    if (!absl::IsDataLoss(status)) RETURN_IF_ERROR(status);
    for (Damage& damage : damage_) {
      if (damage.repair != Repair::kRebuildText && damage.repair != Repair::kFillText) continue;
      RETURN_IF_ERROR(Settle(status, &damage));
    }
    return absl::OkStatus();
  }

  compute::Device& device_;
  Memory* memory_;
  storage::DocumentStore& store_;
  model::Transformer* model_;
  const Progress& progress_;
  std::vector<Damage>& damage_;
};

}  // namespace

absl::Status RepairDamage(compute::Device& device, Memory* memory, model::Transformer* model,
                          const Progress& progress, std::vector<Damage>* damage) {
  return Repairer(device, memory, model, progress, damage).Run();
}

}  // namespace fovea::memory
