#include "cli/text_format.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "absl/strings/str_format.h"
#include "answer/excerpt.h"

namespace fovea::cli {
namespace {

constexpr size_t kIdDigits = 12;
constexpr size_t kTitleCharacters = 80;
constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes of the UTF-8 character at the start of `text`; 0 when there is none.
size_t CharacterBytes(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return 1;
  const size_t n = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : 2;
  if (first < 0xC2 || first > 0xF4 || text.size() < n) return 0;
  for (size_t i = 1; i < n; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return 0;
  }
  // Longer than needed, a surrogate, or past the last code point.
  if (first == 0xE0 && byte(1) < 0xA0) return 0;
  if (first == 0xED && byte(1) >= 0xA0) return 0;
  if (first == 0xF0 && byte(1) < 0x90) return 0;
  if (first == 0xF4 && byte(1) >= 0x90) return 0;
  return n;
}

// C0 but newline and tab, DEL, and C1, which some terminals obey in UTF-8, too.
bool IsControl(std::string_view character) {
  const uint8_t first = static_cast<uint8_t>(character[0]);
  if (character.size() == 1)
    return (first < 0x20 && first != '\n' && first != '\t') || first == 0x7F;
  return character.size() == 2 && first == 0xC2 && static_cast<uint8_t>(character[1]) < 0xA0;
}

std::string Name(const std::string& title, const std::string& fallback) {
  return Excerpt(title.empty() ? fallback : title, kTitleCharacters);
}

std::string ShortId(const std::string& id) { return id.substr(0, kIdDigits); }

std::string Plural(int64_t count, std::string_view noun) {
  return StrCat(FormatCount(count), " ", noun, count == 1 ? "" : "s");
}

std::string Percent(double share) { return absl::StrFormat("%.1f%%", share * 100.0); }

std::string Shares(const std::vector<double>& shares) {
  std::string text;
  for (const double share : shares) text += StrCat(text.empty() ? "" : " ", Percent(share));
  return text;
}

}  // namespace

std::string FormatCount(int64_t count) {
  std::string digits = std::to_string(count);
  const size_t first = count < 0 ? 1 : 0;
  for (size_t i = digits.size(); i > first + 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

std::string FormatBytes(uint64_t size_bytes) {
  constexpr std::array<std::string_view, 5> kUnits = {"bytes", "kB", "MB", "GB", "TB"};
  double size = static_cast<double>(size_bytes);
  size_t unit = 0;
  while (size >= 1000.0 && unit + 1 < kUnits.size()) {
    size /= 1000.0;
    ++unit;
  }
  if (unit == 0) return StrCat(size_bytes, " bytes");
  return StrCat(absl::StrFormat("%.1f", size), " ", kUnits[unit]);
}

std::string Printable(std::string_view text) {
  std::string printable;
  printable.reserve(text.size());
  while (!text.empty()) {
    const size_t n = CharacterBytes(text);
    if (n == 0) {
      printable += kReplacement;
      text.remove_prefix(1);
      continue;
    }
    if (!IsControl(text.substr(0, n))) {
      printable += text.substr(0, n);
    } else if (text[0] != '\r') {
      printable += kReplacement;
    }
    text.remove_prefix(n);
  }
  return printable;
}

std::string Excerpt(std::string_view text, size_t max_characters) {
  // Enough for characters of four bytes; what follows need not be looked at.
  const bool cut = text.size() > max_characters * 8;
  const std::string printable = Printable(cut ? text.substr(0, max_characters * 8) : text);
  std::string excerpt;
  size_t n_characters = 0;
  bool space = false;
  for (size_t i = 0; i < printable.size();) {
    const size_t n = std::max<size_t>(1, CharacterBytes(std::string_view(printable).substr(i)));
    if (printable[i] == ' ' || printable[i] == '\n' || printable[i] == '\t') {
      space = n_characters > 0;
      ++i;
      continue;
    }
    if (n_characters + (space ? 1 : 0) >= max_characters) return excerpt + "…";
    if (space) {
      excerpt += ' ';
      ++n_characters;
      space = false;
    }
    excerpt += printable.substr(i, n);
    ++n_characters;
    i += n;
  }
  return cut ? excerpt + "…" : excerpt;
}

std::string FormatIngested(const memory::IngestedDocument& document) {
  const std::string name = Name(document.title, document.source);
  if (document.status == memory::IngestStatus::kFailed) {
    // Most errors begin with the file that they are about.
    const std::string source = document.error.starts_with(document.source)
                                   ? ""
                                   : StrCat(Name(document.source, document.title), ": ");
    return StrCat("failed     ", source, Printable(document.error), "\n");
  }
  if (document.status == memory::IngestStatus::kRemoved) {
    return StrCat("removed    ", ShortId(document.id), "  ", name, " (", Printable(document.source),
                  " is gone)\n");
  }
  std::string line =
      absl::StrFormat("%-10s %s  %s", std::string(memory::IngestStatusName(document.status)),
                      ShortId(document.id), name);
  if (document.tokens == 0) return line + "\n";  // not known before it is encoded
  line += StrCat(" (", Plural(static_cast<int64_t>(document.tokens), "token"));
  if (document.status == memory::IngestStatus::kReplaced) {
    line += StrCat("; ", document.encoded_windows, " of ",
                   Plural(static_cast<int64_t>(document.windows), "window"), " encoded");
  }
  if (document.is_new_source)
    line += StrCat("; stored before; now also ", Printable(document.source));
  return line + ")\n";
}

namespace {

// What of the folders was left out, by kind.
std::string FormatSkipped(const IngestSummary& summary) {
  constexpr size_t kMaxKinds = 12;
  if (!summary.has_folders) return "";
  int64_t n_files = 0;
  for (const auto& skipped : summary.skipped) n_files += skipped.n_files;
  std::string text = StrCat("; ", Plural(n_files, "file"), " skipped");
  for (size_t i = 0; i < std::min(summary.skipped.size(), kMaxKinds); ++i) {
    const IngestSummary::Skipped& skipped = summary.skipped[i];
    text +=
        StrCat(i == 0 ? ": " : "; ", FormatCount(skipped.n_files), " × ", Printable(skipped.kind));
  }
  if (summary.skipped.size() > kMaxKinds) {
    text += StrCat("; and ", summary.skipped.size() - kMaxKinds, " more kinds (--json names all)");
  }
  return text;
}

}  // namespace

std::string FormatSummary(const IngestSummary& summary) {
  const auto n_failed = std::count_if(
      summary.documents.begin(), summary.documents.end(),
      [](const auto& document) { return document.status == memory::IngestStatus::kFailed; });
  if (summary.dry_run) {
    std::map<std::string_view, int64_t> n_by_status;
    for (const auto& document : summary.documents) {
      ++n_by_status[memory::IngestStatusName(document.status)];
    }
    std::string text = "nothing was changed; would be: ";
    for (const auto& [name, n] : n_by_status) {
      text += StrCat(n_by_status.begin()->first == name ? "" : ", ", n, " ", name);
    }
    return StrCat(text, n_by_status.empty() ? "nothing" : "", FormatSkipped(summary), "\n");
  }
  // A source that is gone, and whose text has come back under another name.
  std::multiset<std::string_view> moved_ids;
  for (const auto& document : summary.documents) {
    if (document.is_new_source) moved_ids.insert(document.id);
  }
  int64_t n_moved = 0;
  int64_t n_removed = 0;
  for (const auto& document : summary.documents) {
    if (document.status != memory::IngestStatus::kRemoved) continue;
    ++(moved_ids.extract(document.id).empty() ? n_removed : n_moved);
  }
  const auto n_documents = static_cast<int64_t>(summary.ids.size());
  const int64_t n_sources =
      static_cast<int64_t>(summary.documents.size()) - n_failed - n_removed - n_moved;
  std::string text = StrCat(
      n_sources == n_documents ? "" : StrCat(Plural(n_sources, "source"), " of "),
      Plural(n_documents, "document"), ", ", Plural(static_cast<int64_t>(summary.tokens), "token"),
      ", ", FormatCount(static_cast<int64_t>(summary.encoded_tokens)), " encoded in ",
      absl::StrFormat("%.1f", summary.seconds), " s");
  if (summary.encoded_tokens > 0) {
    text += absl::StrFormat(" (%.0f tokens/s)", summary.tokens_per_second());
  }
  if (n_moved > 0) text += StrCat("; ", n_moved, " moved");
  if (n_removed > 0) text += StrCat("; ", n_removed, " removed");
  if (n_failed > 0) text += StrCat("; ", n_failed, " failed");
  return StrCat(text, FormatSkipped(summary), "\n");
}

namespace {

// Where a passage stands: the path, unless that is its name already.
std::string Origin(const memory::Passage& passage) {
  if (passage.source.empty() || passage.source == passage.title) return "";
  std::string text = StrCat(" (", Printable(passage.source));
  if (!passage.other_sources.empty()) {
    text += StrCat(" and ", passage.other_sources.size(), " more");
  }
  return text + ")";
}

}  // namespace

std::string FormatSources(const answer::Answer& answer) {
  std::string text;
  for (size_t i = 0; i < answer.sources.size(); ++i) {
    const memory::Passage& source = answer.sources[i];
    if (i == 0) text += "\nSources:\n";
    text += StrCat("[", i + 1, "] ", Name(source.title, source.document), Origin(source),
                   ", bytes ", FormatCount(static_cast<int64_t>(source.start)), " to ",
                   FormatCount(static_cast<int64_t>(source.end)));
    if (source.reread) text += ", read again";
    if (source.mass > 0.0) text += StrCat(" (", Percent(source.mass), " of the attention)");
    const bool is_part = source.excerpt_end > source.excerpt_start;
    const std::string excerpt = Excerpt(source.excerpt(), answer::kExcerptCharacters);
    text += StrCat("\n    ", is_part && source.excerpt_start > source.start ? "… " : "", excerpt,
                   is_part && source.excerpt_end < source.end ? " …" : "", "\n");
  }
  if (answer.audit.has_value()) {
    text +=
        StrCat("\nAudit, by memory layer:\n  captured mass ", Shares(answer.audit->captured_mass),
               "\n  needle recall ", Shares(answer.audit->needle_recall), "\n");
  }
  return text;
}

std::string FormatAnswerLine(const answer::Answer& answer) {
  std::string line = Excerpt(answer.text, answer.text.size() + 1);
  for (size_t i = 0; i < answer.sources.size(); ++i) {
    const memory::Passage& source = answer.sources[i];
    line += StrCat(i == 0 ? "\t" : "; ", Name(source.title, source.document), ":", source.start,
                   "-", source.end);
  }
  return line + "\n";
}

namespace {

// Where the document comes from, on one line.
std::string Sources(const storage::DocumentRecord& document) {
  constexpr size_t kMostShown = 3;
  std::vector<std::string> paths;
  for (const storage::SourceReference& source : document.sources) {
    if (std::find(paths.begin(), paths.end(), source.source) == paths.end()) {
      paths.push_back(source.source);
    }
  }
  std::string text;
  for (size_t i = 0; i < std::min(paths.size(), kMostShown); ++i) {
    text += StrCat(i == 0 ? "" : ", ", Printable(paths[i]));
  }
  if (paths.size() > kMostShown) text += StrCat(" and ", paths.size() - kMostShown, " more");
  return text;
}

}  // namespace

std::string FormatDocument(const storage::DocumentRecord& document) {
  std::string collections;
  for (const std::string& collection : document.collections()) {
    collections += StrCat(collections.empty() ? "" : ",", Excerpt(collection, kTitleCharacters));
  }
  return StrCat(ShortId(document.id), "  ",
                absl::StrFormat("%12s", FormatCount(static_cast<int64_t>(document.n_tokens))),
                " tokens  ", collections, "  ", Sources(document), "  ",
                Name(document.title(), document.source()), "\n");
}

std::string FormatReport(const memory::VerifyReport& report) {
  std::string text;
  const auto list = [&text](std::string_view verb,
                            const std::vector<memory::VerifyFinding>& findings) {
    for (const memory::VerifyFinding& finding : findings) {
      text += StrCat(verb, " ", finding.kind, finding.document.empty() ? "" : " of document ",
                     ShortId(finding.document), ": ", Printable(finding.what), "\n");
    }
  };
  list("damaged ", report.damaged);
  list("repaired", report.repaired);
  list("note    ", report.notes);
  text +=
      StrCat("checked ", Plural(report.documents, "document"), ", ", Plural(report.blocks, "block"),
             ", ", Plural(report.index_files, "index file"), ": ");
  if (!report.ok) {
    text += "damage found\n";
  } else {
    text += report.repaired.empty() ? "all sound\n" : "all sound after repair\n";
  }
  return text;
}

std::string FormatStats(const memory::Stats& stats, const storage::StoreSettings& settings) {
  std::string text = StrCat("documents    ", FormatCount(stats.documents), "\n");
  for (const auto& [name, n_documents] : stats.collections) {
    text += StrCat("  ", Excerpt(name, kTitleCharacters), "  ", FormatCount(n_documents), "\n");
  }
  text += StrCat("tokens       ", FormatCount(static_cast<int64_t>(stats.tokens)), " (",
                 FormatCount(static_cast<int64_t>(stats.deleted_slots)), " of ",
                 FormatCount(static_cast<int64_t>(stats.slots)), " slots deleted)\n");
  if (stats.unfinished_documents > 0) {
    text += StrCat("unfinished   ", Plural(stats.unfinished_documents, "document"), ", ",
                   Plural(static_cast<int64_t>(stats.unfinished_tokens), "token"),
                   ": of an ingest that runs, or was interrupted; the same one again goes on from "
                   "them, `fovea rebuild` drops them\n");
  }
  text += StrCat("bytes        text ", FormatBytes(stats.text_bytes), ", keys and values ",
                 FormatBytes(stats.block_bytes), ", index ", FormatBytes(stats.index_bytes), "\n");
  for (const memory::Stats::SegmentStats& segment : stats.segments) {
    text += StrCat("segment      ", Plural(static_cast<int64_t>(segment.tokens), "token"), ", ",
                   segment.index, ", ", Printable(segment.state));
    if (!segment.needle_recall.empty()) {
      text += StrCat(", needle recall ", Shares(segment.needle_recall), " with ",
                     segment.n_candidates, " candidates");
    }
    text += "\n";
  }
  text += StrCat("index        ", settings.index_spec, "\n");
  text += StrCat("model        ", Printable(settings.model), "\n");
  text += StrCat("adapter      ", settings.adapter.empty() ? "none" : Printable(settings.adapter),
                 "\n");
  text += StrCat("window       ", settings.window, " tokens, overlap ", settings.overlap, "\n");
  text += StrCat("fingerprint  ", settings.fingerprint, "\n");
  text += StrCat("format       ", stats.format_version, ", keys and values in ",
                 EntryTypeName(settings.entry_type), "\n");
  return text;
}

std::string FormatSearchStats(const memory::SearchStats& stats) {
  const std::string faiss = StrCat("FAISS        ", stats.faiss, "\n");
  if (!stats.is_on_gpu) {
    return StrCat("search       by ", stats.by, " on the host",
                  stats.note.empty() ? "" : StrCat(": ", stats.note), "\n", faiss);
  }
  std::string on_gpu, pinned, stored;
  const auto add = [](std::string_view name, uint64_t size_bytes, std::string* list) {
    if (size_bytes == 0) return;
    *list += StrCat(list->empty() ? "" : ", ", name, " ", FormatBytes(size_bytes));
  };
  add("keys", stats.gpu_key_bytes, &on_gpu);
  add("codes", stats.gpu_code_bytes, &on_gpu);
  add("indexes", stats.gpu_index_bytes, &on_gpu);
  add("values", stats.gpu_value_bytes, &on_gpu);
  add("keys", stats.pinned_key_bytes, &pinned);
  add("values", stats.pinned_value_bytes, &pinned);
  add("values", stats.stored_value_bytes, &stored);
  return StrCat("search       by ", stats.by, " on the GPU: ", on_gpu,
                pinned.empty() ? "" : StrCat("; in pinned host memory: ", pinned),
                stored.empty() ? "" : StrCat("; read from the store: ", stored), "\n", faiss);
}

std::string FormatRebuilt(const memory::RebuildResult& result, double seconds) {
  std::string text = StrCat("generation ", result.generation, ": ",
                            Plural(result.segments_built, "segment"), " built");
  if (result.segments_resumed > 0) {
    text += StrCat(", ", result.segments_resumed, " finished before");
  }
  text += absl::StrFormat(", %.1f s\n", seconds);
  for (size_t i = 0; i < result.specs.size(); ++i) {
    text += StrCat("  ", result.specs[i]);
    if (i < result.needle_recall.size() && !result.needle_recall[i].empty()) {
      text += StrCat(", needle recall ", Shares(result.needle_recall[i]));
    }
    text += "\n";
  }
  return text;
}

std::string FormatReencoded(const memory::ReencodeResult& result, double seconds) {
  return StrCat(Plural(static_cast<int64_t>(result.documents), "document"), ", ",
                Plural(static_cast<int64_t>(result.tokens), "token"), " encoded again in ",
                absl::StrFormat("%.1f", seconds), " s\n");
}

std::string FormatModelInfo(const Json& model) {
  const auto word = [&model](const char* key) {
    const Json& value = model.at(key);
    return value.is_string() ? Excerpt(value.get<std::string>(), 4 * kTitleCharacters)
                             : value.dump();
  };
  const auto count = [](const Json& value) { return FormatCount(value.get<int64_t>()); };
  std::string text;
  const auto line = [&text](std::string_view label, const std::string& value) {
    text += absl::StrFormat("%-14s %s\n", label, value);
  };
  line("path", word("path"));
  line("architecture", word("architecture"));
  if (!model.at("name").get<std::string>().empty()) line("name", word("name"));
  line("parameters", count(model.at("parameters")));
  line("layers", word("n_layers"));
  line("hidden size", StrCat(word("hidden_size"), ", feed-forward ", word("intermediate_size")));
  line("heads", StrCat(word("n_heads"), " of ", word("head_dim"), ", ", word("n_kv_heads"),
                       " of keys and values"));
  line("window", StrCat(count(model.at("max_position_embeddings")), " tokens"));
  line("tokenizer", StrCat(word("tokenizer"), ", ", count(model.at("vocab_size")), " tokens"));
  line("chat format", word("chat_format"));
  for (const auto& [type, total] : model.at("types").items()) {
    line("tensors", StrCat(count(total.at("tensors")), " ", type, ", ",
                           FormatBytes(total.at("bytes").get<uint64_t>())));
  }
  line("fingerprint", word("fingerprint"));
  if (model.at("adapter").is_null()) {
    line("adapter", "none");
  } else {
    line("adapter", Printable(model.at("adapter").at("path").get<std::string>()));
  }
  const Json& memory = model.at("memory");
  if (memory.is_null()) {
    line("memory layers", "none");
  } else {
    std::string layers;
    for (const Json& layer : memory.at("layers")) {
      layers += StrCat(layers.empty() ? "" : ", ", layer.dump());
    }
    line("memory layers",
         StrCat(layers, " (windows of ", memory.at("window").dump(), " tokens, top ",
                memory.at("top_k").dump(), ", ", memory.at("encoding").get<std::string>(), ")"));
  }
  return text;
}

std::string FormatTensors(const Json& model) {
  std::string text;
  for (const Json& tensor : model.at("tensors")) {
    text +=
        absl::StrFormat("  %-4s %-16s %s\n", tensor.at("type").get<std::string>(),
                        tensor.at("shape").dump(), Printable(tensor.at("name").get<std::string>()));
  }
  return text;
}

}  // namespace fovea::cli
