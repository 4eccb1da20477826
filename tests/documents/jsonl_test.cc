#include <map>

#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

using namespace std::string_view_literals;

class JsonlTest : public DocumentFilesTest {};

TEST_F(JsonlTest, GivesOneDocumentARecord) {
  const auto path = Write(
      "a.jsonl",
      "\xEF\xBB\xBF{\"text\": \"one \\u20ac \\ud83d\\ude00\", \"title\": \" The\\n One \", \"id\": "
      "\"x/1\", \"collection\": \"left\"}\r\n"
      "\n"
      "{\"id\": 7, \"n\": {\"text\": [1, {\"id\": null}]}, \"text\": \"two\\n\"}\n"
      "{\"text\": \"three\", \"title\": null, \"other\": 1e5}");
  std::vector<Visited> visited = Visit(path);
  ASSERT_EQ(visited.size(), 3u);
  for (const Visited& visit : visited) {
    ASSERT_TRUE(visit.status.ok()) << visit.status;
    EXPECT_EQ(visit.source, visit.document->source);
    EXPECT_EQ(visit.document->size_bytes(), std::filesystem::file_size(path));
  }
  EXPECT_EQ(visited[0].document->source, path.native() + "#x/1");
  EXPECT_EQ(visited[0].document->title, "The One");
  EXPECT_EQ(visited[0].document->collection, "left");
  EXPECT_TRUE(visited[0].document->replaceable);
  EXPECT_EQ(*ReadText(*visited[0].document), "one € 😀");
  EXPECT_EQ(visited[1].document->source, path.native() + "#7");
  EXPECT_TRUE(visited[1].document->replaceable);
  EXPECT_EQ(*ReadText(*visited[1].document), "two\n");
  EXPECT_EQ(visited[2].document->source, path.native() + "#4");
  EXPECT_FALSE(visited[2].document->replaceable);
  EXPECT_EQ(visited[2].document->title, "");
  EXPECT_EQ(*ReadText(*visited[2].document), "three");
}

TEST_F(JsonlTest, TakesAnyValueInFieldsThatItDoesNotRead) {
  const std::string records[] = {
      R"({"text": "a", "score": NaN})",
      R"({"score": -Infinity, "more": [Infinity, {"x": NaN}], "text": "a"})",
      R"({"text": "a", "n": 1e999, "m": -123456789012345678901234567890, "o": 0.1E-999})",
      R"({"text": "a", "n": )" + std::string(400, '9') + "}",
      R"({"text": "a", "n": NaN, "title": "NaN \" Infinity, -Infinity 1e999"})",
      R"({"text": "a", "id": 123456789012345678901234})",
      R"({"meta": "\ud83d cut, \udc00, \ud83d\ude00, \\ud83d, \ud83d\ud83d\ude00", "text": "a"})",
  };
  std::string lines;
  for (const std::string& record : records) lines += record + "\n";
  const std::vector<Visited> visited = Visit(Write("a.jsonl", lines));
  ASSERT_EQ(visited.size(), std::size(records));
  for (const Visited& visit : visited) {
    ASSERT_TRUE(visit.status.ok()) << visit.status;
    EXPECT_EQ(*ReadText(*visit.document), "a");
  }
  EXPECT_EQ(visited[4].document->title, "NaN \" Infinity, -Infinity 1e999");
  EXPECT_THAT(visited[5].source, ::testing::EndsWith("#123456789012345678901234"));
}

TEST_F(JsonlTest, BytesOfFieldsThatItDoesNotReadMayBeAny) {
  const std::string records[] = {
      "{\"meta\": \"caf\xE9\", \"text\": \"a\"}",
      "{\"text\": \"a\", \"meta\": {\"k\xFF\": [\"\xC3\", \"\xED\xA0\x80\", \"\xF0\x9F\"]}}",
      "{\"text\": \"a\", \"te\xFFxt\": \"b\", \"m\": \"\xFF\\\"\xFF\\\\\"}",
      std::string("{\"text\": \"a\", \"m\": \"tab\t nul\0 \x01\"}"sv),
      R"({"text": "a", "m": "\x41 \u12 \u00zz \' C:\dir"})",
  };
  std::string lines;
  for (const std::string& record : records) lines += record + "\n";
  const std::vector<Visited> visited = Visit(Write("a.jsonl", lines));
  ASSERT_EQ(visited.size(), std::size(records));
  for (const Visited& visit : visited) {
    ASSERT_TRUE(visit.status.ok()) << visit.status;
    EXPECT_EQ(*ReadText(*visit.document), "a");
  }
  // Of a field that is read they are an error, whatever they might stand for.
  for (const std::string_view field : {"text", "title", "id", "collection"}) {
    for (const std::string_view value : {"caf\xE9", "a\tb", "a\\x", "\xFF"}) {
      std::string record = "{\"meta\": \"\xFF\", ";
      record += field == "text" ? "" : "\"text\": \"a\", ";
      record += "\"" + std::string(field) + "\": \"" + std::string(value) + "\"}\n";
      EXPECT_THAT(
          OpenError(Write("b.jsonl", record)),
          IsStatus(absl::StatusCode::kInvalidArgument, "b.jsonl, line 1: not a JSON record"))
          << record;
    }
  }
  // As are bytes that are no part of a string.
  EXPECT_THAT(OpenError(Write("b.jsonl", "{\"text\": \"a\", \xFF\"m\": 1}")),
              IsStatus(absl::StatusCode::kInvalidArgument, "not a JSON record"));
}

TEST_F(JsonlTest, HalfASurrogatePairIsAReplacementCharacter) {
  const std::vector<Visited> visited = Visit(Write(
      "a.jsonl",
      R"({"text": "\ud83d cut \udc00 \ud83d\ude00 \\ud83d \uD83D\ud83d\uDE00", "x": "\udfff"})"
      "\n"));
  ASSERT_EQ(visited.size(), 1u);
  ASSERT_TRUE(visited[0].status.ok()) << visited[0].status;
  EXPECT_EQ(*ReadText(*visited[0].document),
            "\uFFFD cut \uFFFD \U0001F600 \\ud83d \uFFFD\U0001F600");
  EXPECT_THAT(visited[0].document->warning, ::testing::HasSubstr("stored as U+FFFD"));
}

TEST_F(JsonlTest, ATitleWithHalfASurrogatePairIsShownAndSaid) {
  const std::vector<Visited> visited =
      Visit(Write("a.jsonl", R"({"text": "a", "title": "A \udc00 day"})"
                             "\n"
                             R"({"text": "b", "title": "A \ufffd day"})"
                             "\n"
                             R"({"text": "c", "meta": "\udc00"})"));
  ASSERT_EQ(visited.size(), 3u);
  for (const Visited& visit : visited) ASSERT_TRUE(visit.status.ok()) << visit.status;
  EXPECT_EQ(visited[0].document->title, "A \uFFFD day");
  EXPECT_THAT(visited[0].document->warning, ::testing::HasSubstr("stored as U+FFFD"));
  EXPECT_EQ(visited[1].document->title, "A \uFFFD day");
  EXPECT_EQ(visited[1].document->warning, "");
  EXPECT_EQ(visited[2].document->warning, "");  // of what is not stored nothing is said
}

TEST_F(JsonlTest, NamesWithHalfASurrogatePairAreRefused) {
  for (const std::string_view field : {"id", "collection"}) {
    for (const std::string_view half : {R"(\ud800)", R"(x\uDFFFy)", R"(\ud83d\ud83d\ude00)"}) {
      const std::string name(field);
      const auto path = Write("a.jsonl", "{\"text\": \"a\", \"meta\": NaN, \"" + name + "\": \"" +
                                             std::string(half) + "\"}\n{\"text\": \"b\"}\n");
      const std::vector<Visited> visited = Visit(path);
      ASSERT_EQ(visited.size(), 2u);
      EXPECT_THAT(visited[0].status,
                  IsStatus(absl::StatusCode::kInvalidArgument,
                           "a.jsonl, line 1: field \"" + name + "\" has half of a surrogate pair"));
      EXPECT_TRUE(visited[1].status.ok()) << visited[1].status;
    }
    // A pair is a character, and U+FFFD is one, too.
    for (const std::string_view whole : {R"(\ud83d\ude00)", R"(\ufffd)", R"(\\ud800)"}) {
      if (field == "collection" && whole.starts_with(R"(\\)")) continue;  // backslashes are refused
      const std::string record =
          "{\"text\": \"\\ud800\", \"" + std::string(field) + "\": \"" + std::string(whole) + "\"}";
      const std::vector<Visited> visited = Visit(Write("b.jsonl", record));
      ASSERT_EQ(visited.size(), 1u);
      EXPECT_TRUE(visited[0].status.ok()) << visited[0].status;
    }
  }
}

TEST_F(JsonlTest, ABadLineIsOneFailedDocument) {
  const std::pair<std::string, std::string> bad[] = {
      {"not json", "not a JSON record: at byte 2: syntax error"},
      {"{\"text\": \"cut", "not a JSON record: at byte"},
      {"{\"text\": \"a\"} {}", "not a JSON record"},
      {"[\"text\"]", "want an object with the field \"text\""},
      {"\"text\"", "want an object with the field \"text\""},
      {"17", "want an object with the field \"text\""},
      {"null", "want an object with the field \"text\""},
      {"{\"txt\": \"a\"}", "has no field \"text\""},
      {"{\"text\": 17}", "field \"text\" is a number, want a string"},
      {"{\"text\": NaN}", "has no field \"text\""},
      {"{\"text\": 1e999}", "field \"text\" is a number, want a string"},
      {"{\"text\": \"a\", \"id\": 1e999}", "field \"id\" is a number, want a string"},
      {"{\"text\": \"a\", \"n\": nan}", "not a JSON record: at byte"},
      {"{\"text\": \"a\", \"n\": NaN, }", "not a JSON record: at byte"},
      {"{\"text\": \"a\", \"n\": +Infinity}", "not a JSON record: at byte"},
      {"{\"text\": \"a\", \"n\": 1e999.5}", "not a JSON record"},
      {"{\"text\": [\"a\"]}", "field \"text\" is an array, want a string"},
      {"{\"text\": \"a\", \"title\": {}}", "field \"title\" is an object, want a string"},
      {"{\"text\": \"a\", \"id\": true}", "field \"id\" is true or false, want a string"},
      {"{\"text\": \" \\n\"}", "empty: nothing to store"},
      {"{\"text\": \"a\\u0000b\"}", "field \"text\": not text: NUL byte at byte offset 1"},
      {"{\"text\": \"caf\xE9\"}", "ill-formed UTF-8 byte; last read: '\"caf\\xE9"},
      {"{\"text\": \"a\", \"id\": \"" + std::string(1025, 'x') + "\"}",
       "field \"id\" has 1025 bytes, want at most 1024"},
      {std::string("\0", 1), "not a JSON record"},
  };
  std::string bytes;
  for (const auto& [line, message] : bad) bytes += line + "\n{\"text\": \"good\"}\n";
  const auto path = Write("a.jsonl", bytes);
  std::vector<Visited> visited = Visit(path);
  ASSERT_EQ(visited.size(), 2 * std::size(bad));
  for (size_t i = 0; i < std::size(bad); ++i) {
    const std::string number = std::to_string(2 * i + 1);
    EXPECT_EQ(visited[2 * i].source, path.native() + "#" + number);
    EXPECT_THAT(visited[2 * i].status, IsStatus(absl::StatusCode::kInvalidArgument, bad[i].second));
    EXPECT_THAT(visited[2 * i].status,
                IsStatus(absl::StatusCode::kInvalidArgument, "a.jsonl, line " + number));
    ASSERT_TRUE(visited[2 * i + 1].status.ok());
  }
}

TEST_F(JsonlTest, BlamesWhatIsAtFault) {
  // What is no fault, though JSON does not have it, in front of one.
  const std::string fronts[] = {R"("x":1e999,)",
                                R"("x":NaN,"y":[NaN,NaN],)",
                                R"("x":-Infinity,"y":Infinity,)",
                                "\"x\":\"caf\xE9\",",
                                R"("x":"\ud83d",)",
                                R"("x":[1e999,NaN,"\q"],)",
                                ""};
  const std::pair<std::string, size_t> faults[] = {{"\"w\":01}", 6},
                                                   {"\"w\":1.}", 7},
                                                   {"\"w\":1e999.5}", 10},
                                                   {"\"w\":tru}", 8},
                                                   {"\"w\":-01e999}", 11}};
  for (const std::string& front : fronts) {
    for (const auto& [fault, at] : faults) {
      const std::string line = "{\"text\":\"a\"," + front + fault;
      const size_t byte = line.size() - fault.size() + at;
      const std::string message(OpenError(Write("a.jsonl", line)).message());
      EXPECT_THAT(message, ::testing::HasSubstr("a.jsonl, line 1: not a JSON record: at byte " +
                                                std::to_string(byte) + ": "))
          << line;
      EXPECT_THAT(message, ::testing::Not(::testing::HasSubstr("overflow"))) << line;
    }
  }
}

TEST_F(JsonlTest, ALineOverTheLimitIsPassedOverAndTheOthersGoOn) {
  ReadLimits limits;
  limits.max_jsonl_line_bytes = 1 << 20;
  const auto record = [](size_t n) { return "{\"text\": \"" + std::string(n, 'a') + "\"}"; };
  const size_t frame = record(0).size();
  for (const size_t excess : {1u, 300000u, 5000000u}) {
    const auto path = Write("a.jsonl", record(3) + "\n" + record((1 << 20) - frame + excess) +
                                           "\n" + record((1 << 20) - frame) + "\n" + record(5));
    std::vector<Visited> visited = Visit(path, limits);
    ASSERT_EQ(visited.size(), 4u);
    EXPECT_EQ(*ReadText(*visited[0].document), "aaa");
    EXPECT_THAT(visited[1].status, IsStatus(absl::StatusCode::kResourceExhausted,
                                            "a.jsonl, line 2: longer than 1048576 bytes"));
    EXPECT_EQ(ReadText(*visited[2].document)->size(), (1u << 20) - frame);
    EXPECT_EQ(*ReadText(*visited[3].document), "aaaaa");
  }
  const auto path = Write("last.jsonl", record(3) + "\n" + record(3 << 20));
  std::vector<Visited> visited = Visit(path, limits);
  ASSERT_EQ(visited.size(), 2u);
  EXPECT_THAT(visited[1].status, IsStatus(absl::StatusCode::kResourceExhausted, "line 2"));
}

TEST_F(JsonlTest, DeepNestingIsReadWithoutHarm) {
  const std::string deep = std::string(2000000, '[') + std::string(2000000, ']');
  const auto path = Write("a.jsonl", "{\"x\": " + deep + ", \"text\": \"found\"}\n");
  EXPECT_EQ(TextOf(path), "found");
  EXPECT_THAT(OpenError(Write("b.jsonl", "{\"x\": " + std::string(2000000, '['))),
              IsStatus(absl::StatusCode::kInvalidArgument, "not a JSON record"));
}

TEST_F(JsonlTest, Utf16IsNamed) {
  const std::vector<Visited> visited =
      Visit(Write("a.jsonl", std::string("\xFF\xFE{\0}\0\n\0{\0", 10)));
  ASSERT_EQ(visited.size(), 1u);
  EXPECT_THAT(visited[0].status, IsStatus(absl::StatusCode::kInvalidArgument, "a.jsonl: UTF-16"));
}

TEST_F(JsonlTest, AFileWithoutRecordsIsEmpty) {
  for (const std::string_view bytes : {"", "\n\n \r\n"}) {
    EXPECT_THAT(OpenError(Write("a.jsonl", bytes)),
                IsStatus(absl::StatusCode::kInvalidArgument, "a.jsonl: empty: nothing to store"));
  }
}

TEST_F(JsonlTest, StopsWithTheVisitorsError) {
  const auto path = Write("a.jsonl", "{\"text\": \"1\"}\nbad\n{\"text\": \"2\"}\n");
  int n_visits = 0;
  const absl::Status status =
      ReadDocuments(path, ReadLimits(), [&](const std::string&, auto document) -> absl::Status {
        ++n_visits;
        return document.ok() ? absl::OkStatus() : absl::CancelledError("enough");
      });
  EXPECT_THAT(status, IsStatus(absl::StatusCode::kCancelled, "enough"));
  EXPECT_EQ(n_visits, 2);
}

TEST_F(JsonlTest, NoticesAFileThatShrinksWhileItIsRead) {
  std::string bytes;
  for (int i = 0; i < 100000; ++i) bytes += "{\"text\": \"some text\"}\n";
  const auto path = Write("a.jsonl", bytes);
  absl::Status last;
  int n_visits = 0;
  const absl::Status status =
      ReadDocuments(path, ReadLimits(), [&](const std::string&, auto document) -> absl::Status {
        if (++n_visits == 1) std::filesystem::resize_file(path, 1000);
        last = document.status();
        return absl::OkStatus();
      });
  EXPECT_TRUE(status.ok());
  EXPECT_THAT(last, IsStatus(absl::StatusCode::kAborted, "changed while it was read"));
}

}  // namespace
}  // namespace fovea::documents
