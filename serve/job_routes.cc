// Routes for what is being done to a memory.
#include <algorithm>
#include <utility>

#include "index/layer_index.h"
#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/numbers.h"
#include "serve/service.h"

namespace fovea::serve {
namespace {

constexpr size_t kMaxBytes = size_t{64} << 10;

bool MaySee(const Access& access, const Job& job) {
  return !access.is_limited() || (job.kind == JobKind::kIngest && access.Allows(job.collection));
}

// Who is limited to a collection is not told that a text is stored in another one.
Job AsSeenBy(const Access& access, Job job) {
  if (!access.is_limited()) return job;
  for (memory::IngestedDocument& document : job.documents) {
    if (document.status == memory::IngestStatus::kUnchanged && document.is_new_source) {
      document.status = memory::IngestStatus::kAdded;
    }
    document.encoded_windows = document.windows;
  }
  return job;
}

HttpResponse JobResponse(const Access& access, Job job) {
  return {.body =
              answer::JsonText(ToJson(AsSeenBy(access, std::move(job)), /*with_documents=*/true))};
}

}  // namespace

HttpResponse Service::ListJobs(const Call& call) const {
  std::vector<Job> jobs = parts_.jobs->List();
  std::reverse(jobs.begin(), jobs.end());  // the newest first
  Json data = Json::array();
  for (Job& job : jobs) {
    if (!MaySee(call.access, job)) continue;
    data.push_back(ToJson(AsSeenBy(call.access, std::move(job)), /*with_documents=*/false));
  }
  return {.body = answer::JsonText({{"object", "list"}, {"data", std::move(data)}})};
}

HttpResponse Service::AddJob(const Call& call) const {
  const absl::StatusOr<std::string> body = call.peer.ReadBody(kMaxBytes);
  if (!body.ok()) return BodyErrorResponse(body.status());
  const absl::StatusOr<Json> json = ParseObject(*body);
  if (!json.ok()) return ErrorResponse(json.status());
  Fields fields(*json);
  fields.AllowOnly({"kind", "index"});
  if (fields.Text("kind", "") != "rebuild") {
    fields.Fail("kind", "want rebuild; POST /v1/documents begins an ingest");
  }
  Job job;
  job.kind = JobKind::kRebuild;
  job.index = fields.Text("index", "");
  const auto generation = parts_.fovea->memory().Current();
  if (!generation->settings.has_value()) fields.Fail("kind", "the memory is empty");
  if (fields.status().ok() && !job.index.empty()) {
    const absl::Status valid = index::ValidateSpec(job.index, generation->settings->head_dim);
    if (!valid.ok()) fields.Fail("index", ToStd(valid.message()));
  }
  if (!fields.status().ok()) return ErrorResponse(fields.status());
  absl::StatusOr<Job> added = parts_.writer->Add(std::move(job), {});
  if (!added.ok()) return ErrorResponse(added.status());
  return {.status = 202, .body = answer::JsonText(ToJson(*added, /*with_documents=*/true))};
}

HttpResponse Service::ShowJob(const Call& call) const {
  const std::optional<uint64_t> id = ToNumber(call.rest, 0);
  std::optional<Job> job = id.has_value() ? parts_.jobs->Find(*id) : std::nullopt;
  if (!job.has_value() || !MaySee(call.access, *job)) {
    return ErrorResponse(404, "there is no such job");
  }
  return JobResponse(call.access, *std::move(job));
}

HttpResponse Service::CancelJob(const Call& call) const {
  const std::optional<uint64_t> id = ToNumber(call.rest, 0);
  const std::optional<Job> job = id.has_value() ? parts_.jobs->Find(*id) : std::nullopt;
  if (!job.has_value() || !MaySee(call.access, *job)) {
    return ErrorResponse(404, "there is no such job");
  }
  absl::StatusOr<Job> cancelled = parts_.writer->Cancel(*id);
  if (!cancelled.ok()) return ErrorResponse(cancelled.status());
  return JobResponse(call.access, *std::move(cancelled));
}

}  // namespace fovea::serve
