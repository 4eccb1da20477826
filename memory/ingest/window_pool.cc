#include "memory/ingest/window_pool.h"

#include <span>

namespace fovea::memory {

Hash128 WindowHash(const storage::WindowRecord& window) {
  // The length in front keeps (context, ids) pairs with the same concatenation apart.
  FastHasher hasher;
  const uint64_t n_context = window.context_ids.size();
  hasher.Update(AsBytes(std::span<const uint64_t>(&n_context, 1)));
  hasher.Update(AsBytes(std::span<const int32_t>(window.context_ids)));
  hasher.Update(AsBytes(std::span<const int32_t>(window.ids)));
  return hasher.Finish();
}

}  // namespace fovea::memory
