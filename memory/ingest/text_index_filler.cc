#include "memory/ingest/text_index_filler.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "memory/text_index_file.h"

namespace fovea::memory {
namespace {

// Of one transaction: the index merges what transactions add, and few large ones are merged less
// often.
constexpr size_t kWindowsAtOnce = 256;

}  // namespace

CommittedWindows::CommittedWindows(const WindowBatch& batch, storage::Slot next_slot_after)
    : next_slot(next_slot_after) {
  for (const QueuedWindow& queued : batch.windows) {
    if (queued.window) windows.push_back(*queued.window);
  }
}

TextIndexFiller::TextIndexFiller(index::TextIndex* text_index)
    : text_index_(text_index), thread_([this] { Run(); }) {}

TextIndexFiller::~TextIndexFiller() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_stopped_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void TextIndexFiller::Add(CommittedWindows committed) {
  if (committed.windows.empty()) return;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (is_stopped_) return;
    std::move(committed.windows.begin(), committed.windows.end(),
              std::back_inserter(waiting_.windows));
    waiting_.next_slot = committed.next_slot;
  }
  changed_.notify_all();
}

void TextIndexFiller::Finish() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    is_ending_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void TextIndexFiller::Run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] {
      return is_stopped_ || is_ending_ || waiting_.windows.size() >= kWindowsAtOnce;
    });
    if (is_stopped_ || waiting_.windows.empty()) return;
    const CommittedWindows committed = std::exchange(waiting_, {});
    lock.unlock();
    std::vector<index::WindowText> texts;
    for (const storage::WindowRecord& window : committed.windows) texts.push_back(TextOf(window));
    const absl::Status status = text_index_->Add(texts, committed.next_slot);
    lock.lock();
    // What follows cannot be added without it. Why, the next update of the index says.
    if (!status.ok()) is_stopped_ = true;
  }
}

}  // namespace fovea::memory
