#include "memory/stored_entries.h"

#include <cstring>
#include <memory>

namespace fovea::memory {

absl::StatusOr<StoredEntries> ReadEntries(const Generation& generation, Slot slot_begin,
                                          int memory_layer,
                                          storage::DocumentStore::BlockPart part) {
  StoredEntries entries;
  RETURN_IF_ERROR(generation.source->store().MapBlock(
      slot_begin, memory_layer, part,
      [&](const storage::BlockView& view) {
        entries.n_kv_heads = view.n_kv_heads;
        entries.n_tokens = view.n_tokens;
        entries.head_dim = view.head_dim;
        entries.is_mapped = view.file != nullptr;
        const size_t size_bytes = view.bytes.size();
        std::shared_ptr<const std::byte> bytes(
            view.file, reinterpret_cast<const std::byte*>(view.bytes.data()));
        if (!entries.is_mapped) {
          const std::shared_ptr<std::byte[]> copy(new std::byte[size_bytes]);
          std::memcpy(copy.get(), view.bytes.data(), size_bytes);
          bytes = {copy, copy.get()};
        }
        entries.block = HalfBlock(std::move(bytes), view.type, size_bytes);
        return absl::OkStatus();
      },
      generation.hold.get()));
  return entries;
}

absl::StatusOr<std::vector<storage::WindowLink>> WindowsOf(
    const Generation& generation, const storage::DocumentRecord& document) {
  return generation.source->store().Links(document.number);
}

}  // namespace fovea::memory
