// Routes that answer questions and find passages.
#include <chrono>
#include <memory>
#include <utility>

#include "documents/utf8.h"
#include "serve/completion.h"
#include "serve/errors.h"
#include "serve/fields.h"
#include "serve/scope.h"
#include "serve/service.h"

namespace fovea::serve {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxJsonBytes = size_t{8} << 20;
// How often it is asked whether the client is still there.
constexpr std::chrono::milliseconds kLook(200);

// An answer that was cut off is no whole one: its status, or the last event of its stream. The
// clients of OpenAI's API make an exception of either.
constexpr int kNotFinishedStatus = 503;
constexpr std::string_view kNotFinishedCode = "cancelled";
constexpr std::string_view kNotFinished =
    "the answer was not finished: the server stops, or the client has closed its side of the "
    "connection";

// Waits for text of the answer, or for its end. A client that goes away wants it no more.
std::string Await(Task* task, const HttpPeer& peer) {
  for (;;) {
    std::string text = task->AwaitText(kLook);
    if (!text.empty() || task->is_done()) return text;
    if (peer.IsGone()) task->Cancel();
  }
}

}  // namespace

HttpResponse Service::ChatCompletion(const Call& call) const {
  return Complete(call, CompletionKind::kChat);
}

HttpResponse Service::TextCompletion(const Call& call) const {
  return Complete(call, CompletionKind::kText);
}

HttpResponse Service::Complete(const Call& call, CompletionKind kind) const {
  const Clock::time_point begin = Clock::now();
  const absl::StatusOr<std::string> body = call.peer.ReadBody(kMaxJsonBytes);
  if (!body.ok()) return BodyErrorResponse(body.status());
  const absl::StatusOr<Json> json = ParseObject(*body);
  if (!json.ok()) return ErrorResponse(json.status());
  absl::StatusOr<CompletionRequest> completion = ParseCompletion(kind, *json, model_);
  if (absl::IsNotFound(completion.status())) {
    return ErrorResponse(404, ToStd(completion.status().message()), "model_not_found");
  }
  if (!completion.ok()) return ErrorResponse(completion.status());
  answer::AskOptions& ask = completion->request.options;
  const auto generation = parts_.fovea->memory().Current();
  if (ask.use_memory || ask.reread.value_or(0) > 0) {
    absl::StatusOr<memory::QueryScope> scope =
        Narrow(*generation, call.access, std::move(ask.scope));
    if (!scope.ok()) return ErrorResponse(scope.status());
    ask.scope = *std::move(scope);
  }
  const auto question =
      std::make_shared<Question>(&parts_.fovea->answerer(), std::move(completion->request));
  if (const absl::Status added = parts_.questions->Add(question); !added.ok()) {
    return ErrorResponse(added);
  }

  // What is wrong with a question shows before its first token, and is a status then.
  const std::string first = Await(question.get(), call.peer);
  const double first_seconds = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto finish = [this, question, first_seconds, access = call.access] {
    answer::Answer answer = *question->answer();
    HideOthers(*parts_.fovea->memory().Current(), access, &answer.sources);
    parts_.metrics->CountAnswer(answer.usage.prompt_tokens, answer.usage.completion_tokens,
                                first_seconds, answer.timing.decode_ms_per_token / 1e3);
    return answer;
  };
  if (!completion->streams || question->is_done()) {
    while (!question->is_done()) Await(question.get(), call.peer);
    if (!question->answer().ok()) return ErrorResponse(question->answer().status());
  }
  const auto writer = std::make_shared<CompletionWriter>(kind, model_);
  const bool has_begun = completion->streams && !first.empty();
  if (!has_begun && question->is_done() && question->answer()->finish_reason == "cancelled") {
    return ErrorResponse(kNotFinishedStatus, kNotFinished, kNotFinishedCode);
  }
  if (!completion->streams) return {.body = answer::JsonText(writer->Whole(finish()))};

  HttpResponse response;
  response.content_type = "text/event-stream";
  response.headers = {{"X-Accel-Buffering", "no"}};
  response.stream = [question, writer, first, finish,
                     includes_usage = completion->includes_usage](const HttpWrite& write) {
    bool is_open = true;
    for (std::string text = first;;) {
      if (!text.empty() && is_open) is_open = write(ServerSentEvent(writer->Piece(text)));
      if (!is_open) question->Cancel();
      if (question->is_done()) break;
      text = question->AwaitText(kLook);
    }
    if (!question->answer().ok()) {
      // The status is sent already: an event says it.
      const HttpResponse error = ErrorResponse(question->answer().status());
      write(StrCat("data: ", error.body, "\n\n"));
      return;
    }
    const answer::Answer answer = finish();
    std::string end = ServerSentEvent(writer->End(answer));
    if (answer.finish_reason == "cancelled") {
      // What came by then stays of use, with its sources; that it is not all, an error says.
      end +=
          StrCat("data: ", ErrorBody(kNotFinishedStatus, kNotFinished, kNotFinishedCode), "\n\n");
      write(end);
      return;
    }
    if (includes_usage) end += ServerSentEvent(writer->UsageOnly(answer));
    write(end += kEndOfEvents);
  };
  return response;
}

HttpResponse Service::Search(const Call& call) const {
  const absl::StatusOr<std::string> body = call.peer.ReadBody(kMaxJsonBytes);
  if (!body.ok()) return BodyErrorResponse(body.status());
  const absl::StatusOr<Json> json = ParseObject(*body);
  if (!json.ok()) return ErrorResponse(json.status());
  constexpr int kMostPassages = 100;
  Fields fields(*json);
  fields.AllowOnly({"query", "by", "limit", "collections", "documents"});
  answer::SearchRequest search;
  search.query = fields.Text("query", "");
  if (documents::IsBlank(search.query)) fields.Fail("query", "want a text that is not empty");
  search.n_passages = static_cast<int>(fields.Integer("limit", 10, 1, kMostPassages));
  const absl::StatusOr<answer::RereadBy> by = answer::ParseRereadBy(fields.Text("by", "bm25"));
  if (by.ok()) search.by = *by;
  if (!by.ok()) fields.Fail("by", "want attention, bm25 or both");
  search.scope.collections = fields.Texts("collections");
  search.scope.documents = fields.Texts("documents");
  if (!fields.status().ok()) return ErrorResponse(fields.status());
  const auto generation = parts_.fovea->memory().Current();
  absl::StatusOr<memory::QueryScope> scope =
      Narrow(*generation, call.access, std::move(search.scope));
  if (!scope.ok()) return ErrorResponse(scope.status());
  search.scope = *std::move(scope);

  const auto task = std::make_shared<PassageSearch>(&parts_.fovea->answerer(), std::move(search));
  if (const absl::Status added = parts_.questions->Add(task); !added.ok()) {
    return ErrorResponse(added);
  }
  while (!task->is_done()) Await(task.get(), call.peer);
  if (!task->passages().ok()) return ErrorResponse(task->passages().status());
  std::vector<memory::Passage> passages = *task->passages();
  HideOthers(*parts_.fovea->memory().Current(), call.access, &passages);
  Json data = Json::array();
  for (const memory::Passage& passage : passages) {
    Json one = answer::ToJson(passage);
    one["path"] = passage.source;
    one["score"] = passage.score;
    data.push_back(std::move(one));
  }
  return {.body = answer::JsonText(
              {{"object", "list"}, {"by", answer::RereadByName(*by)}, {"data", std::move(data)}})};
}

}  // namespace fovea::serve
