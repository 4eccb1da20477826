#include "model/window_encoder.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "model/forward_pass.h"

namespace fovea::model {
namespace {

// Sampled queries of a window for calibration: 4 of a window of 1,024 tokens cost 0.6% of its keys
// and values. The last token of each stride: it has seen the most.
constexpr int64_t kSampleStride = 256;

}  // namespace

absl::StatusOr<std::vector<EncodedWindow>> WindowEncoder::Encode(
    std::span<const WindowTokens> windows, MemorySource* memory) {
  if (weights_.n_mem_layers() == 0) {
    return absl::FailedPreconditionError(
        "the model has no memory layers: give an adapter (--adapter) or name layers");
  }
  if (windows.empty()) return std::vector<EncodedWindow>();
  std::vector<int32_t> ids;
  std::vector<Place> places;
  LocalContext::WindowOptions options;
  options.entries = compute::DTypeOf(weights_.memory().entry_type);
  for (const WindowTokens& window : windows) {
    if (window.tokens.empty()) return absl::InvalidArgumentError("a window without tokens");
    options.begins.push_back(static_cast<int64_t>(ids.size()));
    ids.insert(ids.end(), window.context.begin(), window.context.end());
    Place& place = places.emplace_back();
    place.first_row = static_cast<int64_t>(ids.size());
    place.n_rows = static_cast<int64_t>(window.tokens.size());
    place.first_sample = static_cast<int64_t>(options.sampled_tokens.size());
    for (int64_t begin = 0; begin < place.n_rows; begin += kSampleStride) {
      options.sampled_tokens.push_back(place.first_row +
                                       std::min(begin + kSampleStride, place.n_rows) - 1);
      place.n_samples += 1;
    }
    ids.insert(ids.end(), window.tokens.begin(), window.tokens.end());
  }
  options.begins.push_back(static_cast<int64_t>(ids.size()));
  if (windows.size() == 1) options.begins.clear();
  LocalContext context = LocalContext::ForWindow(std::move(options));
  const Sequence sequence{.ids = ids, .context = &context, .memory = memory};
  RETURN_IF_ERROR(ForwardPass(weights_, device_, {&sequence, 1}, &work_).Run());
  return Take(context, places);
}

absl::StatusOr<const std::byte*> WindowEncoder::ToHost(const compute::View& view) {
  if (device_.is_host_memory()) return view.As<std::byte>();
  const auto size_bytes = static_cast<size_t>(view.size()) *
                          static_cast<size_t>(compute::Traits(view.dtype()).block_bytes);
  if (work_.host_entries.size_bytes() < size_bytes) {
    ASSIGN_OR_RETURN(work_.host_entries, device_.AllocatePinned(size_bytes));
  }
  auto* const host = work_.host_entries.data<std::byte>();
  RETURN_IF_ERROR(device_.CopyToHost(view.data(), size_bytes, host));
  return host;
}

absl::StatusOr<std::vector<EncodedWindow>> WindowEncoder::Take(const LocalContext& context,
                                                               std::span<const Place> places) {
  const ModelConfig& c = weights_.config();
  const EntryType type = weights_.memory().entry_type;
  const auto n_mem_layers = static_cast<size_t>(weights_.n_mem_layers());
  std::vector<EncodedWindow> windows(places.size());
  for (size_t w = 0; w < windows.size(); ++w) {
    windows[w].n_tokens = places[w].n_rows;
    windows[w].n_sampled = places[w].n_samples;
    windows[w].keys.resize(n_mem_layers);
    windows[w].values.resize(n_mem_layers);
    windows[w].queries.resize(n_mem_layers);
  }
  const auto for_each_window = [&](auto take) {
    device_.threads().ParallelFor(
        static_cast<int64_t>(windows.size()), 1, [&](int64_t begin, int64_t end, int) {
          for (int64_t w = begin; w < end; ++w) {
            take(windows[static_cast<size_t>(w)], places[static_cast<size_t>(w)]);
          }
        });
  };
  const auto entry_row = static_cast<size_t>(c.n_kv_heads * c.head_dim);
  const auto query_row = static_cast<size_t>(c.n_heads * c.head_dim);
  for (size_t m = 0; m < n_mem_layers; ++m) {
    const int64_t layer = weights_.memory().mem_layers[m];
    for (const bool is_keys : {true, false}) {
      ASSIGN_OR_RETURN(
          const std::byte* const from,
          ToHost(is_keys ? context.MemoryKeys(static_cast<int64_t>(m), 0, context.n_tokens())
                         : context.Values(layer, 0, context.n_tokens())));
      for_each_window([&](EncodedWindow& window, const Place& place) {
        EntryVector& to = is_keys ? window.keys[m] : window.values[m];
        to = EntryVector(type, static_cast<size_t>(place.n_rows) * entry_row);
        std::memcpy(to.bytes().data(),
                    from + static_cast<size_t>(place.first_row) * entry_row * EntryBytes(type),
                    to.size_bytes());
      });
    }
    ASSIGN_OR_RETURN(const std::byte* const queries,
                     ToHost(context.SampledQueries(static_cast<int64_t>(m))));
    for_each_window([&](EncodedWindow& window, const Place& place) {
      window.queries[m].resize(static_cast<size_t>(place.n_samples) * query_row);
      std::memcpy(window.queries[m].data(),
                  queries + static_cast<size_t>(place.first_sample) * query_row * sizeof(BFloat16),
                  window.queries[m].size() * sizeof(BFloat16));
    });
  }
  return windows;
}

}  // namespace fovea::model
