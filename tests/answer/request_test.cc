// Requests: several at a time, their messages, where answers end, and cancellation.
#include "answer/request.h"

#include <atomic>
#include <limits>
#include <thread>

#include "answer/answerer.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/answer/tiny_memory.h"
#include "tests/storage/fault_file_system.h"

namespace fovea::answer {
namespace {

using ::testing::HasSubstr;
using Role = model::ChatMessage::Role;

class RequestTest : public TinyMemoryTest {
 protected:
  void MakeMemory() {
    LoadModel();
    OpenMemory();
    IngestText("animals", "The otter lives by the river.\n\nThe badger digs at night.\n", "nature");
    IngestText("tools", "A hammer drives nails.\n\nA chisel cuts wood.\n", "workshop");
    MakeAnswerer();
  }
  void MakeAnswerer() {
    auto answerer = Answerer::Create(device_.get(), model_.get(), memory_.get());
    ASSERT_TRUE(answerer.ok()) << answerer.status();
    answerer_ = *std::move(answerer);
  }
  void TearDown() override {
    answerer_.reset();
    TinyMemoryTest::TearDown();
  }
  static Request Question(const std::string& question, int max_tokens = 12) {
    Request request;
    request.messages = {{Role::kUser, question}};
    request.options.max_tokens = max_tokens;
    return request;
  }
  // Questions of all kinds: greedy and drawn, with and without the memory, of either collection.
  static std::vector<Request> Mixture() {
    std::vector<Request> requests;
    for (int i = 0; i < 8; ++i) {
      Request request = Question(i % 2 == 0 ? "Where does the otter live?" : "What cuts wood?");
      request.options.temperature = i % 3 == 0 ? 0.0f : 0.9f;
      request.options.top_p = i % 3 == 2 ? 0.8f : 1.0f;
      request.options.seed = static_cast<uint64_t>(i);
      request.options.reread_memory = i % 4 != 0;
      if (i >= 4) request.options.reread = 0;
      if (i == 5) request.options.scope.collections = {"workshop"};
      if (i == 6) request.options.reread_by = RereadBy::kBoth, request.options.reread = 1;
      requests.push_back(std::move(request));
    }
    return requests;
  }
  static void ExpectSame(const absl::StatusOr<Answer>& answer, const absl::StatusOr<Answer>& want) {
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_TRUE(want.ok()) << want.status();
    EXPECT_EQ(answer->question, want->question);
    EXPECT_EQ(answer->text, want->text);
    EXPECT_EQ(answer->finish_reason, want->finish_reason);
    EXPECT_EQ(answer->usage.prompt_tokens, want->usage.prompt_tokens);
    EXPECT_EQ(answer->usage.completion_tokens, want->usage.completion_tokens);
    ASSERT_EQ(answer->sources.size(), want->sources.size());
    for (size_t i = 0; i < want->sources.size(); ++i) {
      EXPECT_EQ(answer->sources[i].slot_begin, want->sources[i].slot_begin);
      EXPECT_EQ(answer->sources[i].mass, want->sources[i].mass);
    }
  }

  std::unique_ptr<Answerer> answerer_;
};

// The text of an answer without its marks.
std::string WithoutMarks(const Answer& answer) {
  std::string text = answer.text;
  for (auto mark = answer.marks->rbegin(); mark != answer.marks->rend(); ++mark) {
    text.erase(mark->start - 1, mark->end - mark->start + 1);  // with the space before it
  }
  return text;
}

TEST_F(RequestTest, MarksNameSourcesAndChangeNothingElse) {
  MakeMemory();
  for (Request request : Mixture()) {
    request.options.n_sources = 2;
    const absl::StatusOr<Answer> plain = answerer_->Run(request);
    ASSERT_TRUE(plain.ok()) << plain.status();
    EXPECT_FALSE(plain->marks.has_value());
    request.options.marks = true;
    std::string streamed;
    request.stream = [&](std::string_view piece) {
      streamed += piece;
      return true;
    };
    const absl::StatusOr<Answer> answer = answerer_->Run(request);
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_TRUE(answer->marks.has_value());
    EXPECT_EQ(WithoutMarks(*answer), plain->text);
    EXPECT_EQ(streamed.substr(0, answer->text.size()), answer->text);
    EXPECT_EQ(streamed.find_first_not_of(" \t\r\n", answer->text.size()), std::string::npos);
    EXPECT_EQ(answer->usage.completion_tokens, plain->usage.completion_tokens);
    EXPECT_LE(answer->sources.size(), 2U);
    int n_named = 0;  // sources are numbered as the text first names them
    for (const SourceMark& mark : *answer->marks) {
      EXPECT_EQ(answer->text.substr(mark.start, mark.end - mark.start),
                StrCat("[", mark.source, "]"));
      EXPECT_LE(mark.source, n_named + 1);
      n_named = std::max(n_named, mark.source);
    }
    EXPECT_LE(static_cast<size_t>(n_named), answer->sources.size());
  }
}

TEST_F(RequestTest, MarksNameWhatHasTheWordsOfTheAnswer) {
  ASSERT_TRUE(
      memory::WriteTinyModel(folder_ / "model", /*seed=*/7, kMaxPositions, /*says=*/"lives ").ok());
  MakeMemory();
  for (const int reread : {0, 1}) {
    Request request = Question("Where does the otter live?");
    request.options.marks = true;
    request.options.reread = reread;
    request.options.scope.collections = {"nature"};
    const absl::StatusOr<Answer> answer = answerer_->Run(request);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->text, "lives lives [1]");
    ASSERT_EQ(answer->marks->size(), 1U);
    EXPECT_EQ(answer->sources[0].source, "animals");
    request.options.scope.collections = {"workshop"};
    const absl::StatusOr<Answer> other = answerer_->Run(request);
    ASSERT_TRUE(other.ok()) << other.status();
    EXPECT_EQ(other->text, "lives lives");
    EXPECT_EQ(other->sources.size(), 1U);
  }
}

TEST_F(RequestTest, AConversationGoesOnWithoutItsMarks) {
  ASSERT_TRUE(
      memory::WriteTinyModel(folder_ / "model", /*seed=*/7, kMaxPositions, /*says=*/"lives ").ok());
  MakeMemory();
  int64_t prompt_tokens[2] = {};
  for (const bool marks : {false, true}) {
    Conversation conversation;
    for (const char* question : {"Where does the otter live?", "And the badger?"}) {
      Request request = Question(question);
      request.options.reread = 0;
      request.options.scope.collections = {"nature"};
      request.options.marks = marks;
      request.conversation = &conversation;
      const absl::StatusOr<Answer> answer = answerer_->Run(request);
      ASSERT_TRUE(answer.ok()) << answer.status();
      prompt_tokens[marks ? 1 : 0] = answer->usage.prompt_tokens;
      if (marks) {
        EXPECT_THAT(*answer->marks, ::testing::SizeIs(1U));
      }
    }
  }
  EXPECT_EQ(prompt_tokens[0], prompt_tokens[1]);
}

TEST_F(RequestTest, NoSourcesNoMarks) {
  MakeMemory();
  Request request = Question("Where does the otter live?");
  request.options.marks = true;
  request.options.n_sources = 0;
  EXPECT_THAT(*answerer_->Run(request)->marks, ::testing::IsEmpty());
  request.options.n_sources = 3;
  request.options.use_memory = false;
  request.options.reread = 0;
  EXPECT_THAT(*answerer_->Run(request)->marks, ::testing::IsEmpty());
}

TEST_F(RequestTest, ThreadsThatAskAtOnceGetTheAnswersThatTheyWouldGetAlone) {
  MakeMemory();
  const std::vector<Request> requests = Mixture();
  std::vector<absl::StatusOr<Answer>> alone;
  for (const Request& request : requests) alone.push_back(answerer_->Run(request));
  constexpr size_t kThreads = 3;
  std::vector<std::vector<absl::StatusOr<Answer>>> together(kThreads);
  std::vector<std::thread> threads;
  for (size_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      // Each in an order of its own.
      for (size_t i = 0; i < requests.size(); ++i) {
        together[t].push_back(answerer_->Run(requests[(i + 3 * t) % requests.size()]));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (size_t t = 0; t < kThreads; ++t) {
    for (size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(StrCat("thread ", t, ", request ", i));
      ExpectSame(together[t][i], alone[(i + 3 * t) % requests.size()]);
    }
  }
}

TEST_F(RequestTest, SeveralRequestsInOneCallAreAnsweredInTheirOrder) {
  MakeMemory();
  std::vector<Request> requests = Mixture();
  requests.insert(requests.begin() + 2, Question(" "));
  const std::vector<absl::StatusOr<Answer>> answers = answerer_->RunAll(requests);
  ASSERT_EQ(answers.size(), requests.size());
  for (size_t i = 0; i < requests.size(); ++i) {
    SCOPED_TRACE(i);
    if (i == 2) {
      EXPECT_TRUE(absl::IsInvalidArgument(answers[i].status())) << answers[i].status();
    } else {
      ExpectSame(answers[i], answerer_->Run(requests[i]));
    }
  }
  EXPECT_TRUE(answerer_->RunAll({}).empty());
}

TEST_F(RequestTest, QuestionsAreAnsweredWhileTheMemoryChanges) {
  MakeMemory();
  const Request request = Question("Where does the otter live?", 4);
  std::atomic<bool> is_done{false};
  std::vector<absl::Status> failures;
  std::thread asking([&] {
    while (!is_done) {
      if (const auto answer = answerer_->Run(request); !answer.ok()) {
        failures.push_back(answer.status());
      }
    }
  });
  // Deleting publishes a new generation each time, and needs no model.
  while (!memory_->Current()->documents.empty()) {
    if (memory_->Current()->documents.size() == 1) break;
    ASSERT_TRUE(memory_->DeleteDocuments({memory_->Current()->documents[0].number}).ok());
    ASSERT_TRUE(memory_->RebuildTextIndex(Progress()).ok());
  }
  is_done = true;
  asking.join();
  for (const absl::Status& failure : failures) ADD_FAILURE() << failure;
}

TEST_F(RequestTest, QuestionsAreAnsweredWhileTheModelEncodesDocumentsOnADeviceOfItsOwn) {
  MakeMemory();
  // Of the other collection, so that the answers stay what they are.
  std::vector<Request> requests = Mixture();
  for (Request& request : requests) request.options.scope.collections = {"nature"};
  std::vector<absl::StatusOr<Answer>> alone;
  for (const Request& request : requests) alone.push_back(answerer_->Run(request));
  const auto device = compute::Device::Create("cpu", 2);
  ASSERT_TRUE(device.ok()) << device.status();
  std::atomic<bool> is_done{false};
  std::thread ingesting([&] {
    memory::IngestOptions options;
    options.device = device->get();
    for (int i = 0; i < 20 && !is_done; ++i) {
      const auto ingester = memory::Ingester::Create(memory_.get(), model_.get(), options);
      ASSERT_TRUE(ingester.ok()) << ingester.status();
      std::string text;
      for (int line = 0; line < 30; ++line) text += StrCat("A saw of number ", i, " cuts wood.\n");
      const std::string name = StrCat("tool", i);
      const auto document = documents::MakeTextDocument(name, name, text);
      ASSERT_TRUE((*ingester)->Add(*document, "workshop").ok());
      const absl::Status status = (*ingester)->Finish();
      ASSERT_TRUE(status.ok()) << status;
    }
  });
  for (int round = 0; round < 3; ++round) {
    for (size_t i = 0; i < requests.size(); ++i) {
      SCOPED_TRACE(i);
      const auto answer = answerer_->Run(requests[i]);
      EXPECT_TRUE(answer.ok()) << answer.status();
      if (answer.ok() && alone[i].ok()) {
        EXPECT_EQ(answer->text, alone[i]->text);
      }
    }
  }
  is_done = true;
  ingesting.join();
  EXPECT_GT(memory_->Current()->documents.size(), 2u);
}

TEST_F(RequestTest, TurnsInTheRequestAreWorthThoseOfAConversation) {
  MakeMemory();
  Conversation conversation;
  Request first = Question("Hello there");
  first.options.reread = 0;
  first.conversation = &conversation;
  const auto opening = answerer_->Run(first);
  ASSERT_TRUE(opening.ok()) << opening.status();
  ASSERT_NE(opening->text, "");
  Request next = first;
  next.messages = {{Role::kUser, "And then?"}};
  const auto chatted = answerer_->Run(next);
  Request whole = first;
  whole.conversation = nullptr;
  whole.messages = {
      {Role::kUser, "Hello there"}, {Role::kAssistant, opening->text}, {Role::kUser, "And then?"}};
  const auto answer = answerer_->Run(whole);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_TRUE(chatted.ok()) << chatted.status();
  EXPECT_EQ(answer->text, chatted->text);
  // What of the prompt was run before is not run again, and its attention not counted again.
  EXPECT_EQ(answer->usage.prompt_tokens, chatted->usage.prompt_tokens);
}

TEST_F(RequestTest, TurnsThatDoNotFitLeaveTheWindow) {
  MakeMemory();
  Request request = Question("");
  request.options.reread = 0;
  request.messages.clear();
  for (int turn = 0; turn < 8; ++turn) {
    request.messages.push_back({Role::kUser, std::string(100, static_cast<char>('a' + turn))});
    request.messages.push_back({Role::kAssistant, "yes"});
  }
  request.messages.push_back({Role::kUser, "And then?"});
  const auto answer = answerer_->Run(request);
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_GT(answer->usage.prompt_tokens, 200);
  EXPECT_LE(answer->usage.prompt_tokens + request.options.max_tokens, kMaxPositions);
}

TEST_F(RequestTest, TheSystemMessageIsInThePrompt) {
  MakeMemory();
  Request request = Question("Where does the otter live?");
  const auto bare = answerer_->Run(request);
  request.messages.insert(request.messages.begin(), {Role::kSystem, "Answer in one word."});
  const auto told = answerer_->Run(request);
  request.messages[0].content = "";
  const auto none = answerer_->Run(request);
  ASSERT_TRUE(bare.ok() && told.ok() && none.ok());
  EXPECT_GE(told->usage.prompt_tokens, bare->usage.prompt_tokens + 19);  // a token a byte
  ExpectSame(none, bare);
}

TEST_F(RequestTest, MessagesThatMakeNoSenseAreRefused) {
  MakeMemory();
  const auto refused = [&](std::vector<model::ChatMessage> messages, bool raw = false) {
    Request request = Question("");
    request.messages = std::move(messages);
    request.options.raw = raw;
    const absl::Status status = answerer_->Run(request).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refused({}), HasSubstr("without a question"));
  EXPECT_THAT(refused({{Role::kSystem, "x"}}), HasSubstr("without a question"));
  EXPECT_THAT(refused({{Role::kUser, "x"}, {Role::kAssistant, "y"}}), HasSubstr("last message"));
  EXPECT_THAT(refused({{Role::kAssistant, "x"}}), HasSubstr("message 1 is of role assistant"));
  EXPECT_THAT(refused({{Role::kUser, "x"}, {Role::kSystem, "y"}}),
              HasSubstr("message 2 is of role system, want assistant"));
  EXPECT_THAT(refused({{Role::kSystem, "s"}, {Role::kUser, "x"}}, /*raw=*/true),
              HasSubstr("no system message"));
  EXPECT_THAT(refused({{Role::kUser, "caf\xE9"}}),
              HasSubstr("the question: not UTF-8: byte 0xE9 at byte offset 3"));
  EXPECT_THAT(refused({{Role::kUser, std::string("a\0", 2)}}, /*raw=*/true),
              HasSubstr("the question: not text: NUL byte at byte offset 1: want UTF-8 text"));
  EXPECT_THAT(refused({{Role::kSystem, "\xFF"}, {Role::kUser, "x"}}),
              HasSubstr("the system message: not UTF-8"));
  EXPECT_THAT(refused({{Role::kUser, "x"}, {Role::kAssistant, "\xC3"}, {Role::kUser, "z"}}),
              HasSubstr("message 2: not UTF-8"));
  Conversation conversation;
  Request request = Question("x");
  request.messages = {{Role::kUser, "x"}, {Role::kAssistant, "y"}, {Role::kUser, "z"}};
  request.conversation = &conversation;
  EXPECT_TRUE(absl::IsInvalidArgument(answerer_->Run(request).status()));
}

TEST_F(RequestTest, SamplingOptionsThatMakeNoSenseAreRefused) {
  MakeMemory();
  for (const float top_p : {0.0f, -1.0f, 1.5f, std::numeric_limits<float>::quiet_NaN()}) {
    Request request = Question("x");
    request.options.top_p = top_p;
    EXPECT_TRUE(absl::IsInvalidArgument(answerer_->Run(request).status())) << top_p;
  }
  Request request = Question("x");
  request.options.stop = {"y", ""};
  EXPECT_TRUE(absl::IsInvalidArgument(answerer_->Run(request).status()));
}

TEST_F(RequestTest, AnAnswerEndsBeforeAStopStringThatSpansTokens) {
  MakeMemory();
  Request request = Question("Once upon a time", 60);
  request.options.raw = true;
  request.options.temperature = 1.5f;  // else the tiny model repeats itself at once
  request.options.seed = 4;
  const auto whole = answerer_->Run(request);
  ASSERT_TRUE(whole.ok()) << whole.status();
  ASSERT_GT(whole->text.size(), 24u);
  // Characters of one byte are tokens of their own; of more bytes, several: three bytes and more
  // are never one token.
  size_t begin = whole->text.size() / 2;
  while ((static_cast<unsigned char>(whole->text[begin]) & 0xC0) == 0x80) ++begin;
  const std::string stop = whole->text.substr(begin, 6);
  std::string streamed;
  request.options.stop = {"no such text in it", stop};
  request.stream = [&](std::string_view piece) {
    streamed += piece;
    return true;
  };
  const auto cut = answerer_->Run(request);
  ASSERT_TRUE(cut.ok()) << cut.status();
  EXPECT_EQ(cut->text, whole->text.substr(0, whole->text.find(stop)));
  EXPECT_EQ(streamed, cut->text);
  EXPECT_EQ(cut->finish_reason, "stop");
  EXPECT_LT(cut->usage.completion_tokens, whole->usage.completion_tokens);
}

TEST_F(RequestTest, TopPChangesWhatIsDrawnAndTheSeedRepeatsIt) {
  MakeMemory();
  Request request = Question("Once upon a time", 40);
  request.options.temperature = 1.5f;
  request.options.seed = 9;
  const auto all = answerer_->Run(request);
  request.options.top_p = 0.3f;
  const auto nucleus = answerer_->Run(request);
  ASSERT_TRUE(all.ok() && nucleus.ok());
  EXPECT_NE(nucleus->text, all->text);
  ExpectSame(answerer_->Run(request), nucleus);
  // The likeliest token alone is the greedy answer.
  request.options.top_p = 1e-6f;
  const auto likeliest = answerer_->Run(request);
  request.options.temperature = 0.0f;
  ExpectSame(answerer_->Run(request), likeliest);
}

// Cancelled when the first keys are read: within the first piece of the prompt, in a search.
TEST_F(RequestTest, CancellationIsFeltWithinAPromptThatIsBeingRun) {
  // Windows that are long enough for keys and values to lie in files of their own.
  window_ = 400;
  ASSERT_TRUE(memory::WriteTinyModel(folder_ / "model", /*seed=*/7, /*max_positions=*/8192).ok());
  std::string text;
  for (int i = 0; text.size() < 2000; ++i) text += StrCat("otter number ", i, " swims.\n");
  LoadModel();
  OpenMemory();
  IngestText("animals", text);
  memory_.reset();
  for (const size_t n_bytes : {20, 5000}) {
    SCOPED_TRACE(n_bytes);
    storage::FaultFileSystem disk;
    auto reader = memory::Memory::Open(folder_ / "memory", {.file_system = disk.file_system()});
    ASSERT_TRUE(reader.ok()) << reader.status();
    auto answerer = Answerer::Create(device_.get(), model_.get(), reader->get());
    ASSERT_TRUE(answerer.ok()) << answerer.status();
    std::atomic<bool> cancelled{false};
    disk.CallBeforeOpen(".blob", [&] { cancelled = true; });
    Request request = Question(std::string(n_bytes, 'q'));
    request.options.reread = 0;
    request.progress = Progress(nullptr, &cancelled);
    const auto answer = (*answerer)->Run(request);
    ASSERT_TRUE(cancelled);
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->finish_reason, "cancelled");
    EXPECT_EQ(answer->text, "");
    EXPECT_GE(answer->usage.prompt_tokens, static_cast<int64_t>(n_bytes));
    // No token was ever about to be drawn: the prompt did not run to its end.
    EXPECT_EQ(answer->timing.prefill_ms, 0.0);
    // The answerer is as good as before.
    cancelled = false;
    const auto again = (*answerer)->Run(request);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_NE(again->finish_reason, "cancelled");
    EXPECT_GT(again->timing.prefill_ms, 0.0);
  }
}

}  // namespace
}  // namespace fovea::answer
