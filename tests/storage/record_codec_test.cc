#include "storage/record_codec.h"

#include <cstring>
#include <functional>
#include <limits>

#include "absl/strings/escaping.h"
#include "storage/byte_io.h"
#include "tests/storage/store_test_util.h"

namespace fovea::storage {
namespace {

using ::testing::HasSubstr;

std::string Message(const absl::Status& status) { return std::string(ToStd(status.message())); }

SegmentRecord TestSegment() {
  SegmentRecord segment;
  segment.id = 7;
  segment.generation = 3;
  segment.slot_begin = 100;
  segment.slot_end = 400;
  segment.n_tokens = 250;
  segment.spec = "HNSW32";
  segment.requested_spec = "auto";
  segment.n_probe = 64;
  segment.n_candidates = 128;
  segment.needle_recall = {0.5, 0.995};
  segment.faiss_version = "1.7.3";
  segment.fingerprint = "9f2c";
  segment.files = {{"7-0.faiss", 12345, 67}, {"7-1.faiss", 0, 0}};
  return segment;
}

StoreSettings Float32Settings() {
  StoreSettings settings = TestSettings();
  settings.entry_type = EntryType::kFloat32;
  return settings;
}

// One record of each kind with its key, and a decoder that tells whether it took the value.
struct Sample {
  const char* name;
  std::string key;
  std::string value;
  std::function<absl::Status(std::string_view key, std::string_view value)> decode;
};

std::vector<Sample> Samples() {
  static const StoreSettings settings = TestSettings();
  static const StoreSettings float32_settings = Float32Settings();
  const auto number_key = [](uint64_t number) { return NumberKey(number); };
  std::vector<Sample> samples;
  samples.push_back({"format", std::string(kFormatKey), EncodeFormatVersion(1),
                     [](std::string_view, std::string_view value) {
                       return DecodeFormatVersion(value).status();
                     }});
  samples.push_back(
      {"settings", std::string(kSettingsKey), *EncodeSettings(settings),
       [](std::string_view, std::string_view value) { return DecodeSettings(value).status(); }});
  samples.push_back(
      {"counters", std::string(kCountersKey), EncodeCounters({1, 2, 3, 4, 5}),
       [](std::string_view, std::string_view value) { return DecodeCounters(value).status(); }});
  samples.push_back({"document", number_key(1), *EncodeDocument(MakeDocument(1, 0, 2, 20).record),
                     [](std::string_view key, std::string_view value) {
                       return DecodeDocument(key, value).status();
                     }});
  DocumentRecord sourced = MakeDocument(1, 0, 2, 20).record;
  sourced.sources.push_back({.source = "-", .collection = "", .title = "Another"});
  samples.push_back({"sourced document", number_key(1), *EncodeDocument(sourced),
                     [](std::string_view key, std::string_view value) {
                       return DecodeDocument(key, value).status();
                     }});
  samples.push_back({"link", LinkKey(1, 1), *EncodeLink(MakeDocument(1, 0, 2, 20).links[1]),
                     [](std::string_view key, std::string_view value) {
                       return DecodeLink(key, value).status();
                     }});
  WindowLink repeats = MakeDocument(1, 0, 2, 20).links[1];
  repeats.repeats = {{0, 9}, {11, 8}};
  samples.push_back({"link with repeats", LinkKey(1, 1), *EncodeLink(repeats),
                     [](std::string_view key, std::string_view value) {
                       return DecodeLink(key, value).status();
                     }});
  samples.push_back({"window", number_key(20), *EncodeWindow(TestWindow(20, 40)),
                     [](std::string_view key, std::string_view value) {
                       return DecodeWindow(key, value).status();
                     }});
  samples.push_back(
      {"float32 settings", std::string(kSettingsKey), *EncodeSettings(float32_settings),
       [](std::string_view, std::string_view value) { return DecodeSettings(value).status(); }});
  for (const BlockHalf half : {BlockHalf::kKeys, BlockHalf::kValues}) {
    const char* const name = half == BlockHalf::kKeys ? "keys" : "values";
    samples.push_back({name, BlockKey(20, 1, half),
                       *EncodeBlockHalf(20, 1, TestBlock(20, 1, 5), half),
                       [](std::string_view key, std::string_view value) {
                         Block block;
                         return DecodeBlockHalf(key, value, &settings, &block);
                       }});
    samples.push_back({name, BlockKey(20, 1, half),
                       *EncodeBlockHalf(20, 1, TestBlock(20, 1, 5, float32_settings), half),
                       [](std::string_view key, std::string_view value) {
                         Block block;
                         return DecodeBlockHalf(key, value, &float32_settings, &block);
                       }});
    // Its type is then the record's.
    samples.push_back({name, BlockKey(20, 1, half),
                       *EncodeBlockHalf(20, 1, TestBlock(20, 1, 5, float32_settings), half),
                       [](std::string_view key, std::string_view value) {
                         Block block;
                         return DecodeBlockHalf(key, value, nullptr, &block);
                       }});
  }
  samples.push_back({"sample", number_key(20), *EncodeQuerySample(20, TestSample(20)),
                     [](std::string_view key, std::string_view value) {
                       return DecodeQuerySample(key, value, &settings).status();
                     }});
  samples.push_back({"segment", number_key(7), *EncodeSegment(TestSegment()),
                     [](std::string_view key, std::string_view value) {
                       return DecodeSegment(key, value).status();
                     }});
  return samples;
}

// The value with another payload and a checksum that fits: what a hostile or faulty writer makes.
std::string Reseal(const std::string& key, const std::string& value, std::string_view payload) {
  return SealRecord(static_cast<RecordType>(value[0]), key, payload);
}
std::string_view Payload(const std::string& value) {
  return std::string_view(value).substr(1, value.size() - 9);
}

TEST(RecordCodecTest, EveryRecordDecodesToWhatWasEncoded) {
  for (const Sample& sample : Samples()) EXPECT_OK(sample.decode(sample.key, sample.value));
  EXPECT_EQ(*DecodeFormatVersion(EncodeFormatVersion(42)), 42);
  EXPECT_TRUE(*DecodeSettings(*EncodeSettings(TestSettings())) == TestSettings());
  EXPECT_TRUE(*DecodeSettings(*EncodeSettings(Float32Settings())) == Float32Settings());
  for (const StoreSettings& settings : {TestSettings(), Float32Settings()}) {
    const Block block = TestBlock(20, 1, 5, settings);
    for (const StoreSettings* known : {&settings, static_cast<const StoreSettings*>(nullptr)}) {
      Block decoded;
      for (const BlockHalf half : {BlockHalf::kKeys, BlockHalf::kValues}) {
        EXPECT_OK(DecodeBlockHalf(BlockKey(20, 1, half), *EncodeBlockHalf(20, 1, block, half),
                                  known, &decoded));
      }
      EXPECT_TRUE(decoded == block);
    }
  }
  const SegmentRecord segment = TestSegment();
  EXPECT_TRUE(*DecodeSegment(NumberKey(7), *EncodeSegment(segment)) == segment);
  const WindowRecord window = TestWindow(1234567, 333);
  EXPECT_TRUE(*DecodeWindow(NumberKey(1234567), *EncodeWindow(window)) == window);
  const QuerySample queries = TestSample(9);
  EXPECT_TRUE(*DecodeQuerySample(NumberKey(9), *EncodeQuerySample(9, queries), nullptr) == queries);
}

std::string Hex(const absl::StatusOr<std::string>& value) {
  if (!value.ok()) return value.status().ToString();
  return std::string(ToStd(absl::BytesToHexString(ToAbsl(*value))));
}

// What earlier releases wrote and read. A difference here is a memory that one of the two cannot
// open.
TEST(RecordCodecTest, BytesOfABfloat16MemoryAreAsEver) {
  EXPECT_EQ(Hex(EncodeFormatVersion(1)), "0101000000441ff5a1fc5a01ba");
  StoreSettings settings = TestSettings();
  settings.adapter = "a";
  settings.encoding = "reference";
  EXPECT_EQ(Hex(EncodeSettings(settings)),
            "020439663263116d6f64656c732f736d616c6c2e67677566016140"
            "08097265666572656e6365046175746f0203103859d15c4273d97c");
  Block block;
  block.n_tokens = 2;
  block.n_kv_heads = 1;
  block.head_dim = 2;
  using Numbers = std::vector<BFloat16>;
  block.keys = decltype(block.keys)(Numbers{BFloat16(1.0f), BFloat16(-2.0f), BFloat16(0.1f), {}});
  block.values = decltype(block.values)(Numbers{{}, BFloat16(3.0f), BFloat16(1e30f), {}});
  EXPECT_EQ(Hex(EncodeBlockHalf(4096, 1, block, BlockHalf::kKeys)),
            "07020000000100000002000000803f00c0cd3d0000a74984569f76bb85");
  EXPECT_EQ(Hex(EncodeBlockHalf(4096, 1, block, BlockHalf::kValues)),
            "08020000000100000002000000000040404a710000c2cb026b5c5c4c44");
}

// Types of their own, so that a program that does not know them says so.
TEST(RecordCodecTest, BytesOfAFloat32MemoryAreAsDocumented) {
  StoreSettings settings = Float32Settings();
  settings.adapter = "a";
  settings.encoding = "reference";
  const std::string bytes = *EncodeSettings(settings);
  settings.entry_type = EntryType::kBFloat16;
  const std::string bfloat16_bytes = *EncodeSettings(settings);
  EXPECT_EQ(bytes[0], 11);
  EXPECT_EQ(Payload(bytes), std::string(Payload(bfloat16_bytes)) + '\1');
  Block block;
  block.n_tokens = 1;
  block.n_kv_heads = 1;
  block.head_dim = 2;
  block.keys = EntryVector(std::vector<float>{1.0f, -0x1.000002p1f});
  block.values = EntryVector(std::vector<float>{0.1f, 0.0f});
  const std::string shape = "010000000100000002000000";
  const std::string keys = Hex(EncodeBlockHalf(4096, 1, block, BlockHalf::kKeys));
  EXPECT_EQ(keys.substr(0, keys.size() - 16), "0c" + shape + "0000803f010000c0");
  const std::string values = Hex(EncodeBlockHalf(4096, 1, block, BlockHalf::kValues));
  EXPECT_EQ(values.substr(0, values.size() - 16), "0d" + shape + "cdcccc3d00000000");
}

TEST(RecordCodecTest, SettingsOfAnUnknownEntryTypeAreDamage) {
  const std::string bytes = *EncodeSettings(Float32Settings());
  std::string payload(Payload(bytes));
  for (const char type : {'\0', '\2'}) {  // bfloat16 has the other record
    payload.back() = type;
    const std::string key(kSettingsKey);
    const absl::Status status =
        DecodeSettings(SealRecord(RecordType::kTypedSettings, key, payload)).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr("entries of type"));
  }
}

TEST(RecordCodecTest, TextsWithAnyBytesSurvive) {
  DocumentRecord document = MakeDocument(3, 0, 1, 4).record;
  const std::string title("zero \0 and \xff\xfe invalid", 21);
  document.sources = {{.source = "\xc3\x28.txt", .collection = "", .title = title},
                      {.source = "\xc3\x28.txt", .collection = "a\nb", .title = title}};
  document.ingested_unix_s = -1;
  EXPECT_TRUE(*DecodeDocument(NumberKey(3), *EncodeDocument(document)) == document);
}

TEST(RecordCodecTest, DifferentSourcesSurvive) {
  DocumentRecord document = MakeDocument(3, 0, 1, 4).record;
  document.sources = {{.source = "/a.txt", .collection = "x", .title = "A", .replaceable = true},
                      {.source = "/b.txt", .collection = "x", .title = "B", .replaceable = true},
                      {.source = "-", .collection = "y", .title = "A"}};
  const std::string value = *EncodeDocument(document);
  EXPECT_TRUE(IsSourcedDocument(value));
  EXPECT_TRUE(*DecodeDocument(NumberKey(3), value) == document);
  // What an older program can read stays in its form.
  document.sources.erase(document.sources.begin() + 1, document.sources.end());
  EXPECT_FALSE(IsSourcedDocument(*EncodeDocument(document)));
}

TEST(RecordCodecTest, RepeatsOfALinkComeBack) {
  WindowLink link = MakeDocument(3, 0, 1, 40).links[0];
  EXPECT_FALSE(IsRepeatsLink(*EncodeLink(link)));  // what an older program can read
  for (const std::vector<TokenRange>& repeats :
       {std::vector<TokenRange>{{0, 40}}, {{0, 1}, {2, 3}, {30, 10}}, {{39, 1}}}) {
    link.repeats = repeats;
    const std::string value = *EncodeLink(link);
    EXPECT_TRUE(IsRepeatsLink(value));
    EXPECT_TRUE(*DecodeLink(LinkKey(3, 0), value) == link);
  }
  for (const std::vector<TokenRange>& repeats : {std::vector<TokenRange>{{0, 0}},
                                                 {{0, 41}},
                                                 {{5, 3}, {8, 2}},
                                                 {{5, 3}, {2, 1}},
                                                 {{40, 1}}}) {
    link.repeats = repeats;
    EXPECT_TRUE(absl::IsInvalidArgument(EncodeLink(link).status()));
  }
}

TEST(RecordCodecTest, LargestNumbersSurvive) {
  constexpr uint64_t kMax = std::numeric_limits<uint64_t>::max();
  const WindowLink link{.document = kMax,
                        .ordinal = kMax,
                        .slot_begin = kMax,
                        .n_tokens = std::numeric_limits<uint32_t>::max(),
                        .byte_begin = kMax,
                        .n_bytes = std::numeric_limits<uint32_t>::max()};
  EXPECT_TRUE(*DecodeLink(LinkKey(kMax, kMax), *EncodeLink(link)) == link);
  const Counters counters = *DecodeCounters(EncodeCounters({kMax, kMax, kMax, kMax, kMax}));
  EXPECT_EQ(counters.next_slot, kMax);
  EXPECT_EQ(counters.epoch, kMax);
}

TEST(RecordCodecTest, DecodeRejectsEveryTruncation) {
  for (const Sample& sample : Samples()) {
    for (size_t size = 0; size < sample.value.size(); ++size) {
      const absl::Status status =
          sample.decode(sample.key, std::string_view(sample.value).substr(0, size));
      ASSERT_TRUE(absl::IsDataLoss(status)) << sample.name << " cut to " << size;
    }
  }
}

TEST(RecordCodecTest, DecodeRejectsEveryFlippedBit) {
  for (const Sample& sample : Samples()) {
    for (size_t i = 0; i < sample.value.size(); ++i) {
      for (int bit = 0; bit < 8; ++bit) {
        std::string value = sample.value;
        value[i] = static_cast<char>(value[i] ^ (1 << bit));
        const absl::Status status = sample.decode(sample.key, value);
        ASSERT_TRUE(absl::IsDataLoss(status)) << sample.name << " byte " << i << " bit " << bit;
      }
    }
  }
}

TEST(RecordCodecTest, DecodeRejectsTheRecordOfAnotherKey) {
  EXPECT_TRUE(
      absl::IsDataLoss(DecodeWindow(NumberKey(21), *EncodeWindow(TestWindow(20, 40))).status()));
  Block block;
  EXPECT_TRUE(absl::IsDataLoss(DecodeBlockHalf(
      BlockKey(20, 0, BlockHalf::kKeys),
      *EncodeBlockHalf(20, 1, TestBlock(20, 1, 5), BlockHalf::kKeys), nullptr, &block)));
}

TEST(RecordCodecTest, DecodeRejectsTheRecordOfAnotherType) {
  // Windows, documents, samples and segments have keys of the same form.
  const std::string key = NumberKey(20);
  const std::string window = *EncodeWindow(TestWindow(20, 40));
  for (const absl::Status& status :
       {DecodeDocument(key, window).status(), DecodeSegment(key, window).status(),
        DecodeQuerySample(key, window, nullptr).status()}) {
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr("record type 6, want"));
  }
}

TEST(RecordCodecTest, MessagesNameTheRecordAndBothChecksums) {
  std::string value = *EncodeWindow(TestWindow(4096, 40));
  value[10] ^= 1;
  const absl::Status status = DecodeWindow(NumberKey(4096), value).status();
  EXPECT_THAT(Message(status),
              ::testing::MatchesRegex("window at slot 4096: damaged: its bytes have checksum "
                                      "[0-9a-f]{16}, want [0-9a-f]{16}"));
  Block block;
  value = *EncodeBlockHalf(20, 1, TestBlock(20, 1, 5), BlockHalf::kValues);
  value.back() ^= 1;
  EXPECT_THAT(Message(DecodeBlockHalf(BlockKey(20, 1, BlockHalf::kValues), value, nullptr, &block)),
              HasSubstr("values of memory layer 1 of the window at slot 20"));
}

// Damage under a right checksum: only the decoders' own checks stand between it and memory.
TEST(RecordCodecTest, DecodersSurviveHostilePayloads) {
  std::mt19937_64 random(20240229);
  int n_accepted = 0;
  for (const Sample& sample : Samples()) {
    const std::string payload(Payload(sample.value));
    for (int round = 0; round < 20000; ++round) {
      std::string hostile = payload;
      const int n_changes = 1 + static_cast<int>(random() % 4);
      for (int change = 0; change < n_changes; ++change) {
        const size_t at = hostile.empty() ? 0 : random() % hostile.size();
        switch (random() % 5) {
          case 0:
            if (!hostile.empty()) hostile[at] = static_cast<char>(random());
            break;
          case 1:
            hostile.insert(at, 1 + random() % 9, static_cast<char>(random() % 2 ? 0xff : random()));
            break;
          case 2:
            if (!hostile.empty()) hostile.erase(at, 1 + random() % 16);
            break;
          case 3:
            if (!hostile.empty()) hostile.resize(at);
            break;
          case 4: {
            // A huge count where a small one was.
            const uint64_t huge = std::numeric_limits<uint64_t>::max() >> random() % 60;
            if (hostile.size() >= at + 8) std::memcpy(hostile.data() + at, &huge, 8);
            break;
          }
        }
      }
      const absl::Status status =
          sample.decode(sample.key, Reseal(sample.key, sample.value, hostile));
      if (status.ok()) {
        ++n_accepted;  // another valid record, such as one with another title
      } else {
        ASSERT_TRUE(absl::IsDataLoss(status)) << sample.name << ": " << status;
      }
    }
  }
  // Were nothing accepted, the loop would only test the envelope.
  EXPECT_GT(n_accepted, 1000);
}

TEST(RecordCodecTest, DecodeRejectsTrailingBytes) {
  for (const Sample& sample : Samples()) {
    const std::string longer = std::string(Payload(sample.value)) + '\0';
    EXPECT_TRUE(
        absl::IsDataLoss(sample.decode(sample.key, Reseal(sample.key, sample.value, longer))))
        << sample.name;
  }
}

TEST(RecordCodecTest, CountsAreCheckedBeforeMemoryIsTaken) {
  // A window of 2^60 tokens in 20 bytes.
  std::string payload(16, '\0');
  ByteWriter out(&payload);
  out.Varint(0);
  out.Varint(uint64_t{1} << 60);
  EXPECT_TRUE(absl::IsDataLoss(
      DecodeWindow(NumberKey(1), SealRecord(RecordType::kWindow, NumberKey(1), payload)).status()));

  // A block whose product of sizes passes 2^64.
  payload.clear();
  for (int i = 0; i < 3; ++i) out.U32(std::numeric_limits<uint32_t>::max());
  const std::string key = BlockKey(1, 0, BlockHalf::kKeys);
  Block block;
  EXPECT_TRUE(absl::IsDataLoss(
      DecodeBlockHalf(key, SealRecord(RecordType::kBlockKeys, key, payload), nullptr, &block)));
  // One whose product is 0 modulo 2^64: 2^31 · 2^31 · 2^1 · 2.
  payload.clear();
  out.U32(uint32_t{1} << 31);
  out.U32(uint32_t{1} << 31);
  out.U32(2);
  EXPECT_TRUE(absl::IsDataLoss(
      DecodeBlockHalf(key, SealRecord(RecordType::kBlockKeys, key, payload), nullptr, &block)));
  // The same for 4 bytes a number: 2^31 · 2^31 · 4, of which 2 bytes a number are 2^63.
  payload.clear();
  out.U32(uint32_t{1} << 31);
  out.U32(uint32_t{1} << 31);
  out.U32(1);
  EXPECT_TRUE(absl::IsDataLoss(DecodeBlockHalf(
      key, SealRecord(RecordType::kFloat32BlockKeys, key, payload), nullptr, &block)));
}

TEST(RecordCodecTest, DecodeRejectsWindowsThatBreakTheirInvariants) {
  const std::string key = NumberKey(5);
  const auto window_payload = [](std::vector<uint64_t> end_deltas, size_t text_bytes,
                                 std::vector<uint64_t> passage_deltas) {
    std::string payload(16, '\0');
    ByteWriter out(&payload);
    out.Varint(0);
    out.Varint(end_deltas.size());
    for (size_t i = 0; i < end_deltas.size(); ++i) out.Varint(i);
    for (const uint64_t delta : end_deltas) out.Varint(delta);
    out.Varint(passage_deltas.size());
    for (const uint64_t delta : passage_deltas) out.Varint(delta);
    out.Bytes(std::string(text_bytes, 'x'));
    return payload;
  };
  const auto decode = [&](const std::string& payload) {
    return DecodeWindow(key, SealRecord(RecordType::kWindow, key, payload)).status();
  };
  EXPECT_OK(decode(window_payload({2, 0, 3}, 5, {0, 2})));
  const auto expect_fault = [&](const std::string& payload, const char* what) {
    const absl::Status status = decode(payload);
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(Message(status), HasSubstr(what));
  };
  expect_fault(window_payload({2, 0, 3}, 6, {0}), "the last token ends at byte 5, the text at 6");
  expect_fault(window_payload({2, 3}, 5, {1}), "first passage does not begin at token 0");
  expect_fault(window_payload({2, 3}, 5, {}), "first passage does not begin at token 0");
  expect_fault(window_payload({2, 3}, 5, {0, 0}), "passages do not ascend");
  expect_fault(window_payload({2, 3}, 5, {0, 2}), "passage begins at token 2 of 2");
  expect_fault(window_payload({}, 0, {0}), "no tokens");
  expect_fault(window_payload({4, 0xffffffff}, 3, {0}), "fields do not end");
}

TEST(RecordCodecTest, DecodeRejectsShapesThatTheSettingsForbid) {
  StoreSettings settings = TestSettings();
  const std::string key = BlockKey(20, 1, BlockHalf::kKeys);
  const std::string value = *EncodeBlockHalf(20, 1, TestBlock(20, 1, 5), BlockHalf::kKeys);
  Block block;
  EXPECT_OK(DecodeBlockHalf(key, value, &settings, &block));
  settings.n_kv_heads = 4;
  const absl::Status status = DecodeBlockHalf(key, value, &settings, &block);
  EXPECT_TRUE(absl::IsDataLoss(status));
  EXPECT_THAT(Message(status), HasSubstr("shape [3, 5, 16], want [4, n_tokens, 16]"));
  settings = Float32Settings();
  const absl::Status type_status = DecodeBlockHalf(key, value, &settings, &block);
  EXPECT_TRUE(absl::IsDataLoss(type_status));
  EXPECT_THAT(Message(type_status), HasSubstr("record type 7, want 12"));
  settings = TestSettings();
  settings.n_mem_layers = 3;
  EXPECT_TRUE(absl::IsDataLoss(
      DecodeQuerySample(NumberKey(9), *EncodeQuerySample(9, TestSample(9)), &settings).status()));
}

TEST(RecordCodecTest, EncodeRefusesWhatDecodeWouldRefuse) {
  StoreSettings settings = TestSettings();
  settings.overlap = settings.window;
  EXPECT_TRUE(absl::IsInvalidArgument(EncodeSettings(settings).status()));
  WindowRecord window = TestWindow(1, 5);
  window.ids[2] = -1;
  EXPECT_TRUE(absl::IsInvalidArgument(EncodeWindow(window).status()));
  window = TestWindow(std::numeric_limits<Slot>::max() - 3, 5);
  EXPECT_TRUE(absl::IsInvalidArgument(EncodeWindow(window).status()));
  SegmentRecord segment = TestSegment();
  segment.needle_recall[0] = std::numeric_limits<double>::quiet_NaN();
  EXPECT_TRUE(absl::IsInvalidArgument(EncodeSegment(segment).status()));
  segment = TestSegment();
  segment.slot_end = segment.slot_begin - 1;
  EXPECT_TRUE(absl::IsInvalidArgument(EncodeSegment(segment).status()));
  QuerySample sample = TestSample(1);
  sample.queries[0].pop_back();
  EXPECT_TRUE(absl::IsInvalidArgument(EncodeQuerySample(1, sample).status()));
  EXPECT_TRUE(absl::IsInvalidArgument(
      EncodeBlockHalf(1, kMaxMemoryLayers, TestBlock(1, 0, 5), BlockHalf::kKeys).status()));
}

TEST(KeysTest, KeysSortAsTheirNumbers) {
  std::mt19937_64 random(7);
  for (int round = 0; round < 1000; ++round) {
    const uint64_t a = random() >> random() % 64;
    const uint64_t b = random() >> random() % 64;
    EXPECT_EQ(a < b, NumberKey(a) < NumberKey(b));
    EXPECT_EQ(a < b, LinkKey(a, b) < LinkKey(b, a));
    // All blocks of a window lie between its key and the next one's.
    const Slot slot = a >> 1;
    EXPECT_LT(NumberKey(slot), BlockKey(slot, 0, BlockHalf::kKeys));
    EXPECT_LT(BlockKey(slot, kMaxMemoryLayers - 1, BlockHalf::kValues), NumberKey(slot + 1));
  }
}

TEST(KeysTest, ParsingGivesBackThePartsAndRefusesOtherForms) {
  EXPECT_EQ(*ParseNumberKey(NumberKey(0x0123456789abcdef)), 0x0123456789abcdefu);
  EXPECT_EQ(ParseLinkKey(LinkKey(3, 4))->ordinal, 4u);
  const auto block = ParseBlockKey(BlockKey(99, 65535, BlockHalf::kValues));
  EXPECT_EQ(block->slot_begin, 99u);
  EXPECT_EQ(block->memory_layer, 65535);
  EXPECT_EQ(block->half, BlockHalf::kValues);
  for (size_t size = 0; size < 20; ++size) {
    const std::string key(size, '\7');
    EXPECT_EQ(ParseNumberKey(key).has_value(), size == 8);
    EXPECT_EQ(ParseLinkKey(key).has_value(), size == 16);
    EXPECT_FALSE(ParseBlockKey(key).has_value());  // 7 is neither keys nor values
  }
}

}  // namespace
}  // namespace fovea::storage
