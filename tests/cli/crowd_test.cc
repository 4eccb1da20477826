// Many processes on one memory: questions beside an ingest, a rebuild, a deletion, a re-encoding.
// What a question sees is always a state that the memory was in, and never one that had gone
// before it was put.
#include <list>
#include <memory>
#include <numeric>
#include <optional>
#include <set>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/run_fovea.h"
#include "tests/memory/tiny_model.h"

namespace fovea::cli {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::Not;

// Sanitizers keep freed memory back, to notice its use.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kMemoryIsKeptBack = true;
#else
constexpr bool kMemoryIsKeptBack = false;
#endif

// The questions that a process answers one by one: `fovea ask -`.
class Dialog {
 public:
  Dialog(const Arguments& arguments, const Environment& environment,
         const std::filesystem::path& folder) {
    int questions[2];
    int answers[2];
    FOVEA_CHECK(pipe2(questions, O_CLOEXEC) == 0 && pipe2(answers, O_CLOEXEC) == 0);
    program_.emplace(arguments, environment, questions[0], folder / "dialog-out",
                     folder / "dialog-err", answers[1]);
    close(questions[0]);
    close(answers[1]);
    question_fd_ = questions[1];
    answer_fd_ = answers[0];
  }
  ~Dialog() {
    if (question_fd_ >= 0) End();
  }
  Json Ask(const std::string& question) {
    const std::string line = question + "\n";
    FOVEA_CHECK(write(question_fd_, line.data(), line.size()) == static_cast<ssize_t>(line.size()));
    std::string answer;
    for (char c = 0; read(answer_fd_, &c, 1) == 1 && c != '\n';) answer += c;
    return Json::parse(answer, nullptr, /*allow_exceptions=*/false);
  }
  ProgramResult End() {
    close(question_fd_);
    question_fd_ = -1;
    close(answer_fd_);
    return program_->Wait();
  }
  const Program& program() const { return *program_; }

 private:
  std::optional<Program> program_;
  int question_fd_ = -1;
  int answer_fd_ = -1;
};

class CrowdTest : public ProgramTest {
 protected:
  void SetUp() override {
    memory_ = Path("memory");
    ASSERT_TRUE(memory::WriteTinyModel(folder_ / "home/models/tiny", /*seed=*/7, 2048).ok());
    // A sealed segment with index files.
    const ProgramResult made = Fovea(
        {"ingest", "--memory", memory_, "--model", "tiny", "--mem-layers", "1,2", "--window", "512",
         "--index", "IVF16,SQ8", "--json", "--quiet", Write("first.txt", Words(1, 5000))});
    ASSERT_EQ(made.code, 0) << made.err;
    n_tokens_ = made.json()["documents"][0]["tokens"];
  }

  Arguments On(Arguments arguments) const {
    arguments.insert(arguments.end(), {"--memory", memory_, "--json", "--quiet"});
    return arguments;
  }
  ProgramResult Run(const Arguments& arguments) const { return Fovea(On(arguments)); }
  Program& Start(const Arguments& arguments) {
    const std::string name = StrCat("process-", ++n_started_);
    const int stdin_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    Program& program = running_.emplace_back(On(arguments), environment_, stdin_fd,
                                             folder_ / (name + "-out"), folder_ / (name + "-err"));
    close(stdin_fd);
    return program;
  }
  static Arguments Question(const std::string& question) {
    return {"ask", question, "--max-tokens", "2", "--sources", "100"};
  }
  static std::set<std::string> Sources(const Json& answer) {
    std::set<std::string> ids;
    for (const Json& source : answer["sources"]) ids.insert(source["document"]);
    return ids;
  }
  // Only one may write; the others say so and can be run again.
  static bool WasRefused(const ProgramResult& result) {
    if (result.code == 0) return false;
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr("is writing to"));
    return true;
  }

  std::string memory_;
  int64_t n_tokens_ = 0;  // of all documents
  int n_started_ = 0;
  std::list<Program> running_;
};

TEST_F(CrowdTest, QuestionsBesideAnIngestAndARebuildSeeWholeDocuments) {
  for (uint32_t round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    Arguments ingest = {"ingest"};
    for (uint32_t i = 0; i < 3; ++i) {
      ingest.push_back(Write(StrCat(round, "-", i, ".txt"), Words(100 + 10 * round + i, 2500)));
    }
    running_.clear();
    Program& ingesting = Start(ingest);
    Program& rebuilding = Start({"rebuild"});
    std::vector<Program*> asking;
    for (int i = 0; i < 6; ++i) asking.push_back(&Start(Question("what is it?")));
    Program& verifying = Start({"verify"});

    std::vector<int64_t> seen;
    for (Program* program : asking) {
      const ProgramResult result = program->Wait();
      EXPECT_EQ(result.code, 0) << result.err;
      const Json answer = result.json();
      ASSERT_TRUE(answer.is_object()) << result.out;
      seen.push_back(answer["usage"]["memory_tokens"]);
    }
    const ProgramResult verified = verifying.Wait();
    EXPECT_EQ(verified.code, 0) << verified.err << verified.out;
    ProgramResult rebuilt = rebuilding.Wait();
    ProgramResult ingested = ingesting.Wait();
    const bool rebuild_refused = WasRefused(rebuilt);
    const bool ingest_refused = WasRefused(ingested);
    EXPECT_FALSE(rebuild_refused && ingest_refused) << rebuilt.err << ingested.err;
    if (rebuild_refused) rebuilt = Run({"rebuild"});
    if (ingest_refused) ingested = Run(ingest);
    EXPECT_EQ(rebuilt.code, 0) << rebuilt.err;
    ASSERT_EQ(ingested.code, 0) << ingested.err;

    std::vector<int64_t> states = {n_tokens_};
    const Json ingest_result = ingested.json();
    for (const Json& document : ingest_result["documents"]) {
      EXPECT_EQ(document["status"], "added");
      states.push_back(states.back() + document["tokens"].get<int64_t>());
    }
    ASSERT_EQ(states.size(), 4u);
    for (const int64_t n_tokens : seen) EXPECT_THAT(states, Contains(n_tokens));
    n_tokens_ = states.back();
    EXPECT_EQ(Run(Question("what is it?")).json()["usage"]["memory_tokens"], n_tokens_);
  }
  const ProgramResult verified = Run({"verify"});
  EXPECT_EQ(verified.code, 0) << verified.out;
}

TEST_F(CrowdTest, QuestionsAfterADeletionDoNotShowTheDocument) {
  Arguments arguments = On(Question("-"));
  Dialog dialog(arguments, environment_, folder_);
  constexpr int kRounds = 8;
  int64_t resident_bytes = 0;
  for (int round = 0; round < kRounds; ++round) {
    SCOPED_TRACE(round);
    const std::string text = Words(200 + static_cast<uint32_t>(round), 2000);
    const ProgramResult ingested = Run({"ingest", Write("passing.txt", text)});
    ASSERT_EQ(ingested.code, 0) << ingested.err;
    const Json document = ingested.json()["documents"][0];
    const std::string id = document["id"];
    // In its own words, so that both ways to its passages lead there.
    const std::string question = text.substr(700, 60);
    Json answer = dialog.Ask(question);
    ASSERT_TRUE(answer.contains("sources")) << answer.dump();
    EXPECT_THAT(Sources(answer), Contains(id));
    EXPECT_EQ(answer["usage"]["memory_tokens"], n_tokens_ + document["tokens"].get<int64_t>());

    const ProgramResult deleted = Run({"docs", "delete", id});
    ASSERT_EQ(deleted.code, 0) << deleted.err;
    for (int i = 0; i < 10; ++i) {
      answer = dialog.Ask(question);
      ASSERT_TRUE(answer.contains("sources")) << answer.dump();
      EXPECT_THAT(Sources(answer), Not(Contains(id)));
      EXPECT_EQ(answer["usage"]["memory_tokens"], n_tokens_);
      if (i > 2) continue;
      // Its space is freed, its index files go, at last the whole store is another one.
      const ProgramResult rebuilt = i == 0   ? Run({"rebuild"})
                                    : i == 1 ? Run({"rebuild", "--reencode"})
                                             : Run({"verify"});
      EXPECT_EQ(rebuilt.code, 0) << rebuilt.err << rebuilt.out;
    }
    if (round == kRounds / 2 - 1) resident_bytes = dialog.program().ResidentBytes();
  }
  const int64_t grown_bytes = dialog.program().ResidentBytes() - resident_bytes;
  if (!kMemoryIsKeptBack) {
    EXPECT_LT(grown_bytes, int64_t{4} << 20);
  }
  RecordProperty("grown_bytes", static_cast<int>(grown_bytes));
  const ProgramResult ended = dialog.End();
  EXPECT_EQ(ended.code, 0) << ended.err;
}

TEST_F(CrowdTest, ManyQuestionsDoNotMakeTheProcessGrow) {
  Dialog dialog(On(Question("-")), environment_, folder_);
  const auto ask = [&](int n_questions) {
    for (int i = 0; i < n_questions; ++i) {
      const Json answer = dialog.Ask(StrCat("what is number ", i, "?"));
      ASSERT_EQ(answer["usage"]["memory_tokens"], n_tokens_) << answer.dump();
    }
  };
  ask(100);
  const int64_t resident_bytes = dialog.program().ResidentBytes();
  ask(400);
  const int64_t grown_bytes = dialog.program().ResidentBytes() - resident_bytes;
  if (!kMemoryIsKeptBack) {
    EXPECT_LT(grown_bytes, int64_t{1} << 20);
  }
  RecordProperty("grown_bytes", static_cast<int>(grown_bytes));
  EXPECT_EQ(dialog.End().code, 0);
}

TEST_F(CrowdTest, QuestionsAndIngestsBesideAReencodingLoseNothing) {
  std::set<std::string> stored;
  for (int round = 0; round < 3; ++round) {
    SCOPED_TRACE(round);
    running_.clear();
    Program& reencoding = Start({"rebuild", "--reencode"});
    for (int i = 0; reencoding.IsRunning(); ++i) {
      const std::string name = StrCat(round, "-", i, ".txt");
      const ProgramResult ingested = Run(
          {"ingest",
           Write(name, Words(1000 + 100 * static_cast<uint32_t>(round) + static_cast<uint32_t>(i),
                             600))});
      if (!WasRefused(ingested)) {
        const Json document = ingested.json()["documents"][0];
        EXPECT_EQ(document["status"], "added");
        stored.insert(document["id"].get<std::string>());
      }
      const ProgramResult asked = Run(Question("what is it?"));
      EXPECT_EQ(asked.code, 0) << asked.err;
      EXPECT_GE(asked.json()["usage"]["memory_tokens"], n_tokens_);
    }
    // An ingest may have been the first to have the lock.
    if (WasRefused(reencoding.Wait())) {
      const ProgramResult again = Run({"rebuild", "--reencode"});
      EXPECT_EQ(again.code, 0) << again.err;
    }
  }
  std::set<std::string> listed;
  for (const std::string& line : Lines(Run({"docs", "list"}).out)) {
    listed.insert(Json::parse(line)["id"]);
  }
  for (const std::string& id : stored) EXPECT_THAT(listed, Contains(id));
  EXPECT_EQ(listed.size(), stored.size() + 1);
  const ProgramResult verified = Run({"verify"});
  EXPECT_EQ(verified.code, 0) << verified.out;
}

}  // namespace
}  // namespace fovea::cli
