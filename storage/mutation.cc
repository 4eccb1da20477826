#include <algorithm>
#include <iterator>
#include <limits>
#include <utility>

#include "storage/keys.h"
#include "storage/mutation_impl.h"
#include "storage/record_codec.h"

namespace fovea::storage {

void Mutation::Impl::Fail(absl::Status error) {
  if (status.ok()) status = std::move(error);
}

void Mutation::Impl::Put(ColumnFamily family, std::string key, absl::StatusOr<std::string> value) {
  if (!value.ok()) return Fail(value.status());
  size_bytes += key.size() + value->size();
  operations.push_back({Action::kPut, family, std::move(key), *std::move(value)});
}

void Mutation::Impl::Delete(ColumnFamily family, std::string key) {
  size_bytes += key.size();
  operations.push_back({Action::kDelete, family, std::move(key), ""});
}

void Mutation::Impl::DeleteAllOf(ColumnFamily family, uint64_t number) {
  if (number == std::numeric_limits<uint64_t>::max()) {
    return Fail(absl::InvalidArgumentError(StrCat("number ", number, " is above the largest")));
  }
  std::string begin = NumberKey(number);
  std::string end = NumberKey(number + 1);
  size_bytes += begin.size() + end.size();
  operations.push_back({Action::kDeleteRange, family, std::move(begin), std::move(end)});
}

Mutation::Mutation() : impl_(std::make_unique<Impl>()) {}
Mutation::~Mutation() = default;
Mutation::Mutation(Mutation&&) noexcept = default;
Mutation& Mutation::operator=(Mutation&&) noexcept = default;

void Mutation::Append(Mutation other) {
  Impl& from = *other.impl_;
  if (!from.status.ok()) impl_->Fail(std::move(from.status));
  impl_->size_bytes += from.size_bytes;
  impl_->operations.insert(impl_->operations.end(),
                           std::make_move_iterator(from.operations.begin()),
                           std::make_move_iterator(from.operations.end()));
  const auto take_newer = [](auto* mine, auto& theirs) {
    if (theirs) *mine = std::move(theirs);
  };
  const auto take_larger = [](auto* mine, const auto& theirs) { *mine = std::max(*mine, theirs); };
  impl_->block_kinds.merge(from.block_kinds);
  take_larger(&impl_->last_memory_layer, from.last_memory_layer);
  take_larger(&impl_->format_version, from.format_version);
  take_larger(&impl_->slot_end, from.slot_end);
  take_larger(&impl_->last_document, from.last_document);
  take_larger(&impl_->last_segment, from.last_segment);
  take_newer(&impl_->settings, from.settings);
  take_newer(&impl_->next_slot, from.next_slot);
  take_newer(&impl_->next_document, from.next_document);
  take_newer(&impl_->next_segment, from.next_segment);
  take_newer(&impl_->generation, from.generation);
}

void Mutation::PutSettings(const StoreSettings& settings) {
  impl_->settings = settings;
  impl_->Put(ColumnFamily::kMeta, std::string(kSettingsKey), EncodeSettings(settings));
}

void Mutation::PutWindow(const WindowRecord& window) {
  auto value = EncodeWindow(window);
  if (value.ok()) {
    impl_->slot_end = std::max(impl_->slot_end, window.slot_begin + window.ids.size());
  }
  impl_->Put(ColumnFamily::kWindows, NumberKey(window.slot_begin), std::move(value));
}

void Mutation::PutBlock(Slot slot_begin, int memory_layer, const Block& block) {
  if (block.keys.type() != block.values.type()) {
    return impl_->Fail(absl::InvalidArgumentError(
        StrCat("block of memory layer ", memory_layer, " of the window at slot ", slot_begin,
               ": keys in ", EntryTypeName(block.keys.type()), ", values in ",
               EntryTypeName(block.values.type()), ", want one type")));
  }
  for (const BlockHalf half : {BlockHalf::kKeys, BlockHalf::kValues}) {
    auto value = EncodeBlockHalf(slot_begin, memory_layer, block, half);
    if (!value.ok()) return impl_->Fail(value.status());
    impl_->Put(ColumnFamily::kBlocks, BlockKey(slot_begin, memory_layer, half), std::move(value));
  }
  impl_->block_kinds.insert({block.n_kv_heads, block.head_dim, block.keys.type()});
  impl_->last_memory_layer = std::max(impl_->last_memory_layer.value_or(0), memory_layer);
}

void Mutation::PutQuerySample(Slot slot_begin, const QuerySample& sample) {
  impl_->Put(ColumnFamily::kSamples, NumberKey(slot_begin), EncodeQuerySample(slot_begin, sample));
}

void Mutation::DeleteWindow(Slot slot_begin) {
  impl_->Delete(ColumnFamily::kWindows, NumberKey(slot_begin));
  impl_->DeleteAllOf(ColumnFamily::kBlocks, slot_begin);
  impl_->Delete(ColumnFamily::kSamples, NumberKey(slot_begin));
}

void Mutation::PutDocument(const DocumentRecord& document) {
  impl_->last_document = std::max(impl_->last_document, document.number);
  impl_->Put(ColumnFamily::kDocuments, NumberKey(document.number), EncodeDocument(document));
  if (!document.sources.empty() && HasDifferentSources(document)) {
    impl_->format_version = std::max(impl_->format_version, kSourcesFormatVersion);
  }
}

void Mutation::PutLink(const WindowLink& link) {
  impl_->Put(ColumnFamily::kLinks, LinkKey(link.document, link.ordinal), EncodeLink(link));
  if (!link.repeats.empty()) {
    impl_->format_version = std::max(impl_->format_version, kRepeatsFormatVersion);
  }
}

void Mutation::DeleteDocument(DocumentNumber number) {
  impl_->Delete(ColumnFamily::kDocuments, NumberKey(number));
  impl_->DeleteAllOf(ColumnFamily::kLinks, number);
}

void Mutation::PutSegment(const SegmentRecord& segment) {
  impl_->last_segment = std::max(impl_->last_segment.value_or(0), segment.id);
  impl_->Put(ColumnFamily::kSegments, NumberKey(segment.id), EncodeSegment(segment));
}

void Mutation::DeleteSegment(uint64_t id) { impl_->Delete(ColumnFamily::kSegments, NumberKey(id)); }

void Mutation::PutGeneration(uint64_t generation) { impl_->generation = generation; }
void Mutation::PutNextSlot(Slot next_slot) { impl_->next_slot = next_slot; }
void Mutation::PutNextDocumentNumber(DocumentNumber number) { impl_->next_document = number; }
void Mutation::PutNextSegmentId(uint64_t id) { impl_->next_segment = id; }

size_t Mutation::size_bytes() const { return impl_->size_bytes; }

}  // namespace fovea::storage
