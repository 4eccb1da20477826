// Results for people: short lines that are safe to print on a terminal whatever a document holds.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "answer/answerer.h"
#include "cli/output.h"
#include "memory/ingest/ingester.h"
#include "memory/memory.h"
#include "memory/statistics.h"
#include "memory/upkeep/rebuild.h"
#include "memory/upkeep/reencode.h"
#include "memory/upkeep/verify.h"
#include "storage/records.h"

namespace fovea::cli {

// 1234567 → "1,234,567".
std::string FormatCount(int64_t count);
// 1234567 → "1.2 MB".
std::string FormatBytes(uint64_t size_bytes);

// Without control characters but for newline and tab: what a document or a model says must not
// command the terminal. Invalid UTF-8 becomes U+FFFD.
std::string Printable(std::string_view text);
// On one line, runs of white space as one space, at most `max_characters` and then "…".
std::string Excerpt(std::string_view text, size_t max_characters);

// Each with its newlines.
std::string FormatIngested(const memory::IngestedDocument& document);
std::string FormatSummary(const IngestSummary& summary);
std::string FormatSources(const answer::Answer& answer);  // and the audit
// Answer and sources on one line, for answers to many questions.
std::string FormatAnswerLine(const answer::Answer& answer);
std::string FormatDocument(const storage::DocumentRecord& document);
std::string FormatReport(const memory::VerifyReport& report);
std::string FormatStats(const memory::Stats& stats, const storage::StoreSettings& settings);
std::string FormatSearchStats(const memory::SearchStats& stats);
std::string FormatRebuilt(const memory::RebuildResult& result, double seconds);
std::string FormatReencoded(const memory::ReencodeResult& result, double seconds);
// Of the object that ToJson makes of a model.
std::string FormatModelInfo(const Json& model);
std::string FormatTensors(const Json& model);

}  // namespace fovea::cli
