#include "memory/search/stored_values.h"

#include <cstring>

#include "compute/entry_table.h"

namespace fovea::memory {

absl::Status StoredValues::Gather(const model::MemoryQuery& query,
                                  std::span<const int64_t> positions,
                                  const ResidentEntries& entries, int64_t first_position,
                                  std::byte* to) {
  BlockTable& table = *windows_.values(query.memory_layer);
  struct Wanted {
    size_t at;  // among the positions
    compute::EntryPlace place;
  };
  std::vector<Wanted> wanted;
  for (size_t i = 0; i < positions.size(); ++i) {
    const int64_t position = positions[i] - first_position;
    if (positions[i] < 0 || position < 0 || position >= entries.n_positions()) continue;
    const compute::EntryPlace place =
        windows_.PlaceOf(static_cast<int64_t>(entries.SlotAt(position)));
    windows_.Want(place.block, &table);
    wanted.push_back({i, place});
  }
  RETURN_IF_ERROR(windows_.LoadWantedValues(query.memory_layer));
  const compute::EntryTable values{table.entries};
  const int64_t group = query.n_heads / query.n_kv_heads;
  const size_t top_k = positions.size() / static_cast<size_t>(query.n_queries * query.n_heads);
  device_->threads().ParallelFor(
      static_cast<int64_t>(wanted.size()), 1024, [&](int64_t begin, int64_t end, int) {
        for (int64_t i = begin; i < end; ++i) {
          const auto& [at, place] = wanted[static_cast<size_t>(i)];
          const int64_t head = static_cast<int64_t>(at / top_k) % query.n_heads;
          const EntryPointer value = values.At(place, head / group, query.head_dim);
          const size_t n = static_cast<size_t>(query.head_dim) * EntryBytes(value.type());
          std::memcpy(to + at * n, value.address(), n);
        }
      });
  windows_.EndUse(&table);
  return absl::OkStatus();
}

}  // namespace fovea::memory
