// What is found and stored, as JSON objects: the same fields wherever a program prints them or a
// server sends them.
#pragma once

#include <string>
#include <vector>

#include "answer/request.h"
#include "memory/ingest/ingested_document.h"
#include "memory/search/attribution.h"
#include "nlohmann/json.hpp"
#include "storage/records.h"

namespace fovea::answer {

// Keeps the order in which fields are written.
using Json = nlohmann::ordered_json;

// On one line, without a newline. Bytes that are no UTF-8 become U+FFFD.
std::string JsonText(const Json& json);

Json ToJson(const memory::Passage& passage);
Json ToJson(const storage::SourceReference& source);
Json ToJson(const storage::DocumentRecord& document);
Json ToJson(const memory::IngestedDocument& document);
Json ToJson(const std::vector<SourceMark>& marks);

}  // namespace fovea::answer
