// What a check of a memory finds, with what a repair needs to know about it. Between verify.cc and
// its two halves: checks (find_damage.cc) and repairs (repair_damage.cc).
#pragma once

#include <cstdint>
#include <vector>

#include "base/progress.h"
#include "compute/device.h"
#include "memory/memory.h"
#include "memory/upkeep/verify.h"
#include "model/transformer.h"

namespace fovea::memory {

enum class Repair {
  kNone,            // what is lost is in the finding's words, with what to do
  kEncodeWindow,    // a block or sample: encoded again from the window's tokens
  kRestoreRecord,   // a document's record: made again from its windows
  kRemoveDocument,  // a document that can no longer be put together: removed, to be ingested again
  kRemoveWindow,    // a window that nothing links: removed
  kSealAgain,       // segment records: all removed, sealed again from slot 0
  kRebuildSegment,  // index files: built again
  kRebuildText,     // the text index: built again
  kFillText,  // a sound text index that lacks the last windows, or holds deleted ones. No damage
};

struct Damage {
  VerifyFinding finding;
  Repair repair = Repair::kNone;
  Slot slot_begin = 0;                   // kEncodeWindow, kRemoveWindow
  int memory_layer = -1;                 // kEncodeWindow; −1: the sample
  storage::DocumentNumber document = 0;  // kRestoreRecord, kRemoveDocument
  uint64_t segment = 0;                  // kRebuildSegment
  bool repaired = false;
};

// Counts what it checks in *report (but leaves its findings alone).
absl::StatusOr<std::vector<Damage>> FindDamage(Memory* memory, const Progress& progress,
                                               VerifyReport* report);

// Repairs what can be repaired and says so in *damage; what cannot keeps the reason in its finding.
// Publishes. `model` may be null. An error (full disk, cancelled) ends it half-way, which harms
// nothing: the next run goes on.
absl::Status RepairDamage(compute::Device& device, Memory* memory, model::Transformer* model,
                          const Progress& progress, std::vector<Damage>* damage);

// Windows in the store that no link names, by slot. DataLoss when the links cannot be read.
absl::StatusOr<std::vector<Slot>> FindUnlinkedWindows(const storage::DocumentStore& store,
                                                      const Progress& progress);

}  // namespace fovea::memory
