// The records of text and of what belongs where: settings, counters, documents, links, windows and
// segments. Those of numbers are in block_codec.cc.
#include "storage/record_codec.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "storage/byte_io.h"

namespace fovea::storage {
namespace {

// What breaks the invariants of a window; empty: nothing.
std::string WindowFault(const WindowRecord& window) {
  const uint64_t n_tokens = window.ids.size();
  if (n_tokens == 0) return "has no tokens, want at least one";
  if (window.slot_begin > std::numeric_limits<Slot>::max() - n_tokens) {
    return "its slots pass the largest number";
  }
  if (window.text.size() > std::numeric_limits<uint32_t>::max()) {
    return StrCat("text of ", window.text.size(), " bytes, want less than 4 GiB");
  }
  if (window.ends.size() != n_tokens) {
    return StrCat(window.ends.size(), " token ends for ", n_tokens, " tokens");
  }
  for (size_t i = 1; i < window.ends.size(); ++i) {
    if (window.ends[i] < window.ends[i - 1]) {
      return StrCat("token ends do not ascend: ", window.ends[i], " after ", window.ends[i - 1]);
    }
  }
  if (window.ends.back() != window.text.size()) {
    return StrCat("the last token ends at byte ", window.ends.back(), ", the text at ",
                  window.text.size());
  }
  if (window.passage_begins.empty() || window.passage_begins[0] != 0) {
    return "its first passage does not begin at token 0";
  }
  for (size_t i = 1; i < window.passage_begins.size(); ++i) {
    if (window.passage_begins[i] <= window.passage_begins[i - 1]) {
      return StrCat("passages do not ascend: ", window.passage_begins[i], " after ",
                    window.passage_begins[i - 1]);
    }
  }
  if (window.passage_begins.back() >= n_tokens) {
    return StrCat("a passage begins at token ", window.passage_begins.back(), " of ", n_tokens);
  }
  for (const auto* ids : {&window.context_ids, &window.ids}) {
    for (const int32_t id : *ids) {
      if (id < 0) return StrCat("token id ", id, ", want at least 0");
    }
  }
  return "";
}

std::string SettingsFault(const StoreSettings& settings) {
  if (settings.window < 1) return StrCat("window ", settings.window, ", want at least 1");
  if (settings.overlap < 0 || settings.overlap >= settings.window) {
    return StrCat("overlap ", settings.overlap, ", want 0 to window - 1 = ", settings.window - 1);
  }
  if (settings.n_mem_layers < 0 || settings.n_mem_layers > kMaxMemoryLayers) {
    return StrCat(settings.n_mem_layers, " memory layers, want 0 to ", kMaxMemoryLayers);
  }
  if (settings.n_kv_heads < 0 || settings.head_dim < 0) {
    return StrCat("shape [", settings.n_kv_heads, " heads, ", settings.head_dim,
                  "], want no negative sizes");
  }
  return "";
}

std::string SegmentFault(const SegmentRecord& segment) {
  if (segment.slot_begin > segment.slot_end) {
    return StrCat("slots [", segment.slot_begin, ", ", segment.slot_end, ") run backwards");
  }
  if (segment.n_tokens > segment.slot_end - segment.slot_begin) {
    return StrCat(segment.n_tokens, " tokens in ", segment.slot_end - segment.slot_begin, " slots");
  }
  if (segment.n_probe < 0 || segment.n_candidates < 0) {
    return StrCat("search effort ", segment.n_probe, ", ", segment.n_candidates,
                  ", want no negative numbers");
  }
  for (const double recall : segment.needle_recall) {
    if (!std::isfinite(recall)) return "a recall that is not a number";
  }
  return "";
}

}  // namespace

std::string EncodeFormatVersion(int format_version) {
  std::string payload;
  ByteWriter(&payload).U32(static_cast<uint32_t>(format_version));
  return SealRecord(RecordType::kFormat, kFormatKey, payload);
}

absl::StatusOr<int> DecodeFormatVersion(std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload,
                   OpenRecord(RecordType::kFormat, kFormatKey, value));
  ByteReader in(payload);
  const uint32_t version = in.U32();
  if (!in.AtEnd() || version > std::numeric_limits<int>::max()) {
    return Malformed(RecordType::kFormat, kFormatKey);
  }
  return static_cast<int>(version);
}

absl::StatusOr<std::string> EncodeSettings(const StoreSettings& settings) {
  if (const std::string fault = SettingsFault(settings); !fault.empty()) {
    return Invalid(RecordType::kSettings, kSettingsKey, fault);
  }
  std::string payload;
  ByteWriter out(&payload);
  out.Bytes(settings.fingerprint);
  out.Bytes(settings.model);
  out.Bytes(settings.adapter);
  out.Varint(static_cast<uint64_t>(settings.window));
  out.Varint(static_cast<uint64_t>(settings.overlap));
  out.Bytes(settings.encoding);
  out.Bytes(settings.index_spec);
  out.Varint(static_cast<uint64_t>(settings.n_mem_layers));
  out.Varint(static_cast<uint64_t>(settings.n_kv_heads));
  out.Varint(static_cast<uint64_t>(settings.head_dim));
  if (settings.entry_type == EntryType::kBFloat16) {
    return SealRecord(RecordType::kSettings, kSettingsKey, payload);
  }
  out.U8(static_cast<uint8_t>(settings.entry_type));
  return SealRecord(RecordType::kTypedSettings, kSettingsKey, payload);
}

absl::StatusOr<StoreSettings> DecodeSettings(std::string_view value) {
  const bool is_typed = ClaimsToBe(RecordType::kTypedSettings, value);
  const RecordType type = is_typed ? RecordType::kTypedSettings : RecordType::kSettings;
  ASSIGN_OR_RETURN(const std::string_view payload, OpenRecord(type, kSettingsKey, value));
  ByteReader in(payload);
  bool in_range = true;
  const auto small = [&in, &in_range] {
    const uint64_t number = in.Varint();
    in_range = in_range && number <= std::numeric_limits<int>::max();
    return in_range ? static_cast<int>(number) : 0;
  };
  StoreSettings settings;
  settings.fingerprint = in.Bytes();
  settings.model = in.Bytes();
  settings.adapter = in.Bytes();
  settings.window = small();
  settings.overlap = small();
  settings.encoding = in.Bytes();
  settings.index_spec = in.Bytes();
  settings.n_mem_layers = small();
  settings.n_kv_heads = small();
  settings.head_dim = small();
  if (is_typed) {
    const uint8_t entry_type = in.U8();
    // bfloat16 has the other record: one record has one encoding.
    if (in.ok() && entry_type != static_cast<uint8_t>(EntryType::kFloat32)) {
      return Damaged(type, kSettingsKey,
                     StrCat("entries of type ", static_cast<int>(entry_type), ", want ",
                            static_cast<int>(EntryType::kFloat32)));
    }
    settings.entry_type = EntryType::kFloat32;
  }
  if (!in.AtEnd() || !in_range) return Malformed(type, kSettingsKey);
  if (const std::string fault = SettingsFault(settings); !fault.empty()) {
    return Damaged(type, kSettingsKey, fault);
  }
  return settings;
}

std::string EncodeCounters(const Counters& counters) {
  std::string payload;
  ByteWriter out(&payload);
  out.U64(counters.next_slot);
  out.U64(counters.next_document);
  out.U64(counters.next_segment);
  out.U64(counters.generation);
  out.U64(counters.epoch);
  return SealRecord(RecordType::kCounters, kCountersKey, payload);
}

absl::StatusOr<Counters> DecodeCounters(std::string_view value) {
  ASSIGN_OR_RETURN(const std::string_view payload,
                   OpenRecord(RecordType::kCounters, kCountersKey, value));
  ByteReader in(payload);
  Counters counters;
  counters.next_slot = in.U64();
  counters.next_document = in.U64();
  counters.next_segment = in.U64();
  counters.generation = in.U64();
  counters.epoch = in.U64();
  if (!in.AtEnd()) return Malformed(RecordType::kCounters, kCountersKey);
  return counters;
}

bool HasDifferentSources(const DocumentRecord& document) {
  return std::any_of(document.sources.begin(), document.sources.end(),
                     [&](const SourceReference& other) {
                       SourceReference same = document.sources.front();
                       same.collection = other.collection;
                       return other != same;
                     });
}

bool IsSourcedDocument(std::string_view value) {
  return ClaimsToBe(RecordType::kSourcedDocument, value);
}

absl::StatusOr<std::string> EncodeDocument(const DocumentRecord& document) {
  const std::string key = NumberKey(document.number);
  if (document.sources.empty()) {
    return Invalid(RecordType::kDocument, key, "has no source, want at least one");
  }
  const bool is_sourced = HasDifferentSources(document);
  std::string payload;
  ByteWriter out(&payload);
  out.Bytes(document.id);
  if (is_sourced) {
    out.U8(document.complete ? 1 : 0);
    out.Varint(document.sources.size());
    for (const SourceReference& source : document.sources) {
      out.Bytes(source.source);
      out.Bytes(source.collection);
      out.Bytes(source.title);
      out.U8(source.replaceable ? 1 : 0);
    }
  } else {
    const SourceReference& source = document.sources.front();
    out.Bytes(source.title);
    out.Bytes(source.source);
    out.U8(static_cast<uint8_t>((source.replaceable ? 1 : 0) | (document.complete ? 2 : 0)));
    out.Varint(document.sources.size());
    for (const SourceReference& in : document.sources) out.Bytes(in.collection);
  }
  out.Varint(document.size_bytes);
  out.Varint(document.n_tokens);
  out.Varint(document.n_windows);
  out.U64(static_cast<uint64_t>(document.ingested_unix_s));
  return SealRecord(is_sourced ? RecordType::kSourcedDocument : RecordType::kDocument, key,
                    payload);
}

absl::StatusOr<DocumentRecord> DecodeDocument(std::string_view key, std::string_view value) {
  const bool is_sourced = IsSourcedDocument(value);
  const RecordType type = is_sourced ? RecordType::kSourcedDocument : RecordType::kDocument;
  const auto number = ParseNumberKey(key);
  if (!number) return BadKey(type, key);
  ASSIGN_OR_RETURN(const std::string_view payload, OpenRecord(type, key, value));
  ByteReader in(payload);
  DocumentRecord document;
  document.number = *number;
  document.id = in.Bytes();
  SourceReference shared;
  if (!is_sourced) {
    shared.title = in.Bytes();
    shared.source = in.Bytes();
  }
  const uint8_t flags = in.U8();
  if (flags > (is_sourced ? 1 : 3)) return Malformed(type, key);
  document.complete = (flags & (is_sourced ? 1 : 2)) != 0;
  shared.replaceable = !is_sourced && (flags & 1) != 0;
  const uint64_t n_sources = in.Varint();
  // Each takes a byte at least.
  if (!in.ok() || n_sources > in.n_left()) return Malformed(type, key);
  document.sources.reserve(n_sources);
  for (uint64_t i = 0; in.ok() && i < n_sources; ++i) {
    SourceReference& source = document.sources.emplace_back(shared);
    if (is_sourced) source.source = in.Bytes();
    source.collection = in.Bytes();
    if (!is_sourced) continue;
    source.title = in.Bytes();
    const uint8_t source_flags = in.U8();
    if (source_flags > 1) return Malformed(type, key);
    source.replaceable = source_flags == 1;
  }
  document.size_bytes = in.Varint();
  document.n_tokens = in.Varint();
  document.n_windows = in.Varint();
  document.ingested_unix_s = static_cast<int64_t>(in.U64());
  if (!in.AtEnd()) return Malformed(type, key);
  if (document.sources.empty()) return Damaged(type, key, "has no source");
  // One record has one encoding.
  if (is_sourced && !HasDifferentSources(document)) return Malformed(type, key);
  return document;
}

bool IsRepeatsLink(std::string_view value) { return ClaimsToBe(RecordType::kRepeatsLink, value); }

absl::StatusOr<std::string> EncodeLink(const WindowLink& link) {
  const RecordType type = link.repeats.empty() ? RecordType::kLink : RecordType::kRepeatsLink;
  const std::string key = LinkKey(link.document, link.ordinal);
  std::string payload;
  ByteWriter out(&payload);
  out.Varint(link.slot_begin);
  out.Varint(link.n_tokens);
  out.Varint(link.byte_begin);
  out.Varint(link.n_bytes);
  if (!link.repeats.empty()) out.Varint(link.repeats.size());
  uint64_t end = 0;  // of the range before
  for (const TokenRange& range : link.repeats) {
    const bool touches = end > 0 && range.begin == end;
    if (range.begin < end || touches || range.n_tokens == 0 ||
        uint64_t{range.begin} + range.n_tokens > link.n_tokens) {
      return Invalid(type, key,
                     StrCat("repeats of ", range.n_tokens, " tokens from ", range.begin, " of ",
                            link.n_tokens, ", want ranges that ascend with tokens between them"));
    }
    out.Varint(range.begin - end);
    out.Varint(range.n_tokens);
    end = uint64_t{range.begin} + range.n_tokens;
  }
  return SealRecord(type, key, payload);
}

absl::StatusOr<WindowLink> DecodeLink(std::string_view key, std::string_view value) {
  const bool has_repeats = IsRepeatsLink(value);
  const RecordType type = has_repeats ? RecordType::kRepeatsLink : RecordType::kLink;
  const auto parts = ParseLinkKey(key);
  if (!parts) return BadKey(type, key);
  ASSIGN_OR_RETURN(const std::string_view payload, OpenRecord(type, key, value));
  ByteReader in(payload);
  WindowLink link;
  link.document = parts->document;
  link.ordinal = parts->ordinal;
  link.slot_begin = in.Varint();
  const uint64_t n_tokens = in.Varint();
  link.byte_begin = in.Varint();
  const uint64_t n_bytes = in.Varint();
  const uint64_t n_repeats = has_repeats ? in.Varint() : 0;
  if (has_repeats && (n_repeats == 0 || n_repeats > n_tokens)) return Malformed(type, key);
  uint64_t end = 0;
  for (uint64_t i = 0; i < n_repeats; ++i) {
    const uint64_t gap = in.Varint();
    const uint64_t n = in.Varint();
    const uint64_t left = n_tokens - end;
    if ((gap == 0 && end > 0) || n == 0 || gap > left || n > left - gap) {
      return Malformed(type, key);
    }
    link.repeats.push_back({static_cast<uint32_t>(end + gap), static_cast<uint32_t>(n)});
    end += gap + n;
  }
  if (!in.AtEnd() || n_tokens > std::numeric_limits<uint32_t>::max() ||
      n_bytes > std::numeric_limits<uint32_t>::max()) {
    return Malformed(type, key);
  }
  link.n_tokens = static_cast<uint32_t>(n_tokens);
  link.n_bytes = static_cast<uint32_t>(n_bytes);
  return link;
}

absl::StatusOr<std::string> EncodeWindow(const WindowRecord& window) {
  const std::string key = NumberKey(window.slot_begin);
  if (const std::string fault = WindowFault(window); !fault.empty()) {
    return Invalid(RecordType::kWindow, key, fault);
  }
  std::string payload;
  ByteWriter out(&payload);
  out.U64(window.content_hash.high);
  out.U64(window.content_hash.low);
  out.Varint(window.context_ids.size());
  for (const int32_t id : window.context_ids) out.Varint(static_cast<uint32_t>(id));
  out.Varint(window.ids.size());
  for (const int32_t id : window.ids) out.Varint(static_cast<uint32_t>(id));
  uint32_t previous = 0;
  for (const uint32_t end : window.ends) {
    out.Varint(end - previous);
    previous = end;
  }
  out.Varint(window.passage_begins.size());
  previous = 0;
  for (const uint32_t begin : window.passage_begins) {
    out.Varint(begin - previous);
    previous = begin;
  }
  out.Bytes(window.text);
  return SealRecord(RecordType::kWindow, key, payload);
}

absl::StatusOr<WindowRecord> DecodeWindow(std::string_view key, std::string_view value) {
  constexpr RecordType kType = RecordType::kWindow;
  const auto slot = ParseNumberKey(key);
  if (!slot) return BadKey(kType, key);
  ASSIGN_OR_RETURN(const std::string_view payload, OpenRecord(kType, key, value));
  ByteReader in(payload);
  WindowRecord window;
  window.slot_begin = *slot;
  window.content_hash.high = in.U64();
  window.content_hash.low = in.U64();

  // Every number takes a byte at least, so that a count above what is left is a lie.
  const auto plausible = [&in](uint64_t count) { return in.ok() && count <= in.n_left(); };
  const auto read_ids = [&in](uint64_t count, std::vector<int32_t>* ids) {
    ids->resize(count);
    for (int32_t& id : *ids) {
      const uint64_t number = in.Varint();
      if (number > std::numeric_limits<int32_t>::max()) return false;
      id = static_cast<int32_t>(number);
    }
    return in.ok();
  };
  const auto read_deltas = [&in](uint64_t count, std::vector<uint32_t>* numbers) {
    numbers->resize(count);
    uint64_t sum = 0;
    for (uint32_t& number : *numbers) {
      const uint64_t delta = in.Varint();
      if (delta > std::numeric_limits<uint32_t>::max()) return false;
      sum += delta;
      if (sum > std::numeric_limits<uint32_t>::max()) return false;
      number = static_cast<uint32_t>(sum);
    }
    return in.ok();
  };
  const uint64_t n_context = in.Varint();
  if (!plausible(n_context) || !read_ids(n_context, &window.context_ids)) {
    return Malformed(kType, key);
  }
  const uint64_t n_tokens = in.Varint();
  if (!plausible(n_tokens) || !read_ids(n_tokens, &window.ids) || !plausible(n_tokens) ||
      !read_deltas(n_tokens, &window.ends)) {
    return Malformed(kType, key);
  }
  const uint64_t n_passages = in.Varint();
  if (!plausible(n_passages) || !read_deltas(n_passages, &window.passage_begins)) {
    return Malformed(kType, key);
  }
  window.text = in.Bytes();
  if (!in.AtEnd()) return Malformed(kType, key);
  if (const std::string fault = WindowFault(window); !fault.empty()) {
    return Damaged(kType, key, fault);
  }
  return window;
}

absl::StatusOr<std::string> EncodeSegment(const SegmentRecord& segment) {
  const std::string key = NumberKey(segment.id);
  if (const std::string fault = SegmentFault(segment); !fault.empty()) {
    return Invalid(RecordType::kSegment, key, fault);
  }
  std::string payload;
  ByteWriter out(&payload);
  out.Varint(segment.generation);
  out.Varint(segment.slot_begin);
  out.Varint(segment.slot_end);
  out.Varint(segment.n_tokens);
  out.Bytes(segment.spec);
  out.Bytes(segment.requested_spec);
  out.Varint(static_cast<uint64_t>(segment.n_probe));
  out.Varint(static_cast<uint64_t>(segment.n_candidates));
  out.Varint(segment.needle_recall.size());
  for (const double recall : segment.needle_recall) out.F64(recall);
  out.Bytes(segment.faiss_version);
  out.Bytes(segment.fingerprint);
  out.Varint(segment.files.size());
  for (const SegmentFile& file : segment.files) {
    out.Bytes(file.name);
    out.Varint(file.size_bytes);
    out.U64(file.checksum);
  }
  return SealRecord(RecordType::kSegment, key, payload);
}

absl::StatusOr<SegmentRecord> DecodeSegment(std::string_view key, std::string_view value) {
  constexpr RecordType kType = RecordType::kSegment;
  const auto id = ParseNumberKey(key);
  if (!id) return BadKey(kType, key);
  ASSIGN_OR_RETURN(const std::string_view payload, OpenRecord(kType, key, value));
  ByteReader in(payload);
  SegmentRecord segment;
  segment.id = *id;
  segment.generation = in.Varint();
  segment.slot_begin = in.Varint();
  segment.slot_end = in.Varint();
  segment.n_tokens = in.Varint();
  segment.spec = in.Bytes();
  segment.requested_spec = in.Bytes();
  const uint64_t n_probe = in.Varint();
  const uint64_t n_candidates = in.Varint();
  const uint64_t n_recalls = in.Varint();
  if (!in.ok() || n_probe > std::numeric_limits<int>::max() ||
      n_candidates > std::numeric_limits<int>::max() || n_recalls > in.n_left() / sizeof(double)) {
    return Malformed(kType, key);
  }
  segment.n_probe = static_cast<int>(n_probe);
  segment.n_candidates = static_cast<int>(n_candidates);
  segment.needle_recall.resize(n_recalls);
  for (double& recall : segment.needle_recall) recall = in.F64();
  segment.faiss_version = in.Bytes();
  segment.fingerprint = in.Bytes();
  const uint64_t n_files = in.Varint();
  constexpr size_t kSmallestFile = 2 + sizeof(uint64_t);
  if (!in.ok() || n_files > in.n_left() / kSmallestFile) return Malformed(kType, key);
  segment.files.resize(n_files);
  for (SegmentFile& file : segment.files) {
    file.name = in.Bytes();
    file.size_bytes = in.Varint();
    file.checksum = in.U64();
  }
  if (!in.AtEnd()) return Malformed(kType, key);
  if (const std::string fault = SegmentFault(segment); !fault.empty()) {
    return Damaged(kType, key, fault);
  }
  return segment;
}

}  // namespace fovea::storage
