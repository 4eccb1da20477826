// Puts the words of committed windows into the text index while an ingest goes on, so that little
// is left to do at its end.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "index/text_index.h"
#include "memory/ingest/window_batch.h"
#include "storage/records.h"

namespace fovea::memory {

// The new windows of commits, for their texts.
struct CommittedWindows {
  CommittedWindows() = default;
  // Copies of those of `batch`, before PutWindows; `next_slot_after`: the first free slot after it.
  CommittedWindows(const WindowBatch& batch, storage::Slot next_slot_after);

  std::vector<storage::WindowRecord> windows;  // by slot
  storage::Slot next_slot = 0;
};

// A thread of its own. What it is not given, or could not add, is made up for by
// Memory::UpdateTextIndex, at the end of an ingest or when the memory is opened the next time.
class TextIndexFiller {
 public:
  // `text_index` is up to the store, and is changed by nobody else while this lives.
  explicit TextIndexFiller(index::TextIndex* text_index);
  // Without what was not begun.
  ~TextIndexFiller();
  TextIndexFiller(const TextIndexFiller&) = delete;
  TextIndexFiller& operator=(const TextIndexFiller&) = delete;

  // Of commits that are durable, in their order: the index is never ahead of what is stored.
  // Returns at once.
  void Add(CommittedWindows committed);
  // Waits until all that was added is in the index, or could not be.
  void Finish();

 private:
  void Run();

  index::TextIndex* const text_index_;
  std::mutex mutex_;
  std::condition_variable changed_;
  CommittedWindows waiting_;
  bool is_ending_ = false;
  bool is_stopped_ = false;
  std::thread thread_;  // last: it uses everything above
};

}  // namespace fovea::memory
