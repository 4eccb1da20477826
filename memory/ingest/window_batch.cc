#include "memory/ingest/window_batch.h"

#include "memory/block_layout.h"

namespace fovea::memory {

std::vector<model::WindowTokens> WindowBatch::TokensToEncode() const {
  std::vector<model::WindowTokens> tokens;
  for (const QueuedWindow& queued : windows) {
    if (queued.window) tokens.push_back({queued.window->context_ids, queued.window->ids});
  }
  return tokens;
}

void WindowBatch::PutWindows(const storage::StoreSettings& settings) {
  size_t next_encoded = 0;
  for (const QueuedWindow& queued : windows) {
    mutation.PutLink(queued.link);
    if (!queued.window) continue;
    mutation.PutWindow(*queued.window);
    if (settings.n_mem_layers == 0) continue;
    model::EncodedWindow& window = encoded[next_encoded++];
    for (int layer = 0; layer < settings.n_mem_layers; ++layer) {
      mutation.PutBlock(
          queued.window->slot_begin, layer,
          ToBlock(window, layer, settings.n_kv_heads, settings.head_dim, settings.entry_type));
    }
    mutation.PutQuerySample(queued.window->slot_begin, ToQuerySample(window));
    window = {};  // so that both need not fit together
  }
  windows.clear();
  encoded.clear();
}

}  // namespace fovea::memory
