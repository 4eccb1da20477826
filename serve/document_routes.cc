// Routes for the documents of a memory.
#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <utility>

#include "documents/names.h"
#include "documents/utf8.h"
#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/numbers.h"
#include "serve/scope.h"
#include "serve/service.h"

namespace fovea::serve {
namespace {

using storage::DocumentRecord;

constexpr size_t kMaxNameBytes = 1000;
constexpr size_t kMaxTextBytes = size_t{64} << 20;
constexpr size_t kMaxBytesAtOnce = size_t{1} << 60;  // the server's own limit holds
constexpr size_t kMaxFiles = 1000;                   // of one request

// Where documents go that were sent without a collection: a key that is limited to one has that.
std::string DefaultCollection(const Access& access) {
  return access.is_limited() && access.collections->size() == 1 ? access.collections->front()
                                                                : "default";
}

absl::Status CheckCollection(const Access& access, const std::string& name) {
  RETURN_IF_ERROR(documents::CheckCollectionName(name));
  if (access.Allows(name)) return absl::OkStatus();
  return absl::PermissionDeniedError(
      StrCat("this key is not for collection \"", name, "\"; name another"));
}

// What is received of a form.
struct Form {
  std::optional<std::string> collection;
  std::vector<Upload> uploads;
  std::vector<UploadFile> files;
};

// Reads a form: a field "collection", which may be missing, and files. *storing is set to what went
// wrong here, and not with the client.
absl::Status ReadForm(HttpPeer& peer, JobStore* jobs, Form* form, absl::Status* storing) {
  std::optional<UploadFile> file;
  std::string* field = nullptr;
  const auto finish_file = [&] {
    if (!file.has_value()) return absl::OkStatus();
    if (*storing = file->Close(); !storing->ok()) return *storing;
    form->uploads.back().size_bytes = file->size_bytes();
    form->files.push_back(*std::move(file));
    file.reset();
    return absl::OkStatus();
  };
  const auto begin = [&](const HttpPart& part) -> absl::Status {
    RETURN_IF_ERROR(finish_file());
    field =
        part.filename.empty() && part.name == "collection" ? &form->collection.emplace() : nullptr;
    if (field != nullptr) return absl::OkStatus();
    if (part.filename.empty()) {
      return absl::InvalidArgumentError(StrCat("the form's field \"",
                                               documents::OneLine(part.name, 100),
                                               "\": want collection, or a file with a name"));
    }
    if (form->uploads.size() == kMaxFiles) {
      return absl::InvalidArgumentError(StrCat("at most ", kMaxFiles, " files in a request"));
    }
    Upload upload;
    upload.name = documents::PrintableName(documents::Utf8Prefix(part.filename, kMaxNameBytes));
    absl::StatusOr<UploadFile> created = jobs->CreateUpload(part.filename);
    if (!created.ok()) return *storing = created.status();
    file.emplace(*std::move(created));
    upload.file = file->name();
    form->uploads.push_back(std::move(upload));
    return absl::OkStatus();
  };
  const auto data = [&](std::string_view bytes) -> absl::Status {
    if (file.has_value()) return *storing = file->Write(bytes);
    if (field == nullptr) return absl::OkStatus();
    // One byte more than a name may have says that it is too long.
    *field += bytes.substr(0, documents::kMaxCollectionBytes + 1 - field->size());
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(peer.ReadParts(kMaxBytesAtOnce, begin, data));
  RETURN_IF_ERROR(finish_file());
  if (form->uploads.empty()) return absl::InvalidArgumentError("the form holds no file");
  return absl::OkStatus();
}

// Reads {"title", "text", "collection"}.
absl::Status ReadText(HttpPeer& peer, JobStore* jobs, Form* form, absl::Status* storing) {
  ASSIGN_OR_RETURN(const std::string body, peer.ReadBody(kMaxTextBytes));
  ASSIGN_OR_RETURN(const Json json, ParseObject(body));
  Fields fields(json);
  fields.AllowOnly({"title", "text", "collection"});
  const std::string title = fields.Text("title", "");
  const std::string text = fields.Text("text", "");
  if (fields.Find("collection") != nullptr) form->collection = fields.Text("collection", "");
  if (documents::IsBlank(title)) {
    fields.Fail("title", "want one: a text of the same title takes the place of the first");
  }
  if (documents::IsBlank(text)) fields.Fail("text", "want one that is not empty");
  RETURN_IF_ERROR(fields.status());
  absl::StatusOr<UploadFile> file = jobs->CreateUpload("");
  *storing = file.status();
  if (storing->ok()) *storing = file->Write(text);
  if (storing->ok()) *storing = file->Close();
  RETURN_IF_ERROR(*storing);
  form->uploads.push_back({.file = file->name(),
                           .name = documents::OneLine(title, kMaxNameBytes),
                           .is_text = true,
                           .size_bytes = file->size_bytes()});
  form->files.push_back(*std::move(file));
  return absl::OkStatus();
}

Json DocumentJson(const DocumentRecord& visible) {
  Json json = answer::ToJson(visible);
  if (visible.ingested_unix_s == 0) json["ingested_unix_s"] = nullptr;  // not told
  return json;
}

HttpResponse StorageErrorResponse(const absl::Status& status) {
  if (absl::IsResourceExhausted(status)) return ErrorResponse(507, ToStd(status.message()));
  return ErrorResponse(status);
}

}  // namespace

HttpResponse Service::ListCollections(const Call& call) const {
  struct Contents {
    int64_t n_documents = 0;
    uint64_t n_tokens = 0;
    void Add(const DocumentRecord& document) {
      ++n_documents;
      n_tokens += document.n_tokens;
    }
  };
  std::map<std::string, Contents> collections;
  Contents all;  // a document in two collections counts once
  for (const DocumentRecord& document :
       AllVisible(*parts_.fovea->memory().Current(), call.access)) {
    all.Add(document);
    for (const std::string& name : document.collections()) collections[name].Add(document);
  }
  Json data = Json::array();
  for (const auto& [name, contents] : collections) {
    data.push_back({{"name", name},
                    {"object", "fovea.collection"},
                    {"documents", contents.n_documents},
                    {"tokens", contents.n_tokens}});
  }
  return {.body = answer::JsonText({{"object", "list"},
                                    {"data", std::move(data)},
                                    {"documents", all.n_documents},
                                    {"tokens", all.n_tokens}})};
}

HttpResponse Service::ListDocuments(const Call& call) const {
  constexpr uint64_t kMostDocuments = 10'000;
  const std::optional<uint64_t> limit = ToNumber(call.request.Query("limit"), 1000);
  if (!limit.has_value() || *limit < 1 || *limit > kMostDocuments) {
    return ErrorResponse(400, StrCat("limit: want a number from 1 to ", kMostDocuments));
  }
  const std::string collection = call.request.Query("collection");
  const std::string after = call.request.Query("after");
  const auto generation = parts_.fovea->memory().Current();
  bool begins = after.empty();
  bool has_more = false;
  Json data = Json::array();
  for (const DocumentRecord& document : AllVisible(*generation, call.access)) {
    if (begins && (collection.empty() || document.IsIn(collection))) {
      has_more = data.size() == *limit;
      if (has_more) break;
      data.push_back(DocumentJson(document));
    }
    begins = begins || document.id == after;
  }
  if (!begins) {
    return ErrorResponse(404, StrCat("there is no document \"", documents::OneLine(after, 100),
                                     "\" to list those after it"));
  }
  return {.body = answer::JsonText(
              {{"object", "list"}, {"data", std::move(data)}, {"has_more", has_more}})};
}

HttpResponse Service::AddDocuments(const Call& call) const {
  constexpr size_t kMostWaiting = 1000;
  if (parts_.jobs->CountByState()[JobState::kWaiting] >= kMostWaiting) {
    return ErrorResponse(429, StrCat(kMostWaiting, " jobs wait already: come again later"));
  }
  Form form;
  absl::Status storing;
  const bool is_form = call.request.Header("content-type").starts_with("multipart/form-data");
  const absl::Status read = is_form ? ReadForm(call.peer, parts_.jobs, &form, &storing)
                                    : ReadText(call.peer, parts_.jobs, &form, &storing);
  if (!storing.ok()) return StorageErrorResponse(storing);
  if (!read.ok()) return BodyErrorResponse(read);
  Job job;
  job.kind = JobKind::kIngest;
  job.collection =
      form.collection.has_value() ? *std::move(form.collection) : DefaultCollection(call.access);
  job.uploads = std::move(form.uploads);
  if (const absl::Status allowed = CheckCollection(call.access, job.collection); !allowed.ok()) {
    return ErrorResponse(allowed);
  }
  absl::StatusOr<Job> added = parts_.writer->Add(std::move(job), std::move(form.files));
  if (!added.ok()) return StorageErrorResponse(added.status());
  return {.status = 202, .body = answer::JsonText(ToJson(*added, /*with_documents=*/true))};
}

HttpResponse Service::ShowDocument(const Call& call) const {
  constexpr uint64_t kMostBytes = uint64_t{8} << 20;
  const auto generation = parts_.fovea->memory().Current();
  const absl::StatusOr<DocumentRecord> document = FindVisible(*generation, call.access, call.rest);
  if (!document.ok()) return ErrorResponse(document.status());
  const uint64_t size = document->size_bytes;
  const std::optional<uint64_t> start = ToNumber(call.request.Query("start"), 0);
  const std::optional<uint64_t> end =
      ToNumber(call.request.Query("end"), std::min(size, start.value_or(0) + kMostBytes));
  if (!start.has_value() || !end.has_value() || *start > *end || *end > size ||
      *end - *start > kMostBytes) {
    return ErrorResponse(400, StrCat("start, end: want a range of at most ", kMostBytes,
                                     " bytes of the document's ", size));
  }
  absl::StatusOr<memory::TextRange> range =
      memory::ReadTextRange(*generation, *document, *start, *end);
  if (!range.ok()) return ErrorResponse(range.status());
  Json json = DocumentJson(*document);
  json["start"] = range->start;
  json["end"] = range->end;
  json["text"] = std::move(range->text);
  return {.body = answer::JsonText(json)};
}

HttpResponse Service::DeleteDocument(const Call& call) const {
  Json deleted;
  const auto remove = [&](memory::Memory& memory) -> absl::Status {
    std::string id;
    {
      // Not looked at after that: what somebody looks at is not freed.
      const auto generation = memory.Current();
      ASSIGN_OR_RETURN(const DocumentRecord document,
                       FindVisible(*generation, call.access, call.rest));
      id = document.id;
      deleted = DocumentJson(document);
    }
    const auto goes = [&](const DocumentRecord& document, const storage::SourceReference& source) {
      return document.id == id && call.access.Allows(source.collection);
    };
    return memory.RemoveForGood(goes, Progress()).status;
  };
  const absl::Status status = parts_.writer->Change(remove);
  if (!status.ok()) return StorageErrorResponse(status);
  deleted["deleted"] = true;
  return {.body = answer::JsonText(deleted)};
}

}  // namespace fovea::serve
