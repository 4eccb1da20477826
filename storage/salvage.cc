// What a store that is opened to be repaired does without its counters.
#include <algorithm>
#include <limits>

#include "storage/document_store_impl.h"
#include "storage/keys.h"

namespace fovea::storage {
namespace {

// For windows whose size cannot be read. Slots are plenty, and one that is used twice is not.
constexpr uint64_t kLargestWindow = uint64_t{1} << 24;

// a + b, or the largest number.
uint64_t SaturatingAdd(uint64_t a, uint64_t b) {
  return a > std::numeric_limits<uint64_t>::max() - b ? std::numeric_limits<uint64_t>::max()
                                                      : a + b;
}

}  // namespace

absl::StatusOr<Counters> DocumentStoreImpl::RecoverCounters() const {
  Counters counters;
  const auto raise = [](uint64_t value, uint64_t* counter) {
    *counter = std::max(*counter, value);
  };
  // Where a family cannot be read to its end the numbers are lower bounds, good enough for a copy
  // that has nothing beyond them either.
  const auto unless_damaged = [](const absl::Status& status) {
    return absl::IsDataLoss(status) ? absl::OkStatus() : status;
  };
  RETURN_IF_ERROR(unless_damaged(
      ForEach(ColumnFamily::kWindows, RecordType::kWindow, "", "",
              [&](std::string_view key, std::string_view value) {
                const uint64_t slot = ParseNumberKey(key).value_or(0);
                const absl::StatusOr<WindowRecord> window = DecodeWindow(key, value);
                raise(SaturatingAdd(slot, window.ok() ? window->ids.size() : kLargestWindow),
                      &counters.next_slot);
                return absl::OkStatus();
              })));
  RETURN_IF_ERROR(unless_damaged(
      ForEach(ColumnFamily::kLinks, RecordType::kLink, "", "",
              [&](std::string_view key, std::string_view value) {
                const absl::StatusOr<WindowLink> link = DecodeLink(key, value);
                if (!link.ok()) return absl::OkStatus();
                raise(SaturatingAdd(link->slot_begin, link->n_tokens), &counters.next_slot);
                raise(SaturatingAdd(link->document, 1), &counters.next_document);
                return absl::OkStatus();
              })));
  RETURN_IF_ERROR(unless_damaged(ForEach(ColumnFamily::kDocuments, RecordType::kDocument, "", "",
                                         [&](std::string_view key, std::string_view /*value*/) {
                                           raise(SaturatingAdd(ParseNumberKey(key).value_or(0), 1),
                                                 &counters.next_document);
                                           return absl::OkStatus();
                                         })));
  RETURN_IF_ERROR(unless_damaged(ForEach(ColumnFamily::kSegments, RecordType::kSegment, "", "",
                                         [&](std::string_view key, std::string_view value) {
                                           raise(SaturatingAdd(ParseNumberKey(key).value_or(0), 1),
                                                 &counters.next_segment);
                                           const absl::StatusOr<SegmentRecord> segment =
                                               DecodeSegment(key, value);
                                           if (!segment.ok()) return absl::OkStatus();
                                           // The youngest generation may be one that was being
                                           // built; its segments are as good, and slots that it
                                           // lacks are searched without an index.
                                           raise(segment->generation, &counters.generation);
                                           raise(segment->slot_end, &counters.next_slot);
                                           return absl::OkStatus();
                                         })));
  counters.epoch = ReadWitness(*context_->file_system, folder()).value_or(0);
  return counters;
}

}  // namespace fovea::storage
