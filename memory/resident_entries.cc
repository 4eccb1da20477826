#include "memory/resident_entries.h"

#include <algorithm>
#include <cstring>
#include <utility>

namespace fovea::memory {
namespace {

// Of entries that are on their way to the device.
constexpr size_t kStagingBytes = size_t{64} << 20;

}  // namespace

absl::StatusOr<std::shared_ptr<const ResidentEntries>> ResidentEntries::Load(
    compute::Device& device, const Generation& generation, const Progress& progress) {
  FOVEA_CHECK(generation.settings.has_value());
  const storage::StoreSettings& settings = *generation.settings;
  std::shared_ptr<ResidentEntries> entries(new ResidentEntries);
  entries->n_kv_heads_ = settings.n_kv_heads;
  entries->head_dim_ = settings.head_dim;
  entries->dtype_ = compute::DTypeOf(settings.entry_type);
  entries->window_begin_.push_back(0);
  for (const LiveWindow& window : generation.windows) {
    entries->slot_begin_.push_back(window.slot_begin);
    entries->window_begin_.push_back(entries->window_begin_.back() + window.n_tokens);
  }
  const int64_t n_positions = entries->n_positions();
  const size_t token_bytes =
      static_cast<size_t>(settings.head_dim) * EntryBytes(settings.entry_type);
  const size_t half_bytes = static_cast<size_t>(n_positions * settings.n_kv_heads) * token_bytes;
  // All of it before anything is read: there is room, or there is not.
  for (int layer = 0; layer < settings.n_mem_layers; ++layer) {
    for (std::vector<compute::Buffer>* half : {&entries->keys_, &entries->values_}) {
      ASSIGN_OR_RETURN(compute::Buffer buffer, device.Allocate(half_bytes));
      half->push_back(std::move(buffer));
    }
  }
  // Runs of windows whose blocks fit the staging memory are read by all threads; then each head's
  // tokens of all of them, which lie together on the device, are copied at once.
  const size_t window_bytes = token_bytes * static_cast<size_t>(settings.n_kv_heads);
  ASSIGN_OR_RETURN(const compute::Buffer staging, device.AllocatePinned(kStagingBytes));
  auto* const staged = staging.data<std::byte>();
  const storage::DocumentStore& store = generation.source->store();
  using BlockPart = storage::DocumentStore::BlockPart;
  const size_t n_windows = generation.windows.size();
  for (size_t begin = 0; begin < n_windows;) {
    size_t end = begin + 1;
    const auto tokens_until = [&](size_t w) {
      return entries->window_begin_[w] - entries->window_begin_[begin];
    };
    while (end < n_windows &&
           static_cast<size_t>(tokens_until(end + 1)) * window_bytes <= kStagingBytes) {
      ++end;
    }
    const int64_t n_tokens = tokens_until(end);
    if (static_cast<size_t>(n_tokens) * window_bytes > kStagingBytes) {
      return absl::InvalidArgumentError(
          StrCat("a window of ", n_tokens, " tokens: want at most ", kStagingBytes / window_bytes));
    }
    for (int layer = 0; layer < settings.n_mem_layers; ++layer) {
      for (const bool keys : {true, false}) {
        RETURN_IF_ERROR(progress.CheckCancelled());
        std::vector<absl::Status> errors(static_cast<size_t>(device.threads().n_threads()));
        device.threads().ParallelFor(
            static_cast<int64_t>(end - begin), 1, [&](int64_t first, int64_t last, int thread) {
              for (int64_t i = first; i < last; ++i) {
                const size_t w = begin + static_cast<size_t>(i);
                const size_t n = static_cast<size_t>(generation.windows[w].n_tokens) * token_bytes;
                const auto copy = [&](const storage::BlockView& view) -> absl::Status {
                  if (view.bytes.size() != n * static_cast<size_t>(settings.n_kv_heads)) {
                    return absl::DataLossError(
                        StrCat("the block at slot ", generation.windows[w].slot_begin, " has ",
                               view.bytes.size(), " bytes, want ",
                               n * static_cast<size_t>(settings.n_kv_heads)));
                  }
                  for (int64_t head = 0; head < settings.n_kv_heads; ++head) {
                    std::memcpy(staged + static_cast<size_t>(head * n_tokens + tokens_until(w)) *
                                             token_bytes,
                                view.bytes.data() + static_cast<size_t>(head) * n, n);
                  }
                  return absl::OkStatus();
                };
                absl::Status& error = errors[static_cast<size_t>(thread)];
                if (!error.ok()) return;
                error = store.VisitBlock(generation.windows[w].slot_begin, layer,
                                         keys ? BlockPart::kKeys : BlockPart::kValues, copy,
                                         generation.hold.get());
              }
            });
        for (const absl::Status& error : errors) RETURN_IF_ERROR(error);
        auto* const to = (keys ? entries->keys_ : entries->values_)[static_cast<size_t>(layer)]
                             .data<std::byte>();
        for (int64_t head = 0; head < settings.n_kv_heads; ++head) {
          RETURN_IF_ERROR(device.CopyFromHost(
              staged + static_cast<size_t>(head * n_tokens) * token_bytes,
              static_cast<size_t>(n_tokens) * token_bytes,
              to + static_cast<size_t>(head * n_positions + entries->window_begin_[begin]) *
                       token_bytes));
        }
      }
    }
    begin = end;
  }
  RETURN_IF_ERROR(device.Synchronize());
  return entries;
}

Slot ResidentEntries::SlotAt(int64_t position) const {
  const auto next = std::upper_bound(window_begin_.begin(), window_begin_.end(), position);
  const auto window = static_cast<size_t>(next - window_begin_.begin()) - 1;
  return slot_begin_[window] + static_cast<Slot>(position - window_begin_[window]);
}

compute::MemoryPart ResidentEntries::Part(int memory_layer) const {
  const auto view = [&](const compute::Buffer& buffer) {
    return compute::ConstView(dtype_, buffer.data<void>(), {n_kv_heads_, n_positions(), head_dim_});
  };
  const auto layer = static_cast<size_t>(memory_layer);
  return {.keys = view(keys_[layer]), .values = view(values_[layer])};
}

absl::StatusOr<std::shared_ptr<const ResidentEntries>> ResidentCache::Get(
    compute::Device& device, const Generation& generation, const Progress& progress) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (entries_ != nullptr && place_ == device.memory_id() && epoch_ == generation.epoch) {
    return entries_;
  }
  entries_ = nullptr;  // first, so that old and new need not fit together
  ASSIGN_OR_RETURN(entries_, ResidentEntries::Load(device, generation, progress));
  place_ = device.memory_id();
  epoch_ = generation.epoch;
  return entries_;
}

}  // namespace fovea::memory
