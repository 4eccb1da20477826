#include "python/types.h"

#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <string>
#include <tuple>
#include <vector>

#include "answer/ingest_summary.h"
#include "answer/request.h"
#include "base/progress.h"
#include "memory/statistics.h"
#include "memory/upkeep/rebuild.h"
#include "memory/upkeep/verify.h"
#include "storage/records.h"

namespace fovea::python {

namespace nb = nanobind;

namespace {

// Text that may be cut within a character, or hold NUL: bytes that are no UTF-8 become U+FFFD.
nb::str ToPython(const std::string& text) {
  return nb::steal<nb::str>(
      PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()), "replace"));
}

// Such a field.
template <typename Class>
auto Text(std::string Class::*field) {
  return [field](const Class& self) { return ToPython(self.*field); };
}

std::string Quoted(const std::string& text) {
  return nb::cast<std::string>(nb::repr(ToPython(text)));
}

void AddPassages(nb::module_& module) {
  using memory::Passage;
  nb::class_<Passage>(module, "Passage", "A passage of a document, found by attention or by words.")
      .def_prop_ro("text", Text(&Passage::text))
      .def_prop_ro(
          "excerpt", [](const Passage& self) { return ToPython(std::string(self.excerpt())); },
          "The part of the text around what was looked for, to be shown where there is little "
          "room.")
      .def_prop_ro("title", Text(&Passage::title))
      .def_prop_ro("source", Text(&Passage::source),
                   "The path or name that the document came from.")
      .def_ro("other_sources", &Passage::other_sources, "Others with the same text.")
      .def_ro("collection", &Passage::collection)
      .def_ro("document", &Passage::document, "The document's id.")
      .def_ro("start", &Passage::start, "First byte in the document's text, as UTF-8.")
      .def_ro("end", &Passage::end, "The byte after the last one.")
      .def_ro("mass", &Passage::mass, "Share of the attention, from 0 to 1.")
      .def_ro("score", &Passage::score, "What it was ranked by.")
      .def_ro("reread", &Passage::reread, "Whether its text joined the prompt.")
      .def("__repr__", [](const Passage& self) {
        return StrCat("<fovea.Passage ", Quoted(self.source), " ", self.start, "-", self.end, ">");
      });
}

void AddAnswers(nb::module_& module) {
  using answer::Answer;
  nb::class_<memory::AuditResult>(
      module, "Audit", "What the search of a question found of what a search of all keys finds.")
      .def_ro("captured_mass", &memory::AuditResult::captured_mass,
              "By memory layer: share of the dense softmax that was kept.")
      .def_ro("needle_recall", &memory::AuditResult::needle_recall,
              "By memory layer: share of the keys found that a query looks for alone.")
      .def("__repr__", [](const memory::AuditResult& self) {
        return StrCat("<fovea.Audit of ", self.captured_mass.size(), " memory layers>");
      });
  nb::class_<Answer>(module, "Answer", "An answer, and what it was read from.")
      .def_prop_ro("text", Text(&Answer::text))
      .def_prop_ro("question", Text(&Answer::question))
      .def_ro("finish_reason", &Answer::finish_reason,
              "\"stop\", \"length\", \"repetition\" (it began to repeat itself and was ended) or "
              "\"cancelled\".")
      .def_ro("sources", &Answer::sources,
              "Passages that joined the prompt, then those attended to most.")
      .def_prop_ro(
          "marks",
          [](const Answer& self) {
            std::vector<std::tuple<size_t, size_t, int>> marks;
            for (const auto& mark : self.marks.value_or(std::vector<answer::SourceMark>())) {
              marks.emplace_back(mark.start, mark.end, mark.source);
            }
            return marks;
          },
          "Where they were asked for: (start, end, source) of each mark, first byte and the byte "
          "after the last one in the text as UTF-8, and the number of the source, from 1: "
          "sources[source - 1].")
      .def_ro("notes", &Answer::notes, "What the answer could not be made from, and why.")
      .def_prop_ro("prompt_tokens", [](const Answer& self) { return self.usage.prompt_tokens; })
      .def_prop_ro("completion_tokens",
                   [](const Answer& self) { return self.usage.completion_tokens; })
      .def_prop_ro(
          "memory_tokens", [](const Answer& self) { return self.usage.memory_tokens; },
          "Stored tokens that the question could see.")
      .def_prop_ro(
          "prefill_ms", [](const Answer& self) { return self.timing.prefill_ms; },
          "Milliseconds to the first token.")
      .def_prop_ro("decode_ms_per_token",
                   [](const Answer& self) { return self.timing.decode_ms_per_token; })
      .def_ro("audit", &Answer::audit, "Where it was asked for and the memory was searched.")
      .def("__str__", Text(&Answer::text))
      .def("__repr__", [](const Answer& self) {
        return StrCat("<fovea.Answer ", Quoted(self.text), ", ", self.sources.size(), " sources>");
      });
}

void AddDocuments(nb::module_& module) {
  using storage::DocumentRecord;
  using storage::SourceReference;
  nb::class_<SourceReference>(module, "Source", "A file or name that refers to a document's text.")
      .def_prop_ro("source", Text(&SourceReference::source))
      .def_prop_ro("title", Text(&SourceReference::title))
      .def_ro("collection", &SourceReference::collection)
      .def("__repr__", [](const SourceReference& self) {
        return StrCat("<fovea.Source ", Quoted(self.source), " in ", Quoted(self.collection), ">");
      });
  nb::class_<DocumentRecord>(module, "Document", "A stored document.")
      .def_ro("id", &DocumentRecord::id, "32 hex digits of the SHA-256 of its text.")
      .def_prop_ro("title", [](const DocumentRecord& self) { return self.title(); })
      .def_prop_ro(
          "source", [](const DocumentRecord& self) { return self.source(); }, "The first of them.")
      .def_ro("sources", &DocumentRecord::sources)
      .def_prop_ro("collections", [](const DocumentRecord& self) { return self.collections(); })
      .def_ro("bytes", &DocumentRecord::size_bytes, "Of the text, as UTF-8.")
      .def_ro("tokens", &DocumentRecord::n_tokens)
      .def_ro("windows", &DocumentRecord::n_windows)
      .def_ro("ingested_unix_s", &DocumentRecord::ingested_unix_s)
      .def("__repr__", [](const DocumentRecord& self) {
        return StrCat("<fovea.Document ", self.id.substr(0, 12), " ", Quoted(self.source()), ", ",
                      self.n_tokens, " tokens>");
      });
  using storage::WindowLink;
  nb::class_<WindowLink>(module, "Window", "Tokens of a document that were encoded together.")
      .def_ro("tokens", &WindowLink::n_tokens)
      .def_ro("start", &WindowLink::byte_begin, "First byte in the document's text.")
      .def("__repr__", [](const WindowLink& self) {
        return StrCat("<fovea.Window of ", self.n_tokens, " tokens from byte ", self.byte_begin,
                      ">");
      });
}

void AddIngest(nb::module_& module) {
  using answer::IngestSummary;
  using memory::IngestedDocument;
  nb::class_<ProgressUpdate>(module, "Progress", "How far a long call is.")
      .def_ro("stage", &ProgressUpdate::stage, "\"encode\", \"index\", \"verify\", ...")
      .def_ro("done", &ProgressUpdate::done, "In units.")
      .def_ro("total", &ProgressUpdate::total, "0: not known.")
      .def_prop_ro("unit", [](const ProgressUpdate& self) { return std::string(self.unit); })
      .def("__repr__", [](const ProgressUpdate& self) {
        return StrCat("<fovea.Progress ", self.stage, " ", self.done,
                      self.total > 0 ? StrCat(" of ", self.total) : "", " ", self.unit, ">");
      });
  nb::class_<IngestedDocument>(module, "IngestedDocument", "What became of a document.")
      .def_ro("id", &IngestedDocument::id)
      .def_prop_ro("title", Text(&IngestedDocument::title))
      .def_prop_ro("source", Text(&IngestedDocument::source))
      .def_ro("tokens", &IngestedDocument::tokens)
      .def_ro("windows", &IngestedDocument::windows)
      .def_ro("encoded_windows", &IngestedDocument::encoded_windows)
      .def_ro("encoded_tokens", &IngestedDocument::encoded_tokens)
      .def_prop_ro(
          "status",
          [](const IngestedDocument& self) {
            return std::string(memory::IngestStatusName(self.status));
          },
          "\"added\", \"unchanged\", \"replaced\" or \"failed\".")
      .def_prop_ro("error", Text(&IngestedDocument::error), "Why it failed; else empty.")
      .def("__repr__", [](const IngestedDocument& self) {
        return StrCat("<fovea.IngestedDocument ", memory::IngestStatusName(self.status), " ",
                      Quoted(self.source), ">");
      });
  nb::class_<IngestSummary::Warning>(module, "IngestWarning", "What of a file is not stored.")
      .def_prop_ro("source", Text(&IngestSummary::Warning::source))
      .def_prop_ro("warning", Text(&IngestSummary::Warning::warning))
      .def("__repr__", [](const IngestSummary::Warning& self) {
        return StrCat("<fovea.IngestWarning ", Quoted(self.source), ": ", Quoted(self.warning),
                      ">");
      });
  nb::class_<IngestSummary::Skipped>(module, "SkippedFiles", "Files of folders without text.")
      .def_ro("kind", &IngestSummary::Skipped::kind)
      .def_ro("files", &IngestSummary::Skipped::n_files)
      .def_prop_ro("first", Text(&IngestSummary::Skipped::first))
      .def("__repr__", [](const IngestSummary::Skipped& self) {
        return StrCat("<fovea.SkippedFiles ", self.n_files, " ", self.kind, ", the first ",
                      Quoted(self.first), ">");
      });
  nb::class_<IngestSummary>(module, "IngestSummary", "What became of all that was ingested.")
      .def_ro("documents", &IngestSummary::documents, "One for each source.")
      .def_prop_ro(
          "failed",
          [](const IngestSummary& self) {
            std::vector<IngestedDocument> failed;
            for (const IngestedDocument& document : self.documents) {
              if (document.status == memory::IngestStatus::kFailed) failed.push_back(document);
            }
            return failed;
          },
          "Those that could not be read or stored; the others are.")
      .def_ro("tokens", &IngestSummary::tokens, "Of all texts, each once.")
      .def_ro("encoded_tokens", &IngestSummary::encoded_tokens, "That were not stored before.")
      .def_ro("seconds", &IngestSummary::seconds)
      .def_ro("warnings", &IngestSummary::warnings)
      .def_ro("skipped", &IngestSummary::skipped)
      .def("__repr__", [](const IngestSummary& self) {
        return StrCat("<fovea.IngestSummary ", self.documents.size(), " documents, ",
                      self.encoded_tokens, " tokens encoded>");
      });
}

void AddUpkeep(nb::module_& module) {
  using memory::RebuildResult;
  using memory::Stats;
  using memory::VerifyFinding;
  using memory::VerifyReport;
  nb::class_<VerifyFinding>(module, "Finding", "Something that a check of a memory found.")
      .def_ro("kind", &VerifyFinding::kind, "\"block\", \"index_file\", \"text_index\", ...")
      .def_ro("document", &VerifyFinding::document, "An id; may be empty.")
      .def_prop_ro("what", Text(&VerifyFinding::what))
      .def("__repr__", [](const VerifyFinding& self) {
        return StrCat("<fovea.Finding ", self.kind, ": ", self.what, ">");
      });
  nb::class_<VerifyReport>(module, "VerifyReport", "What a check of a memory found.")
      .def_ro("ok", &VerifyReport::ok, "Nothing is damaged (any more).")
      .def_ro("documents", &VerifyReport::documents, "That were checked.")
      .def_ro("blocks", &VerifyReport::blocks)
      .def_ro("index_files", &VerifyReport::index_files)
      .def_ro("damaged", &VerifyReport::damaged)
      .def_ro("repaired", &VerifyReport::repaired)
      .def_ro("notes", &VerifyReport::notes, "What is no damage, but a repair puts right.")
      .def("__repr__", [](const VerifyReport& self) {
        return StrCat("<fovea.VerifyReport ", self.ok ? "ok" : "damaged", ", ", self.documents,
                      " documents, ", self.damaged.size(), " damaged, ", self.repaired.size(),
                      " repaired>");
      });
  nb::class_<RebuildResult>(module, "RebuildResult", "The indexes that a rebuild made.")
      .def_ro("generation", &RebuildResult::generation)
      .def_ro("segments_built", &RebuildResult::segments_built)
      .def_ro("segments_resumed", &RebuildResult::segments_resumed)
      .def_ro("specs", &RebuildResult::specs, "The specification of each segment's index.")
      .def_ro("needle_recall", &RebuildResult::needle_recall, "By segment, by memory layer.")
      .def("__repr__", [](const RebuildResult& self) {
        return StrCat("<fovea.RebuildResult ", self.segments_built, " segments built, ",
                      self.segments_resumed, " resumed>");
      });
  nb::class_<Stats::SegmentStats>(module, "SegmentStats", "A segment of a memory.")
      .def_ro("tokens", &Stats::SegmentStats::tokens)
      .def_ro("index", &Stats::SegmentStats::index)
      .def_ro("state", &Stats::SegmentStats::state)
      .def_ro("needle_recall", &Stats::SegmentStats::needle_recall, "By memory layer.")
      .def_ro("candidates", &Stats::SegmentStats::n_candidates,
              "Rescored for each query head; 0: searched exactly.")
      .def("__repr__", [](const Stats::SegmentStats& self) {
        return StrCat("<fovea.SegmentStats ", self.tokens, " tokens, ", self.index, ", ",
                      self.state, ">");
      });
  nb::class_<Stats>(module, "Stats", "What a memory holds, in numbers.")
      .def_ro("documents", &Stats::documents)
      .def_prop_ro(
          "collections",
          [](const Stats& self) {
            nb::typed<nb::dict, nb::str, nb::int_> collections;
            for (const auto& [name, n] : self.collections) collections[ToPython(name)] = n;
            return collections;
          },
          "Name: number of documents.")
      .def_ro("tokens", &Stats::tokens)
      .def_ro("slots", &Stats::slots)
      .def_ro("deleted_slots", &Stats::deleted_slots)
      .def_ro("unfinished_documents", &Stats::unfinished_documents,
              "Of an ingest that runs, or was interrupted: the same one again goes on from them, "
              "rebuild drops them.")
      .def_ro("unfinished_tokens", &Stats::unfinished_tokens)
      .def_ro("text_bytes", &Stats::text_bytes)
      .def_ro("block_bytes", &Stats::block_bytes, "Of keys and values.")
      .def_ro("index_bytes", &Stats::index_bytes)
      .def_ro("segments", &Stats::segments)
      .def_ro("format_version", &Stats::format_version)
      .def("__repr__", [](const Stats& self) {
        return StrCat("<fovea.Stats ", self.documents, " documents, ", self.tokens, " tokens>");
      });
}

}  // namespace

void AddTypes(nb::module_& module) {
  AddPassages(module);
  AddAnswers(module);
  AddDocuments(module);
  AddIngest(module);
  AddUpkeep(module);
}

}  // namespace fovea::python
