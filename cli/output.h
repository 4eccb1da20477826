// Results as JSON: one object a result, on one line, with exactly the fields that scripts rely on.
// Bytes that are no UTF-8 become U+FFFD.
#pragma once

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "answer/answerer.h"
#include "answer/ingest_summary.h"
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

using answer::IngestSummary;
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
