#include "memory/resident_slab.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/status.h"

namespace fovea::memory {
namespace {

// Of entries that are on their way to the device.
constexpr size_t kStagingBytes = size_t{64} << 20;

size_t FirstWindow(const Generation& generation, Slot slot_begin) {
  const auto first = std::lower_bound(
      generation.windows.begin(), generation.windows.end(), slot_begin,
      [](const LiveWindow& window, Slot slot) { return window.slot_begin < slot; });
  return static_cast<size_t>(first - generation.windows.begin());
}

}  // namespace

absl::StatusOr<std::shared_ptr<const ResidentSlab>> ResidentSlab::Load(compute::Device& device,
                                                                       const Generation& generation,
                                                                       const SlabShape& shape,
                                                                       const ResidencyPlan& plan,
                                                                       const Progress& progress) {
  FOVEA_CHECK(generation.settings.has_value());
  const storage::StoreSettings& settings = *generation.settings;
  std::shared_ptr<ResidentSlab> slab(new ResidentSlab);
  slab->shape_ = shape;
  slab->values_ = plan.values;
  slab->n_kv_heads_ = settings.n_kv_heads;
  slab->head_dim_ = settings.head_dim;
  slab->dtype_ = compute::DTypeOf(settings.entry_type);
  slab->window_begin_.push_back(0);
  const size_t first_window = FirstWindow(generation, shape.slot_begin);
  for (size_t w = first_window; w < generation.windows.size(); ++w) {
    const LiveWindow& window = generation.windows[w];
    if (window.slot_begin >= shape.slot_end) break;
    slab->slot_begin_.push_back(window.slot_begin);
    slab->window_begin_.push_back(slab->window_begin_.back() + window.n_tokens);
  }
  const size_t half_bytes = static_cast<size_t>(slab->n_tokens() * settings.n_kv_heads) *
                            static_cast<size_t>(settings.head_dim) *
                            EntryBytes(settings.entry_type);
  // All of it before anything is read: there is room, or there is not.
  for (int l = 0; l < settings.n_mem_layers; ++l) {
    Layer& layer = slab->layers_.emplace_back();
    layer.bits = plan.uses_codes ? shape.bits[static_cast<size_t>(l)] : 0;
    const auto allocate = [&](size_t size_bytes, bool is_pinned, compute::Buffer* buffer) {
      (is_pinned ? slab->bytes_.pinned : slab->bytes_.on_device) += size_bytes;
      absl::StatusOr<compute::Buffer> made =
          is_pinned ? device.AllocatePinned(size_bytes) : device.Allocate(size_bytes);
      if (made.ok()) *buffer = *std::move(made);
      return made.status();
    };
    const bool has_index = plan.uses_codes && shape.index_bytes[static_cast<size_t>(l)] > 0;
    if (has_index) slab->bytes_.on_device += shape.index_bytes[static_cast<size_t>(l)];
    const bool has_pinned_keys = plan.has_pinned_keys && (layer.bits > 0 || has_index);
    layer.has_pinned_keys = has_pinned_keys;
    slab->has_pinned_keys_ |= has_pinned_keys;
    RETURN_IF_ERROR(allocate(half_bytes, has_pinned_keys, &layer.keys));
    if (plan.values != ValuePlace::kStore) {
      RETURN_IF_ERROR(allocate(half_bytes, plan.values == ValuePlace::kPinned, &layer.values));
    }
    if (layer.bits == 0) continue;
    const compute::KeyCoder coder(layer.bits, settings.head_dim);
    const auto heads = static_cast<size_t>(settings.n_kv_heads);
    const std::vector<float>& rotation = coder.rotation();
    RETURN_IF_ERROR(allocate(heads * static_cast<size_t>(coder.code_bytes(slab->n_tokens())), false,
                             &layer.codes));
    RETURN_IF_ERROR(
        allocate(heads * static_cast<size_t>(coder.n_factors(slab->n_tokens())) * sizeof(BFloat16),
                 false, &layer.factors));
    RETURN_IF_ERROR(allocate(heads * static_cast<size_t>(settings.head_dim) * sizeof(float), false,
                             &layer.mean));
    RETURN_IF_ERROR(allocate(rotation.size() * sizeof(float), false, &layer.rotation));
    RETURN_IF_ERROR(device.CopyFromHost(rotation.data(), rotation.size() * sizeof(float),
                                        layer.rotation.data<void>()));
  }
  RETURN_IF_ERROR(slab->Read(device, generation, first_window, progress));
  if (plan.uses_codes) RETURN_IF_ERROR(slab->CopyIndexes(device, generation));
  for (Layer& layer : slab->layers_) {
    if (layer.bits > 0) RETURN_IF_ERROR(slab->Encode(device, &layer));
  }
  RETURN_IF_ERROR(device.Synchronize());
  return slab;
}

// Runs of windows whose blocks fit the staging memory are read by all threads; then each head's
// tokens of all of them, which lie together on the device, are copied at once. What stays in pinned
// memory is read into its place.
absl::Status ResidentSlab::Read(compute::Device& device, const Generation& generation,
                                size_t first_window, const Progress& progress) {
  const size_t token_bytes =
      static_cast<size_t>(head_dim_) * EntryBytes(generation.settings->entry_type);
  const auto n_heads = static_cast<size_t>(n_kv_heads_);
  const size_t window_bytes = token_bytes * n_heads;
  ASSIGN_OR_RETURN(const compute::Buffer staging, device.AllocatePinned(kStagingBytes));
  const storage::DocumentStore& store = generation.source->store();
  using BlockPart = storage::DocumentStore::BlockPart;
  const size_t n_windows = slot_begin_.size();
  for (size_t begin = 0; begin < n_windows;) {
    size_t end = begin + 1;
    const auto tokens_until = [&](size_t w) {
      return static_cast<size_t>(window_begin_[w] - window_begin_[begin]);
    };
    while (end < n_windows && tokens_until(end + 1) * window_bytes <= kStagingBytes) ++end;
    const size_t n_run = tokens_until(end);
    if (n_run * window_bytes > kStagingBytes) {
      return absl::InvalidArgumentError(
          StrCat("a window of ", n_run, " tokens: want at most ", kStagingBytes / window_bytes));
    }
    for (size_t l = 0; l < layers_.size(); ++l) {
      for (const bool keys : {true, false}) {
        if (!keys && values_ == ValuePlace::kStore) continue;
        RETURN_IF_ERROR(progress.CheckCancelled());
        const bool is_pinned = keys ? layers_[l].has_pinned_keys : values_ == ValuePlace::kPinned;
        auto* const slab = (keys ? layers_[l].keys : layers_[l].values).data<std::byte>();
        // Where token 0 of the run lies, for head 0, and how far apart heads are.
        const auto slab_head = static_cast<size_t>(n_tokens()) * token_bytes;
        std::byte* const slab_run = slab + static_cast<size_t>(window_begin_[begin]) * token_bytes;
        std::byte* const to = is_pinned ? slab_run : staging.data<std::byte>();
        const size_t to_head = is_pinned ? slab_head : n_run * token_bytes;
        std::vector<absl::Status> errors(static_cast<size_t>(device.threads().n_threads()));
        device.threads().ParallelFor(
            static_cast<int64_t>(end - begin), 1, [&](int64_t first, int64_t last, int thread) {
              for (int64_t i = first; i < last; ++i) {
                const size_t w = begin + static_cast<size_t>(i);
                const size_t n =
                    static_cast<size_t>(window_begin_[w + 1] - window_begin_[w]) * token_bytes;
                const auto copy = [&](const storage::BlockView& view) -> absl::Status {
                  if (view.bytes.size() != n * n_heads) {
                    return absl::DataLossError(StrCat("the block at slot ", slot_begin_[w], " has ",
                                                      view.bytes.size(), " bytes, want ",
                                                      n * n_heads));
                  }
                  for (size_t head = 0; head < n_heads; ++head) {
                    std::memcpy(to + head * to_head + tokens_until(w) * token_bytes,
                                view.bytes.data() + head * n, n);
                  }
                  return absl::OkStatus();
                };
                absl::Status& error = errors[static_cast<size_t>(thread)];
                if (!error.ok()) return;
                error = store.VisitBlock(
                    generation.windows[first_window + w].slot_begin, static_cast<int>(l),
                    keys ? BlockPart::kKeys : BlockPart::kValues, copy, generation.hold.get());
              }
            });
        for (const absl::Status& error : errors) RETURN_IF_ERROR(error);
        if (is_pinned) continue;
        for (size_t head = 0; head < n_heads; ++head) {
          RETURN_IF_ERROR(device.CopyFromHost(to + head * to_head, n_run * token_bytes,
                                              slab_run + head * slab_head));
        }
      }
    }
    begin = end;
  }
  return absl::OkStatus();
}

absl::Status ResidentSlab::Encode(compute::Device& device, Layer* layer) const {
  const compute::KeyCoder coder(layer->bits, head_dim_);
  return compute::EncodeKeys(device, {.coder = &coder,
                                      .rotation = layer->rotation.data<float>(),
                                      .keys = View(layer->keys),
                                      .codes = layer->codes.data<std::byte>(),
                                      .factors = layer->factors.data<BFloat16>(),
                                      .mean = layer->mean.data<float>()});
}

absl::Status ResidentSlab::CopyIndexes(compute::Device& device, const Generation& generation) {
  const auto segment = std::find_if(
      generation.segments.begin(), generation.segments.end(),
      [&](const auto& s) { return s->record.id == shape_.segment_id && shape_.segment_id != 0; });
  if (segment == generation.segments.end()) return absl::OkStatus();
  const std::vector<index::IdRun>* runs = nullptr;  // of the layer before
  for (size_t l = 0; l < layers_.size(); ++l) {
    if (shape_.index_bytes[l] == 0) continue;
    segment_ = *segment;
    Layer& layer = layers_[l];
    ASSIGN_OR_RETURN(layer.index, segment_->layers[l]->CopyTo(device));
    const index::KeyIds& ids = layer.index->ids();
    if (runs != nullptr && *runs == ids.runs()) {
      layer.tokens = layers_[l - 1].tokens;
    } else {
      const std::vector<int32_t> tokens = TokensOf(ids);
      int32_t next = 0;
      const bool is_same =
          std::all_of(tokens.begin(), tokens.end(), [&](int32_t t) { return t == next++; });
      if (!is_same) {
        ASSIGN_OR_RETURN(compute::Buffer buffer, device.Allocate(tokens.size() * sizeof(int32_t)));
        RETURN_IF_ERROR(device.CopyFromHost(tokens.data(), tokens.size() * sizeof(int32_t),
                                            buffer.data<void>()));
        layer.tokens = std::make_shared<const compute::Buffer>(std::move(buffer));
      }
    }
    runs = &ids.runs();
  }
  return absl::OkStatus();
}

std::vector<int32_t> ResidentSlab::TokensOf(const index::KeyIds& ids) const {
  std::vector<int32_t> tokens;
  tokens.reserve(static_cast<size_t>(ids.size()));
  for (const index::IdRun& run : ids.runs()) {
    const Slot end = shape_.slot_begin + static_cast<Slot>(run.first_id + run.n);
    Slot slot = shape_.slot_begin + static_cast<Slot>(run.first_id);
    auto window = std::upper_bound(slot_begin_.begin(), slot_begin_.end(), slot);
    if (window != slot_begin_.begin()) --window;
    // Slots of a window that is here, or up to the next one.
    while (slot < end) {
      const auto w = static_cast<size_t>(window - slot_begin_.begin());
      const auto n_tokens = window == slot_begin_.end()
                                ? Slot{0}
                                : static_cast<Slot>(window_begin_[w + 1] - window_begin_[w]);
      if (window == slot_begin_.end() || slot < *window) {
        const Slot until = window == slot_begin_.end() ? end : std::min(end, *window);
        tokens.insert(tokens.end(), static_cast<size_t>(until - slot), -1);
        slot = until;
      } else if (slot < *window + n_tokens) {
        const Slot until = std::min(end, *window + n_tokens);
        for (; slot < until; ++slot) {
          tokens.push_back(
              static_cast<int32_t>(window_begin_[w] + static_cast<int64_t>(slot - *window)));
        }
      } else {
        ++window;
      }
    }
  }
  return tokens;
}

bool ResidentSlab::Serves(const Generation& generation, const SlabShape& shape,
                          const ResidencyPlan& plan) const {
  if (shape.slot_begin != shape_.slot_begin || shape.slot_end != shape_.slot_end) return false;
  if (values_ != plan.values) return false;
  if (!plan.uses_codes && has_pinned_keys_) return false;
  for (size_t l = 0; l < layers_.size(); ++l) {
    if (!plan.uses_codes) continue;
    if (layers_[l].bits != shape.bits[l]) return false;
    const bool has_index = layers_[l].index != nullptr;
    if (has_index != (shape.index_bytes[l] > 0)) return false;
    if (has_index && segment_->record.id != shape.segment_id) return false;
  }
  for (size_t w = FirstWindow(generation, shape.slot_begin); w < generation.windows.size(); ++w) {
    const LiveWindow& window = generation.windows[w];
    if (window.slot_begin >= shape.slot_end) break;
    if (BeginOf(window.slot_begin) < 0) return false;
  }
  return true;
}

int64_t ResidentSlab::BeginOf(Slot slot_begin) const {
  const auto at = std::lower_bound(slot_begin_.begin(), slot_begin_.end(), slot_begin);
  if (at == slot_begin_.end() || *at != slot_begin) return -1;
  return window_begin_[static_cast<size_t>(at - slot_begin_.begin())];
}

Slot ResidentSlab::SlotAt(int64_t token) const {
  const auto next = std::upper_bound(window_begin_.begin(), window_begin_.end(), token);
  const auto window = static_cast<size_t>(next - window_begin_.begin()) - 1;
  return slot_begin_[window] + static_cast<Slot>(token - window_begin_[window]);
}

compute::CodedMemoryPart ResidentSlab::Part(int memory_layer) const {
  const Layer& layer = layers_[static_cast<size_t>(memory_layer)];
  return {.entries = {.keys = View(layer.keys),
                      .values = values_ == ValuePlace::kStore ? compute::ConstView()
                                                              : View(layer.values)},
          .codes = {.bits = layer.bits,
                    .codes = layer.codes.data<std::byte>(),
                    .factors = layer.factors.data<BFloat16>(),
                    .mean = layer.mean.data<float>(),
                    .rotation = layer.rotation.data<float>()}};
}

ResidentSlab::Index ResidentSlab::IndexOf(int memory_layer) const {
  const auto l = static_cast<size_t>(memory_layer);
  const Layer& layer = layers_[l];
  if (layer.index == nullptr) return {};
  return {.index = layer.index.get(),
          .n_probe = shape_.n_probe[l],
          .n_candidates = shape_.n_candidates[l],
          .tokens = layer.tokens != nullptr ? layer.tokens->data<int32_t>() : nullptr};
}

}  // namespace fovea::memory
