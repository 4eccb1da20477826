#include "serve/job.h"

#include <algorithm>
#include <iterator>
#include <optional>

#include "absl/strings/str_format.h"
#include "base/hash.h"

namespace fovea::serve {
namespace {

using memory::IngestedDocument;
using memory::IngestStatus;

constexpr std::string_view kKinds[] = {"ingest", "rebuild"};
constexpr std::string_view kStates[] = {"waiting", "running", "done", "failed", "cancelled"};

std::string Seal(std::string_view bytes) { return absl::StrFormat("%016x\n", Checksum64(bytes)); }

// Index of `name` among `names`.
template <size_t n>
std::optional<int> IndexOf(const std::string_view (&names)[n], const std::string& name) {
  const auto found = std::find(std::begin(names), std::end(names), name);
  if (found == std::end(names)) return std::nullopt;
  return static_cast<int>(found - std::begin(names));
}

std::optional<IngestStatus> StatusOf(const std::string& name) {
  for (const IngestStatus status :
       {IngestStatus::kAdded, IngestStatus::kUnchanged, IngestStatus::kReplaced,
        IngestStatus::kRemoved, IngestStatus::kFailed}) {
    if (memory::IngestStatusName(status) == name) return status;
  }
  return std::nullopt;
}

Json Stored(const IngestedDocument& document) {
  Json json = answer::ToJson(document);
  json["is_new_source"] = document.is_new_source;
  return json;
}

// What Stored has written; every field is there and of its type, or an exception is thrown.
IngestedDocument StoredDocument(const Json& json) {
  IngestedDocument document;
  document.id = json.at("id").get<std::string>();
  document.title = json.at("title").get<std::string>();
  document.source = json.at("source").get<std::string>();
  document.tokens = json.at("tokens").get<uint64_t>();
  document.windows = json.at("windows").get<uint64_t>();
  document.encoded_windows = json.at("encoded_windows").get<uint64_t>();
  document.status = StatusOf(json.at("status").get<std::string>()).value();
  document.is_new_source = json.at("is_new_source").get<bool>();
  document.error = json.at("error").get<std::string>();
  return document;
}

Job StoredJob(const Json& json) {
  Job job;
  job.id = json.at("id").get<uint64_t>();
  job.kind = static_cast<JobKind>(IndexOf(kKinds, json.at("kind").get<std::string>()).value());
  job.state = static_cast<JobState>(IndexOf(kStates, json.at("state").get<std::string>()).value());
  job.collection = json.at("collection").get<std::string>();
  job.index = json.at("index").get<std::string>();
  job.created_unix_s = json.at("created_unix_s").get<int64_t>();
  job.ended_unix_s = json.at("ended_unix_s").get<int64_t>();
  job.error = json.at("error").get<std::string>();
  job.warnings = json.at("warnings").get<std::vector<std::string>>();
  for (const Json& upload : json.at("uploads")) {
    job.uploads.push_back({.file = upload.at("file").get<std::string>(),
                           .name = upload.at("name").get<std::string>(),
                           .is_text = upload.at("is_text").get<bool>(),
                           .size_bytes = upload.at("size_bytes").get<uint64_t>()});
  }
  for (const Json& document : json.at("documents")) {
    job.documents.push_back(StoredDocument(document));
  }
  return job;
}

}  // namespace

std::string_view JobKindName(JobKind kind) { return kKinds[static_cast<size_t>(kind)]; }
std::string_view JobStateName(JobState state) { return kStates[static_cast<size_t>(state)]; }

Json ToJson(const Job& job, bool with_documents) {
  Json files = Json::array();
  for (const Upload& upload : job.uploads) {
    files.push_back({{"name", upload.name}, {"bytes", upload.size_bytes}});
  }
  Json counts = Json::object();
  Json documents = Json::array();
  for (const IngestedDocument& document : job.documents) {
    Json& count = counts[std::string(memory::IngestStatusName(document.status))];
    count = count.is_null() ? 1 : count.get<int64_t>() + 1;
    if (documents.size() < kMaxShownDocuments) documents.push_back(answer::ToJson(document));
  }
  Json json = {{"id", StrCat(job.id)},
               {"object", "fovea.job"},
               {"kind", JobKindName(job.kind)},
               {"state", JobStateName(job.state)},
               {"created", job.created_unix_s},
               {"ended", job.ended_unix_s == 0 ? Json() : Json(job.ended_unix_s)},
               {"progress",
                {{"stage", job.progress.stage},
                 {"done", job.progress.done},
                 {"total", job.progress.total},
                 {"unit", job.progress.unit},
                 {"files_done", job.n_files_done},
                 {"files", job.uploads.size()}}},
               {"error", job.error.empty() ? Json() : Json(job.error)}};
  if (job.kind == JobKind::kRebuild) {
    json["index"] = job.index;
    return json;
  }
  json["collection"] = job.collection;
  json["files"] = std::move(files);
  json["counts"] = std::move(counts);
  if (with_documents) json["documents"] = std::move(documents);
  json["warnings"] = job.warnings;
  return json;
}

std::string EncodeJob(const Job& job) {
  Json uploads = Json::array();
  for (const Upload& upload : job.uploads) {
    uploads.push_back({{"file", upload.file},
                       {"name", upload.name},
                       {"is_text", upload.is_text},
                       {"size_bytes", upload.size_bytes}});
  }
  Json documents = Json::array();
  for (const IngestedDocument& document : job.documents) documents.push_back(Stored(document));
  const std::string json = answer::JsonText({{"id", job.id},
                                             {"kind", JobKindName(job.kind)},
                                             {"state", JobStateName(job.state)},
                                             {"collection", job.collection},
                                             {"index", job.index},
                                             {"created_unix_s", job.created_unix_s},
                                             {"ended_unix_s", job.ended_unix_s},
                                             {"error", job.error},
                                             {"warnings", job.warnings},
                                             {"uploads", std::move(uploads)},
                                             {"documents", std::move(documents)}}) +
                           "\n";
  return json + Seal(json);
}

absl::StatusOr<Job> DecodeJob(std::string_view bytes, std::string_view name) {
  const auto damaged = [&](std::string_view what) {
    return absl::DataLossError(StrCat(name, ": the record of a job is damaged: ", what));
  };
  const size_t end = bytes.find('\n');
  if (end == std::string_view::npos) return damaged("it has no checksum");
  const std::string_view json = bytes.substr(0, end + 1);
  if (bytes.substr(end + 1) != Seal(json)) return damaged("its checksum is not that of its bytes");
  const Json parsed = Json::parse(json, nullptr, /*allow_exceptions=*/false);
  if (parsed.is_discarded()) return damaged("it is no JSON");
  try {
    return StoredJob(parsed);
  } catch (const std::exception& error) {  // written by a later release
    return damaged(error.what());
  }
}

}  // namespace fovea::serve
