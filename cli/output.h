// Results as JSON: one object a result, on one line, with exactly the fields that scripts rely on.
// Bytes that are no UTF-8 become U+FFFD.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "answer/answerer.h"
#include "answer/json.h"
#include "memory/ingest/ingester.h"
#include "memory/memory.h"
#include "memory/statistics.h"
#include "memory/upkeep/rebuild.h"
#include "memory/upkeep/reencode.h"
#include "memory/upkeep/verify.h"
#include "model/weights/adapter.h"
#include "model/weights/checkpoint.h"
#include "model_home/model_home.h"
#include "storage/records.h"

namespace fovea::cli {

using answer::Json;
using answer::ToJson;

// With its newline.
std::string JsonLine(const Json& json);

struct IngestSummary {
  // One for each source. Several may have the same text.
  std::vector<memory::IngestedDocument> documents;
  void Add(const memory::IngestedDocument& document);
  std::set<std::string> ids;  // of the texts that are stored
  uint64_t tokens = 0;        // of all texts, each once
  uint64_t encoded_tokens = 0;
  double seconds = 0.0;
  bool dry_run = false;  // nothing was done: what would be
  struct Warning {
    std::string source;
    std::string warning;  // what of it is not stored
  };
  std::vector<Warning> warnings;
  struct Skipped {
    std::string kind;  // "PNG image"
    int64_t n_files = 0;
    std::string first;  // the first of them
  };
  bool has_folders = false;      // files of folders were looked at
  std::vector<Skipped> skipped;  // of folders; most files first
  void AddSkipped(const std::string& kind, const std::string& file);
  double tokens_per_second() const;  // encoded ones
};
Json ToJson(const IngestSummary& summary);

// `open_ms`: from the start of the program until it could take questions. `notes`: on all answers,
// in front of the answer's own.
Json ToJson(const answer::Answer& answer, double open_ms,
            const std::vector<std::string>& notes = {});
// A question that could not be answered, where others follow.
Json FailedQuestionJson(const std::string& question, const absl::Status& status);

Json ToJson(const memory::VerifyReport& report);
Json ToJson(const memory::Stats& stats, const storage::StoreSettings& settings);
Json ToJson(const memory::SearchStats& stats);
Json ToJson(const memory::RebuildResult& result, double seconds);
Json ToJson(const memory::ReencodeResult& result, const std::string& fingerprint, double seconds);

// An adapter with the folder that it was read from.
struct LoadedAdapter {
  std::string path;
  const model::Adapter* adapter = nullptr;
};
// `adapter.adapter` may be null.
Json ToJson(const model::Checkpoint& checkpoint, const LoadedAdapter& adapter);
Json ToJson(const model_home::NamedModel& model);
Json ToJson(const model_home::NamedAdapter& adapter);

}  // namespace fovea::cli
