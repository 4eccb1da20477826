// The store's records: type, length of the key, key, payload. The checksum is made right, so that
// what lies behind it is reached; without it, too.
#include "fuzz_input.h"
#include "storage/record_codec.h"

namespace fovea::storage {
namespace {

// What decodes is a record of records.h, which encodes and decodes to the same bytes.
template <typename Record, typename Encode, typename Decode>
void CheckRoundTrip(const absl::StatusOr<Record>& record, Encode encode, Decode decode) {
  fuzz::CheckMessage(record.status());
  if (!record.ok()) return;
  const absl::StatusOr<std::string> bytes = encode(*record);
  fuzz::Require(bytes.ok(), "a record that was read can be written");
  const absl::StatusOr<Record> again = decode(*bytes);
  fuzz::Require(again.ok(), "a record that was written can be read");
  const absl::StatusOr<std::string> bytes_again = encode(*again);
  fuzz::Require(bytes_again.ok() && *bytes_again == *bytes, "and is the same");
}

void Check(RecordType type, std::string_view key, std::string_view value) {
  StoreSettings settings;
  settings.n_mem_layers = 2;
  settings.n_kv_heads = 2;
  settings.head_dim = 4;
  switch (type) {
    case RecordType::kFormat:
      fuzz::CheckMessage(DecodeFormatVersion(value).status());
      break;
    case RecordType::kSettings:
    case RecordType::kTypedSettings:
      CheckRoundTrip(
          DecodeSettings(value), [](const auto& record) { return EncodeSettings(record); },
          [](const std::string& bytes) { return DecodeSettings(bytes); });
      break;
    case RecordType::kCounters:
      fuzz::CheckMessage(DecodeCounters(value).status());
      break;
    case RecordType::kDocument:
    case RecordType::kSourcedDocument:
      CheckRoundTrip(
          DecodeDocument(key, value), [](const auto& record) { return EncodeDocument(record); },
          [&](const std::string& bytes) { return DecodeDocument(key, bytes); });
      break;
    case RecordType::kLink:
    case RecordType::kRepeatsLink:
      CheckRoundTrip(
          DecodeLink(key, value), [](const auto& record) { return EncodeLink(record); },
          [&](const std::string& bytes) { return DecodeLink(key, bytes); });
      break;
    case RecordType::kWindow:
      CheckRoundTrip(
          DecodeWindow(key, value), [](const auto& record) { return EncodeWindow(record); },
          [&](const std::string& bytes) { return DecodeWindow(key, bytes); });
      break;
    case RecordType::kBlockKeys:
    case RecordType::kBlockValues:
    case RecordType::kFloat32BlockKeys:
    case RecordType::kFloat32BlockValues: {
      Block block;
      fuzz::CheckMessage(DecodeBlockHalf(key, value, nullptr, &block));
      for (const EntryType entry_type : {EntryType::kBFloat16, EntryType::kFloat32}) {
        settings.entry_type = entry_type;
        fuzz::CheckMessage(DecodeBlockHalf(key, value, &settings, &block));
      }
      break;
    }
    case RecordType::kQuerySample:
      fuzz::CheckMessage(DecodeQuerySample(key, value, nullptr).status());
      fuzz::CheckMessage(DecodeQuerySample(key, value, &settings).status());
      break;
    case RecordType::kSegment:
      CheckRoundTrip(
          DecodeSegment(key, value), [](const auto& record) { return EncodeSegment(record); },
          [&](const std::string& bytes) { return DecodeSegment(key, bytes); });
      break;
  }
  fuzz::Require(!DescribeRecord(type, key).empty(), "every key has a description");
}

}  // namespace
}  // namespace fovea::storage

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 2) return 0;
  const auto type =
      static_cast<fovea::storage::RecordType>(data[0] % fovea::storage::kNumRecordTypes + 1);
  std::string_view rest = fovea::fuzz::AsView(data + 2, size - 2);
  const std::string_view key = rest.substr(0, data[1] % 32);
  rest.remove_prefix(key.size());
  fovea::storage::Check(type, key, rest);
  fovea::storage::Check(type, key, fovea::storage::SealRecord(type, key, rest));
  return 0;
}
