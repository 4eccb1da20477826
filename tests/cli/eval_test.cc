// fovea eval as users run it, with the tiny model of random weights.
#include <sys/file.h>

#include <algorithm>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/cli/command_fixture.h"

namespace fovea::cli {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;

class EvalTest : public CommandTest {
 protected:
  void SetUp() override {
    CommandTest::SetUp();
    // What is left behind in it is seen.
    fs::create_directories(folder_ / "tmp");
    environment_["TMPDIR"] = Path("tmp");
    std::string books, questions;
    for (int book = 0; book < 3; ++book) {
      std::string text;
      for (int i = 0; i < 500; ++i) {
        text += StrCat("In room ", i * 7 % 500, " of house ", book, " a lamp was lit. ");
      }
      books += Json{{"text", text}}.dump() + "\n";
      questions += Json{{"context", StrCat("House ", book, " has a red door.")},
                        {"question", StrCat("What has house ", book, "?")},
                        {"answers", {"a red door"}}}
                       .dump() +
                   "\n";
    }
    books_ = Write("books.jsonl", books);
    questions_ = Write("questions.jsonl", questions);
  }
  ProgramResult Eval(const Arguments& more) const {
    Arguments arguments = {"eval"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    for (const char* word :
         {"--model", "tiny", "--mem-layers", "1,2", "--window", "128", "--threads", "2"}) {
      arguments.emplace_back(word);
    }
    return Fovea(arguments);
  }
  bool HasLeftNothing() const { return fs::is_empty(folder_ / "tmp"); }

  std::string books_;
  std::string questions_;
};

TEST_F(EvalTest, OneJsonObjectSaysWhatWasMeasuredOnWhat) {
  const ProgramResult result =
      Eval({"facts", "--texts", books_, "--tokens", "4000,2k", "--facts", "5", "--look-alikes", "1",
            "--mode", "exact,dense", "--seed", "9", "--json", "--quiet"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, IsEmpty());
  ASSERT_THAT(Lines(result.out), SizeIs(1));
  const Json json = result.json();
  EXPECT_THAT(Keys(json),
              ElementsAre("evaluation", "settings", "text_hashes", "rows", "command", "seed",
                          "model", "adapter", "fingerprint", "device", "data", "total_seconds"));
  EXPECT_EQ(json["evaluation"], "facts");
  EXPECT_EQ(json["settings"]["look_alikes"], 1);
  EXPECT_EQ(json["seed"], 9);
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(json["adapter"], "layers:1,2");
  EXPECT_THAT(json["command"].get<std::string>(), HasSubstr(" eval facts --texts "));
  EXPECT_EQ(json["data"][0]["path"], books_);
  EXPECT_THAT(json["data"][0]["sha256"].get<std::string>(), SizeIs(64));
  EXPECT_THAT(json["text_hashes"]["2048"].get<std::string>(), SizeIs(64));
  ASSERT_THAT(json["rows"], SizeIs(4));
  for (const Json& row : json["rows"]) {
    EXPECT_THAT(Keys(row), ElementsAre("tokens", "way", "right", "named", "seconds"));
    EXPECT_THAT(Keys(row["right"]), ElementsAre("percent", "low", "high", "n"));
    EXPECT_EQ(row["right"]["n"], 5);
  }
  EXPECT_EQ(json["rows"][1]["way"], "memory, dense");
  EXPECT_TRUE(HasLeftNothing());
}

TEST_F(EvalTest, PeopleGetATable) {
  const ProgramResult result =
      Eval({"questions", "--questions", questions_, "--ways", "closed,bm25", "--max-tokens", "3"});
  ASSERT_EQ(result.code, 0) << result.err;
  const std::vector<std::string> lines = Lines(result.out);
  ASSERT_THAT(lines, SizeIs(5));
  EXPECT_EQ(lines[0], "questions, questions 3, documents 3");
  EXPECT_THAT(lines[2], testing::MatchesRegex("tokens +way +F1 +exact match +right +named +"
                                              "seconds"));
  EXPECT_THAT(lines[3], AllOf(HasSubstr("closed"), HasSubstr("–")));
  EXPECT_THAT(lines[4], AllOf(HasSubstr("bm25"), HasSubstr("100.0 (43.9–100.0)")));
}

TEST_F(EvalTest, EveryEvaluationRuns) {
  const std::string stories = Write("qa1.txt", "1 Mary is here.\n2 Who is here?\tMary\t1\n");
  const std::string labels = Write("labels", "NUM:a How many ?\nLOC:b Where ?\nHUM:c Who ?\n");
  const std::string nq = Write(
      "nq.jsonl",
      R"({"question": "Who?", "answers": ["I"], "ctxs": [{"text": "I do.", "isgold": true}]})");
  const std::string talks = Write(
      "talks.json",
      R"([{"sample_id": "c", "conversation": {"session_1": [{"speaker": "A", "dia_id": "D1:1", )"
      R"("text": "I ran."}]}, "qa": [{"question": "Who ran?", "answer": "A", "evidence": ["D1:1"]}]}])");
  fs::create_directories(folder_ / "notes");
  Write("notes/a.txt", kOtter);
  Write("notes/questions.jsonl",
        R"({"question": "Who digs?", "answers": ["badger"], "document": "a.txt", )"
        R"("quote": "The badger digs"})");
  const std::vector<Arguments> runs = {
      {"passkey", "--tokens", "1k", "--trials", "2"},
      {"babi", "--questions", stories, "--tokens", "0,1k", "--texts", books_, "--max-tokens", "3"},
      {"nq", "--questions", nq, "--max-tokens", "3"},
      {"conversations", "--questions", talks, "--max-tokens", "3"},
      {"natural", "--documents", Path("notes"), "--max-tokens", "3"},
      {"icl", "--examples", labels, "--questions", labels, "--count", "0,2", "--local", "1",
       "--max-tokens", "3"},
      {"perplexity", "--texts", books_, "--tokens", "500", "--books", "2", "--part", "64",
       "--local", "32"},
      {"r_d", "--texts", books_, "--contexts", "1,2", "--samples", "2", "--context-tokens", "100",
       "--query-tokens", "20"}};
  for (Arguments run : runs) {
    run.insert(run.end(), {"--json", "--quiet"});
    const ProgramResult result = Eval(run);
    ASSERT_EQ(result.code, 0) << run[0] << ": " << result.err;
    EXPECT_EQ(result.json()["evaluation"], run[0]);
    EXPECT_THAT(result.json()["rows"], Not(IsEmpty()));
    EXPECT_THAT(result.json()["text_hashes"], Not(IsEmpty())) << run[0];
  }
  EXPECT_TRUE(HasLeftNothing());
}

TEST_F(EvalTest, AnswersAreWrittenOneALine) {
  const std::string answers = Path("answers.jsonl");
  const ProgramResult result =
      Eval({"questions", "--questions", questions_, "--ways", "closed,bm25", "--max-tokens", "3",
            "--answers", answers, "--quiet"});
  ASSERT_EQ(result.code, 0) << result.err;
  const std::vector<std::string> lines = Lines(Slurp(answers));
  ASSERT_THAT(lines, SizeIs(6));
  for (const std::string& line : lines) {
    const Json json = Json::parse(line);
    EXPECT_THAT(Keys(json),
                ElementsAre("way", "question", "answers", "kind", "answer", "f1", "exact_match",
                            "right", "named", "prompt_tokens", "seconds"));
    EXPECT_THAT(json["answers"], ElementsAre("a red door"));
    EXPECT_EQ(json["named"].is_null(), json["way"] == "closed");
  }
}

TEST_F(EvalTest, ANamedFolderKeepsTheMemories) {
  const Arguments run = {"facts", "--texts",  books_,       "--tokens", "2k",      "--facts",
                         "3",     "--folder", Path("kept"), "--json",   "--quiet", "--max-tokens",
                         "2"};
  const ProgramResult first = Eval(run);
  ASSERT_EQ(first.code, 0) << first.err;
  EXPECT_TRUE(HasLeftNothing());
  const std::string memory =
      (folder_ / "kept" / first.json()["fingerprint"].get<std::string>().substr(0, 12) /
       "facts-2048")
          .string();
  EXPECT_EQ(Fovea({"stats", "--memory", memory, "--json"}).code, 0);
  const ProgramResult again = Eval(run);
  ASSERT_EQ(again.code, 0) << again.err;
  Json a = first.json(), b = again.json();
  for (Json* json : {&a, &b}) {
    json->erase("total_seconds");
    for (Json& row : (*json)["rows"]) row.erase("seconds");
  }
  EXPECT_EQ(a, b);
}

TEST_F(EvalTest, PlotsAreDrawnWhereGnuplotIs) {
  const std::string svg = Path("plot.svg");
  const ProgramResult result =
      Eval({"passkey", "--tokens", "1k", "--trials", "1", "--plot", svg, "--quiet"});
  if (result.code == 0) {
    EXPECT_THAT(Slurp(svg), HasSubstr("<svg"));
  } else {
    EXPECT_THAT(result.err, HasSubstr("apt-get install gnuplot"));
  }
  // Without it nothing is measured first.
  environment_["PATH"] = Path("tmp");
  const ProgramResult without = Eval({"passkey", "--plot", svg});
  EXPECT_EQ(without.code, 1);
  EXPECT_THAT(without.err, HasSubstr("leave --plot out"));
}

TEST_F(EvalTest, InterruptedItLeavesNothing) {
  const std::string path = Write("stdin", "");
  const int stdin_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  Program program({"eval", "passkey", "--tokens", "64k", "--trials", "100000", "--model", "tiny",
                   "--mem-layers", "1,2", "--window", "128"},
                  environment_, stdin_fd, folder_ / "out", folder_ / "err");
  close(stdin_fd);
  while (program.IsRunning() && HasLeftNothing()) usleep(10000);
  program.Signal(SIGINT);
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("interrupted"));
  EXPECT_THAT(result.out, IsEmpty());
  EXPECT_TRUE(HasLeftNothing());
}

TEST_F(EvalTest, WhatAKilledOneHasLeftGoesWithTheNext) {
  const std::string path = Write("stdin", "");
  const int stdin_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const auto start = [&](const std::string& name) {
    return Program({"eval", "passkey", "--tokens", "64k", "--trials", "100000", "--model", "tiny",
                    "--mem-layers", "1,2", "--window", "128"},
                   environment_, stdin_fd, Path(name + ".out"), Path(name + ".err"));
  };
  // What a running one has made in its folder.
  const auto memories = [&] {
    std::vector<fs::path> found;
    std::error_code gone;  // meanwhile
    for (const auto& folder : fs::directory_iterator(folder_ / "tmp")) {
      for (const auto& entry : fs::directory_iterator(folder, gone)) {
        if (entry.is_directory(gone)) found.push_back(entry.path());
      }
    }
    return found;
  };
  Program killed = start("killed");
  while (killed.IsRunning() && memories().empty()) usleep(10000);
  const std::vector<fs::path> left = memories();
  ASSERT_THAT(left, SizeIs(1));
  killed.Signal(SIGKILL);
  EXPECT_EQ(killed.Wait().code, 128 + SIGKILL);
  EXPECT_TRUE(fs::exists(left[0]));
  Program running = start("running");
  close(stdin_fd);
  while (running.IsRunning() && (memories().empty() || memories() == left)) usleep(10000);
  EXPECT_FALSE(fs::exists(left[0]));
  const std::vector<fs::path> in_use = memories();
  ASSERT_THAT(in_use, SizeIs(1));
  // One that runs keeps its own.
  const Arguments brief = {"questions", "--questions",  questions_, "--ways",
                           "closed",    "--max-tokens", "1"};
  ASSERT_EQ(Eval(brief).code, 0);
  EXPECT_EQ(memories(), in_use);
  running.Signal(SIGINT);
  EXPECT_EQ(running.Wait().code, 1);
  EXPECT_TRUE(HasLeftNothing());
}

TEST_F(EvalTest, OnlyOwnFoldersWhoseLockIsFreeAreLeftovers) {
  const fs::path tmp = folder_ / "tmp";
  const auto make = [&](const fs::path& folder) {
    fs::create_directories(folder / "memory/deep");
    std::ofstream(folder / "memory/deep/file") << "text";
    std::ofstream(folder / "lock") << "";
    return folder;
  };
  const fs::path dead = make(tmp / "fovea-eval-dead00");
  const fs::path alive = make(tmp / "fovea-eval-alive0");
  const int lock = open((alive / "lock").c_str(), O_RDWR | O_CLOEXEC);
  ASSERT_EQ(flock(lock, LOCK_EX), 0);
  const fs::path without = make(tmp / "fovea-eval-nolock");
  fs::remove(without / "lock");
  const fs::path other_name = make(tmp / "fovea-evaluation");
  const fs::path elsewhere = make(folder_ / "elsewhere");
  fs::create_directory_symlink(elsewhere, tmp / "fovea-eval-link00");
  const fs::path linked = make(tmp / "fovea-eval-linked");
  fs::remove(linked / "lock");
  fs::create_symlink(elsewhere / "lock", linked / "lock");
  const std::vector<fs::path> others = {alive,     without, other_name,
                                        elsewhere, linked,  tmp / "fovea-eval-link00"};
  ASSERT_EQ(Eval({"questions", "--questions", questions_, "--ways", "closed", "--max-tokens", "1",
                  "--folder", Path("named")})
                .code,
            0);
  EXPECT_FALSE(fs::exists(dead));
  for (const fs::path& folder : others) EXPECT_TRUE(fs::exists(folder / "memory/deep/file"));
  close(lock);
  ASSERT_EQ(
      Eval({"questions", "--questions", questions_, "--ways", "closed", "--max-tokens", "1"}).code,
      0);
  EXPECT_FALSE(fs::exists(alive));
  EXPECT_TRUE(fs::exists(without));
}

TEST_F(EvalTest, SeveralAtOnceDisturbNobody) {
  const std::string path = Write("stdin", "");
  const int stdin_fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  std::vector<Program> programs;
  for (int i = 0; i < 8; ++i) {
    programs.emplace_back(
        Arguments{"eval", "questions", "--questions", questions_, "--ways", "bm25", "--max-tokens",
                  "1", "--model", "tiny", "--mem-layers", "1,2", "--window", "128"},
        environment_, stdin_fd, Path(StrCat("out", i)), Path(StrCat("err", i)));
  }
  close(stdin_fd);
  for (Program& program : programs) {
    const ProgramResult result = program.Wait();
    EXPECT_EQ(result.code, 0) << result.err;
  }
  EXPECT_TRUE(HasLeftNothing());
}

TEST_F(EvalTest, WhatIsWrongIsSaidWithWhatToDo) {
  const auto expect = [&](const Arguments& arguments, int code, const std::string& word) {
    const ProgramResult result = Eval(arguments);
    EXPECT_EQ(result.code, code) << arguments[0];
    EXPECT_THAT(result.err, HasSubstr(word)) << arguments[0];
    EXPECT_THAT(result.out, IsEmpty());
  };
  expect({"facts"}, 1, "--texts FILE");
  expect({"facts", "--texts", books_, "--tokens", "9M"}, 1, "smaller --tokens");
  expect({"facts", "--texts", books_, "--tokens", "many"}, 2, "such as 65536, 64k or 1M");
  expect({"questions"}, 1, "--questions FILE");
  expect({"questions", "--questions", Path("none.jsonl")}, 1, "none.jsonl");
  expect({"questions", "--questions", Write("bad.jsonl", "{}\n")}, 1, "bad.jsonl, line 1");
  expect({"questions", "--questions", questions_, "--ways", "guess"}, 2, "want some of memory");
  expect({"passkey", "--mode", "fast"}, 2, "approximate");
  expect({"icl"}, 2, "--examples");
  expect({"natural", "--documents", Path("none")}, 1, "none");
  expect({"perplexity", "--texts", books_, "--tokens", "90k"}, 1, "--books");
  expect({"passkey", "--answers", Path("none/answers")}, 1, "none/answers");
  EXPECT_EQ(Fovea({"eval"}).code, 2);
  EXPECT_TRUE(HasLeftNothing());
}

TEST_F(EvalTest, HelpHasAnExampleForEach) {
  for (const char* name : {"", "passkey", "facts", "questions", "natural", "perplexity", "r_d",
                           "icl", "babi", "nq", "conversations"}) {
    Arguments arguments = {"eval"};
    if (*name != '\0') arguments.emplace_back(name);
    arguments.emplace_back("--help");
    const ProgramResult result = Fovea(arguments);
    EXPECT_EQ(result.code, 0) << name;
    EXPECT_THAT(result.out, HasSubstr(StrCat("Example:\n  fovea eval ", name)));
  }
}

}  // namespace
}  // namespace fovea::cli
