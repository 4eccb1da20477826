#include "serve/completion.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "serve/errors.h"
#include "serve/fields.h"

namespace fovea::serve {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::SizeIs;

absl::StatusOr<CompletionRequest> Chat(const std::string& json) {
  ASSIGN_OR_RETURN(const Json parsed, ParseObject(json));
  return ParseCompletion(CompletionKind::kChat, parsed, "tiny");
}

constexpr char kQuestion[] = R"("messages": [{"role": "user", "content": "Who?"}])";

std::string WithField(const std::string& field) { return StrCat("{", kQuestion, ", ", field, "}"); }

TEST(CompletionTest, ABodyThatIsNoJsonSaysWhatIsWrongAndWhere) {
  const std::pair<std::string, std::string> wrong[] = {
      {R"({"prompt": "a\ud800"})",
       "the body is no JSON object: at byte 20: syntax error while parsing value - invalid string: "
       "half of a surrogate pair (\\uD800 to \\uDFFF alone), which is no character; last read: "
       "'\"a\\ud800\"'"},
      {"{\n\"prompt\": \"a\xFF\"}", "at byte 15: "},
      {"{\"prompt\": \"a\xFF\"}", "ill-formed UTF-8 byte; last read: '\"a\\xFF'"},
      {"{\"prompt\": 1e999}", "the body: number overflow parsing '1e999': want numbers of at most"},
      {"{\"prompt\": ", "unexpected end of input"},
      {"", "unexpected end of input"},
      {"[1]", "the body is no JSON object: its type is array"},
      {"\"x\"", "its type is string"}};
  for (const auto& [body, message] : wrong) {
    const absl::Status status = ParseObject(body).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << body;
    EXPECT_THAT(std::string(status.message()), HasSubstr(message)) << body;
    EXPECT_THAT(std::string(status.message()), Not(HasSubstr("json.exception"))) << body;
  }
  EXPECT_TRUE(ParseObject(R"({"prompt": "\ud83d\ude00"})").ok());
}

TEST(CompletionTest, DefaultsAreThoseOfAsk) {
  const auto chat = Chat(StrCat("{", kQuestion, "}"));
  ASSERT_TRUE(chat.ok()) << chat.status();
  const answer::AskOptions defaults;
  const answer::AskOptions& ask = chat->request.options;
  EXPECT_EQ(ask.max_tokens, defaults.max_tokens);
  EXPECT_EQ(ask.temperature, defaults.temperature);
  EXPECT_EQ(ask.top_p, defaults.top_p);
  EXPECT_EQ(ask.top_k, defaults.top_k);
  EXPECT_EQ(ask.n_sources, defaults.n_sources);
  EXPECT_EQ(ask.raw, defaults.raw);
  EXPECT_EQ(ask.use_memory, defaults.use_memory);
  EXPECT_EQ(ask.reread, defaults.reread);
  EXPECT_EQ(ask.mode, defaults.mode);
  EXPECT_FALSE(chat->streams);
}

TEST(CompletionTest, ReadsEveryField) {
  const auto chat = Chat(R"({"model": "tiny", "messages": [
      {"role": "developer", "content": "In French."},
      {"role": "user", "content": [{"type": "text", "text": "Wh"}, {"type": "text", "text": "o?"}]}],
    "max_completion_tokens": 7, "temperature": 0.5, "top_p": 0.25, "seed": -1, "stop": "x",
    "stream": true, "stream_options": {"include_usage": true}, "n": 1, "user": "somebody",
    "response_format": {"type": "text"}, "tools": [], "logit_bias": {}, "frequency_penalty": 0.0,
    "fovea": {"collections": ["a", "b"], "documents": "123456", "mode": "exact", "top_k": 4,
              "sources": 0, "reread": 2, "reread_by": "both", "reread_memory": true}})");
  ASSERT_TRUE(chat.ok()) << chat.status();
  const answer::Request& request = chat->request;
  ASSERT_THAT(request.messages, SizeIs(2));
  EXPECT_EQ(request.messages[0].role, model::ChatMessage::Role::kSystem);
  EXPECT_EQ(request.messages[1].content, "Who?");
  EXPECT_EQ(request.options.max_tokens, 7);
  EXPECT_EQ(request.options.temperature, 0.5f);
  EXPECT_EQ(request.options.top_p, 0.25f);
  EXPECT_EQ(request.options.seed, ~uint64_t{0});
  EXPECT_THAT(request.options.stop, ElementsAre("x"));
  EXPECT_THAT(request.options.scope.collections, ElementsAre("a", "b"));
  EXPECT_THAT(request.options.scope.documents, ElementsAre("123456"));
  EXPECT_EQ(request.options.mode, memory::SearchMode::kExact);
  EXPECT_EQ(request.options.top_k, 4);
  EXPECT_EQ(request.options.n_sources, 0);
  EXPECT_EQ(request.options.reread, 2);
  EXPECT_EQ(request.options.reread_by, answer::RereadBy::kBoth);
  EXPECT_EQ(request.options.reread_memory, true);
  EXPECT_TRUE(chat->streams);
  EXPECT_TRUE(chat->includes_usage);
}

TEST(CompletionTest, NamesTheFieldThatIsWrong) {
  for (const auto& [field, name] : std::vector<std::pair<std::string, std::string>>{
           {R"("max_tokens": 1.5)", "max_tokens"},
           {R"("max_tokens": 99999999999)", "max_tokens"},
           {R"("seed": 18446744073709551615)", "seed"},
           {R"("temperature": "warm")", "temperature"},
           {R"("stop": [1])", "stop"},
           {R"("stream": 1)", "stream"},
           {R"("n": 2)", "n:"},
           {R"("logprobs": true)", "logprobs"},
           {R"("tools": [{}])", "tools"},
           {R"("response_format": {"type": "json_object"})", "response_format"},
           {R"("fovea": [])", "fovea"},
           {R"("fovea": {"colections": []})", "fovea.colections"},
           {R"("fovea": {"mode": "fast"})", "fovea.mode"},
           {R"("fovea": {"reread": -1})", "fovea.reread"}}) {
    const auto chat = Chat(WithField(field));
    ASSERT_EQ(chat.status().code(), absl::StatusCode::kInvalidArgument) << field;
    EXPECT_THAT(std::string(chat.status().message()), HasSubstr(name)) << field;
  }
  EXPECT_EQ(Chat(WithField(R"("model": "other")")).status().code(), absl::StatusCode::kNotFound);
}

TEST(CompletionTest, RefusesMessagesThatAreNone) {
  for (const char* messages :
       {"1", "[]", "[1]", R"([{"role": "user"}])", R"([{"content": "x"}])",
        R"([{"role": "user", "content": [{"type": "image_url"}]}])",
        R"([{"role": "user", "content": [1]}])", R"([{"role": 1, "content": "x"}])"}) {
    EXPECT_EQ(Chat(StrCat(R"({"messages": )", messages, "}")).status().code(),
              absl::StatusCode::kInvalidArgument)
        << messages;
  }
}

TEST(CompletionTest, RefusesWhatIsNestedTooDeep) {
  const std::string deep = std::string(100000, '[') + std::string(100000, ']');
  EXPECT_EQ(ParseObject(StrCat(R"({"x": )", deep, "}")).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(CompletionTest, APromptIsOneText) {
  const auto text = [](const std::string& json) {
    return ParseCompletion(CompletionKind::kText, *ParseObject(json), "tiny");
  };
  EXPECT_TRUE(text(R"({"prompt": "Once"})")->request.options.raw);
  EXPECT_TRUE(text(R"({"prompt": ["Once"]})").ok());
  for (const char* json : {R"({})", R"({"prompt": ["a", "b"]})", R"({"prompt": [1, 2]})",
                           R"({"prompt": "x", "echo": true})"}) {
    EXPECT_EQ(text(json).status().code(), absl::StatusCode::kInvalidArgument) << json;
  }
}

TEST(CompletionTest, AnAnswerThatWasCutShortIsNotPassedOffAsWhole) {
  answer::Answer answer;
  answer.text = "Half an";
  answer.finish_reason = "cancelled";
  CompletionWriter writer(CompletionKind::kChat, "tiny");
  const Json end = writer.End(answer);
  EXPECT_TRUE(end["choices"][0]["finish_reason"].is_null());  // not "length": no limit was met
  EXPECT_EQ(end["fovea_finish_reason"], "cancelled");
  EXPECT_TRUE(end["fovea_sources"].is_array());
}

TEST(CompletionTest, TheMemoryWhilePassagesAreReadIsSwitchedAsByTheCommand) {
  const std::pair<std::string, bool> switched[] = {
      {"true", true}, {"false", false}, {"\"on\"", true}, {"\"off\"", false}};
  for (const auto& [value, want] : switched) {
    const auto chat = Chat(WithField(StrCat(R"("fovea": {"reread_memory": )", value, "}")));
    ASSERT_TRUE(chat.ok()) << chat.status();
    EXPECT_EQ(chat->request.options.reread_memory, want) << value;
  }
  EXPECT_EQ(Chat(WithField(R"("fovea": {"reread_memory": null})"))->request.options.reread_memory,
            std::nullopt);
  for (const char* value : {"1", "\"yes\"", "\"\"", "[]"}) {
    const absl::Status status =
        Chat(WithField(StrCat(R"("fovea": {"reread_memory": )", value, "}"))).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << value;
    EXPECT_EQ(status.message(), "fovea.reread_memory: want true or false, or \"on\" or \"off\"");
  }
}

TEST(ErrorsTest, HaveOpenAisShapeAndAStatus) {
  const HttpResponse response = ErrorResponse(absl::ResourceExhaustedError("later"));
  EXPECT_EQ(response.status, 429);
  const Json error = Json::parse(response.body)["error"];
  EXPECT_EQ(error["message"], "later");
  EXPECT_EQ(error["type"], "rate_limit_error");
  EXPECT_TRUE(error["code"].is_null());
  EXPECT_EQ(BodyErrorResponse(absl::ResourceExhaustedError("large")).status, 413);
  EXPECT_EQ(ErrorResponse(absl::DataLossError("damaged")).status, 500);
  EXPECT_EQ(Json::parse(ErrorResponse(absl::OutOfRangeError("long")).body)["error"]["code"],
            "context_length_exceeded");
}

}  // namespace
}  // namespace fovea::serve
