#include "memory/unfinished.h"

#include "absl/container/flat_hash_set.h"

namespace fovea::memory {

absl::StatusOr<Unfinished> FindUnfinished(const Generation& view) {
  const storage::DocumentStore& store = view.source->store();
  Unfinished unfinished;
  absl::flat_hash_set<storage::DocumentNumber> numbers;
  RETURN_IF_ERROR(store.ForEachDocument([&](const storage::DocumentRecord& document) {
    if (!document.complete && numbers.insert(document.number).second) {
      unfinished.documents.push_back(document.number);
    }
    return absl::OkStatus();
  }));
  if (numbers.empty()) return unfinished;
  absl::flat_hash_set<storage::Slot> known;
  for (const LiveWindow& window : view.windows) known.insert(window.slot_begin);
  RETURN_IF_ERROR(store.ForEachLink([&](const storage::WindowLink& link) {
    // What was stored after the view is none of its slots.
    if (link.slot_begin < view.next_slot && numbers.contains(link.document) &&
        known.insert(link.slot_begin).second) {
      unfinished.n_tokens += link.n_tokens;
    }
    return absl::OkStatus();
  }));
  return unfinished;
}

}  // namespace fovea::memory
