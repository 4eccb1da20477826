#include "memory/ingest/window_batch.h"

#include <utility>

#include "memory/block_layout.h"

namespace fovea::memory {

std::vector<model::WindowTokens> WindowBatch::TokensToEncode() const {
  std::vector<model::WindowTokens> tokens;
  for (const QueuedWindow& queued : windows) {
    if (queued.window) tokens.push_back({queued.window->context_ids, queued.window->ids});
  }
  return tokens;
}

void WindowBatch::PutWindows(const storage::StoreSettings& settings, ThreadPool* threads) {
  std::vector<size_t> encoded_index(windows.size());
  for (size_t i = 0, n = 0; i < windows.size(); ++i) {
    encoded_index[i] = n;
    if (windows[i].window) ++n;
  }
  std::vector<storage::Mutation> of_windows(windows.size());
  const auto put = [&](int64_t begin, int64_t end, int /*thread*/) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i) {
      const QueuedWindow& queued = windows[i];
      storage::Mutation& to = of_windows[i];
      to.PutLink(queued.link);
      if (!queued.window) continue;
      to.PutWindow(*queued.window);
      if (settings.n_mem_layers == 0) continue;
      model::EncodedWindow& window = encoded[encoded_index[i]];
      for (int layer = 0; layer < settings.n_mem_layers; ++layer) {
        to.PutBlock(
            queued.window->slot_begin, layer,
            ToBlock(window, layer, settings.n_kv_heads, settings.head_dim, settings.entry_type));
      }
      to.PutQuerySample(queued.window->slot_begin, ToQuerySample(window));
      window = {};  // so that both need not fit together
    }
  };
  const auto n_windows = static_cast<int64_t>(windows.size());
  if (threads != nullptr) {
    threads->ParallelFor(n_windows, 1, put);
  } else {
    put(0, n_windows, 0);
  }
  for (storage::Mutation& of_window : of_windows) mutation.Append(std::move(of_window));
  windows.clear();
  encoded.clear();
}

}  // namespace fovea::memory
