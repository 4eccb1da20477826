// The program with a tiny model of random weights: every command, its results and its exit codes.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <set>
#include <thread>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/base/make_zip.h"
#include "tests/cli/command_fixture.h"
#include "tests/documents/make_pdf.h"

namespace fovea::cli {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ::testing::SizeIs;
using ::testing::StartsWith;

TEST_F(CommandTest, EverySubcommandExplainsItselfWithAnExample) {
  const std::vector<Arguments> commands = {{},
                                           {"ingest"},
                                           {"ask"},
                                           {"chat"},
                                           {"docs"},
                                           {"docs", "list"},
                                           {"docs", "show"},
                                           {"docs", "delete"},
                                           {"rebuild"},
                                           {"verify"},
                                           {"stats"},
                                           {"model"},
                                           {"model", "info"},
                                           {"model", "list"},
                                           {"model", "pull"},
                                           {"tokenize"},
                                           {"eval"}};
  for (Arguments arguments : commands) {
    arguments.emplace_back("--help");
    const ProgramResult result = Fovea(arguments);
    EXPECT_EQ(result.code, 0);
    EXPECT_THAT(result.out, AllOf(HasSubstr("Example:\n  "), HasSubstr("fovea "))) << arguments[0];
    EXPECT_THAT(result.err, IsEmpty());
  }
  const ProgramResult version = Fovea({"--version"});
  EXPECT_EQ(version.code, 0);
  EXPECT_THAT(version.out, StartsWith("fovea 0."));
}

TEST_F(CommandTest, WrongUsageEndsWithTwo) {
  const std::vector<Arguments> wrong = {
      {},
      {"dance"},
      {"stats", "--memory", memory_, "--frobnicate"},
      {"ingest", "--memory", memory_},
      {"ingest", otter_},
      {"ingest", "--memory", memory_, "--title", "T", otter_, tools_},
      {"ingest", "--memory", memory_, "--encoding", "klingon", otter_},
      {"ingest", "--memory", memory_, "--adapter", "none", "--mem-layers", "1", otter_},
      {"ingest", "--memory", memory_, "--threads", "0", otter_},
      {"ask", "Q"},
      {"ask", "--memory", memory_},
      {"ask", "--memory", memory_, "--mode", "psychic", "Q"},
      {"ask", "--memory", memory_, "--top-k", "0", "Q"},
      {"ask", "--memory", memory_, "--gpu-memory", "8G", "Q"},
      {"ask", "--memory", memory_, "--device", "cuda", "--gpu-memory", "much", "Q"},
      {"ask", "--memory", memory_, "--device", "cuda", "--gpu-memory", "-1", "Q"},
      {"ask", "--memory", memory_, "--device", "cuda", "--gpu-memory", "0", "Q"},
      {"ask", "--memory", memory_, "--device", "cuda", "--gpu-memory", "8Q", "Q"},
      {"ask", "--memory", memory_, "--device", "cuda", "--gpu-memory", "1e300G", "Q"},
      {"ask", "--memory", memory_, "--device", "cuda", "--gpu-memory", "nanG", "Q"},
      {"ask", "--memory", memory_, "--device", "cpu", "--gpu-memory", "8G", "Q"},
      {"ask", "--no-memory", "--device", "cpu", "--gpu-memory", "1.5 GiB", "Q"},
      {"ask", "--memory", memory_, "--temperature", "-1", "Q"},
      {"ask", "--memory", memory_, "--reread-by", "luck", "Q"},
      {"ask", "--memory", memory_, "--top-p", "0", "Q"},
      {"ask", "--memory", memory_, "--top-p", "1.5", "Q"},
      {"ask", "--memory", memory_, "--stop", "", "Q"},
      {"ask", "--memory", memory_, "--raw", "--system", "S", "Q"},
      {"ingest", "--memory", memory_, "--device", "cuda:x", otter_},
      {"ingest", "--memory", memory_, "--device", "CPU", otter_},
      {"ingest", "--memory", memory_, "--device", "cuda:", otter_},
      {"ask", "--no-memory", "--device", "cuda:-1", "Q"},
      {"ingest", "--memory", memory_, "--precision", "bfloat16", otter_},
      {"docs"},
      {"docs", "delete", "--memory", memory_},
      {"rebuild", "--memory", memory_, "--model", "tiny"},
      {"model", "info"},
      {"tokenize"}};
  for (const Arguments& arguments : wrong) {
    const ProgramResult result = Fovea(arguments);
    EXPECT_EQ(result.code, 2) << ::testing::PrintToString(arguments);
    EXPECT_THAT(result.out, IsEmpty());
    EXPECT_THAT(result.err, Not(IsEmpty()));
  }
  EXPECT_FALSE(fs::exists(memory_));
}

// Of every command: what takes one value is given twice, and not given behind its name.
TEST_F(CommandTest, AnOptionThatIsGivenTwiceIsNamed) {
  const std::pair<Arguments, Arguments> options[] = {
      {{"ask", "Q"}, {"--max-tokens", "5"}},
      {{"ask", "Q"}, {"--memory", memory_}},
      {{"ask", "Q"}, {"--temperature", "0.5"}},
      {{"ask", "Q"}, {"--system", "S"}},
      {{"ask", "Q"}, {"--reread-memory", "on"}},
      {{"ask", "-"}, {"--batch", "2"}},
      {{"chat"}, {"--seed", "1"}},
      {{"serve"}, {"--port", "8080"}},
      {{"serve"}, {"--max-upload", "1M"}},
      {{"ingest", otter_}, {"--window", "128"}},
      {{"docs", "list"}, {"--memory", memory_}},
      {{"rebuild", "--device", "cuda"}, {"--gpu-memory", "8G"}},
      {{"tokenize"}, {"--model", "tiny"}},
      {{"eval", "passkey"}, {"--threads", "1"}},
  };
  for (const auto& [command, option] : options) {
    Arguments twice = command;
    for (int i = 0; i < 2; ++i) twice.insert(twice.end(), option.begin(), option.end());
    const ProgramResult result = Fovea(twice);
    EXPECT_EQ(result.code, 2) << option[0];
    EXPECT_THAT(result.err, HasSubstr(option[0] + " is given 2 times: want it once\n"));
    Arguments without_value = command;
    without_value.push_back(option[0]);
    const ProgramResult missing = Fovea(without_value);
    EXPECT_EQ(missing.code, 2) << option[0];
    EXPECT_THAT(missing.err, HasSubstr(option[0] + " has no value: want one behind it\n"));
  }
  EXPECT_FALSE(fs::exists(memory_));
}

// The parser itself takes brackets for lists.
TEST_F(CommandTest, ArgumentsInBracketsAreTakenAsTheyAreWritten) {
  fs::create_directory(folder_ / "[a, b]");
  fs::copy(otter_, folder_ / "[a, b]" / "[otter]");
  const ProgramResult folder = Ingest({"--recursive", Path("[a, b]")});
  ASSERT_EQ(folder.code, 0) << folder.err;
  const fs::path before = fs::current_path();
  fs::current_path(folder_ / "[a, b]");
  const ProgramResult file = Ingest({"--collection", "[x, y]", "[otter]"});
  fs::current_path(before);
  ASSERT_EQ(file.code, 0) << file.err;
  EXPECT_THAT(Command({"docs", "list", "--collection", "[x, y]", "--json"}).out,
              HasSubstr("/[a, b]/[otter]"));
  const ProgramResult asked = Command({"ask", "[who, what]", "--max-tokens", "2", "--json"});
  EXPECT_EQ(asked.code, 0) << asked.err;
  EXPECT_EQ(asked.json()["question"], "[who, what]");
  EXPECT_THAT(Fovea({"tokenize", "--model", "tiny", "[b]"}).err, HasSubstr("not expected: [b]\n"));
  EXPECT_THAT(Fovea({"tokenize", "--model=[b, c]"}).err, HasSubstr("model [b, c]: "));
  // Nor is anything else changed.
  for (const char* question : {"--x=[a]", "\x1f", "[\x1f]"}) {
    EXPECT_EQ(Fovea({"ask", "--max-tokens", "1", "--json", "--memory", memory_, "--", question})
                  .json()["question"],
              question);
  }
}

TEST_F(CommandTest, AQuestionBesideThoseOfStandardInputIsRefused) {
  const std::pair<Arguments, std::string> refused[] = {
      {{"ask", "--batch", "2", "-", "x"}, "QUESTION: want a question, or - alone"},
      {{"ask", "-", "x"}, "QUESTION: want a question, or - alone"},
      {{"ask", "what", "is", "it", "-"}, "QUESTION: want a question, or - alone"},
      {{"ask", "-", "-"}, "QUESTION: want a question, or - alone"},
      {{"ask", "--batch", "2", "x"}, "--batch: goes with -"},
  };
  for (const auto& [arguments, message] : refused) {
    const ProgramResult result = Command(arguments, "Q\n");
    EXPECT_EQ(result.code, 2) << ::testing::PrintToString(arguments);
    EXPECT_THAT(result.err, HasSubstr(message));
  }
  IngestBoth();
  const ProgramResult asked =
      Command({"ask", "What", "is", "5", "-", "3", "--json", "--max-tokens", "1"}, "Q\n");
  ASSERT_EQ(asked.code, 0) << asked.err;
  EXPECT_EQ(asked.json()["question"], "What is 5 - 3");
}

TEST_F(CommandTest, AMissingMemoryIsAnErrorThatSaysHowToMakeOne) {
  for (const Arguments& arguments :
       {Ask("Q"), {"chat"}, {"docs", "list"}, {"stats"}, {"verify"}, {"rebuild"}}) {
    const ProgramResult result = Command(arguments);
    EXPECT_EQ(result.code, 1) << arguments[0];
    EXPECT_THAT(result.err, AllOf(HasSubstr(memory_), HasSubstr("fovea ingest")));
    EXPECT_THAT(result.out, IsEmpty());
  }
  EXPECT_FALSE(fs::exists(memory_));
}

TEST_F(CommandTest, AGpuThatIsNotThereIsAnErrorThatSaysWhatToDo) {
  const ProgramResult cuda =
      Fovea({"ingest", "--memory", memory_, "--model", "tiny", "--device", "cuda:99", otter_});
  EXPECT_EQ(cuda.code, 1);
  EXPECT_THAT(cuda.err, ::testing::AnyOf(HasSubstr("no CUDA part"), HasSubstr("no NVIDIA driver"),
                                         HasSubstr("there is no GPU 99")));
  EXPECT_FALSE(fs::exists(memory_));
}

TEST_F(CommandTest, AnUnknownModelNamesTheKnownOnesAndMakesNoMemory) {
  const ProgramResult result = Fovea({"ingest", "--memory", memory_, "--model", "huge", otter_});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err,
              AllOf(HasSubstr("huge"), HasSubstr("tiny"), HasSubstr("fovea model pull smollm2")));
  EXPECT_FALSE(fs::exists(memory_));
}

TEST_F(CommandTest, IngestReportsEveryDocument) {
  const ProgramResult result = Ingest({otter_, tools_});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(Lines(result.out), SizeIs(1));
  const Json json = result.json();
  EXPECT_THAT(Keys(json), ElementsAre("documents", "dry_run", "tokens", "encoded_tokens", "seconds",
                                      "tokens_per_second", "warnings", "skipped"));
  ASSERT_THAT(json["documents"], SizeIs(2));
  for (const Json& document : json["documents"]) {
    EXPECT_THAT(Keys(document), ElementsAre("id", "title", "source", "tokens", "windows",
                                            "encoded_windows", "status", "error"));
    EXPECT_EQ(document["status"], "added");
    EXPECT_THAT(document["id"].get<std::string>(), SizeIs(32));
  }
  const std::string otter = kOtter;
  EXPECT_EQ(json["tokens"], otter.size() + std::string(kTools).size());  // a token a byte
  EXPECT_EQ(json["encoded_tokens"], json["tokens"]);
  EXPECT_EQ(json["documents"][0]["source"], otter_);
}

TEST_F(CommandTest, TheSameContentIsUnchangedAndNewContentReplaces) {
  IngestBoth();
  const ProgramResult same = Ingest({otter_});
  ASSERT_EQ(same.code, 0) << same.err;
  EXPECT_EQ(same.json()["documents"][0]["status"], "unchanged");
  EXPECT_EQ(same.json()["encoded_tokens"], 0);
  Write("otter.txt", std::string(kOtter) + "And the heron fishes.\n");
  const ProgramResult replaced = Ingest({otter_});
  ASSERT_EQ(replaced.code, 0) << replaced.err;
  EXPECT_EQ(replaced.json()["documents"][0]["status"], "replaced");
  const ProgramResult stats = Command({"stats", "--json"});
  EXPECT_EQ(stats.json()["documents"], 2);
}

TEST_F(CommandTest, AFileThatCannotBeReadIsReportedAndTheOthersGoOn) {
  const std::string binary = Write("binary.txt", std::string("a\0b", 3));
  const std::string empty = Write("empty.txt", "");
  const ProgramResult result = Ingest({Path("missing.txt"), binary, empty, otter_});
  EXPECT_EQ(result.code, 1);
  const Json json = result.json();
  ASSERT_THAT(json["documents"], SizeIs(4));
  int n_failed = 0;
  int n_added = 0;
  for (const Json& document : json["documents"]) {
    if (document["status"] == "failed") {
      ++n_failed;
      EXPECT_THAT(document["error"].get<std::string>(), Not(IsEmpty()));
    }
    if (document["status"] == "added") ++n_added;
  }
  EXPECT_EQ(n_failed, 3);
  EXPECT_EQ(n_added, 1);
  EXPECT_THAT(result.err, HasSubstr("missing.txt"));
}

TEST_F(CommandTest, FoldersNeedRecursive) {
  fs::create_directories(folder_ / "books/old");
  Write("books/a.txt", kOtter);
  Write("books/old/b.txt", kTools);
  const ProgramResult refused = Ingest({Path("books")});
  EXPECT_EQ(refused.code, 1);
  EXPECT_THAT(refused.err, HasSubstr("--recursive"));
  EXPECT_THAT(Command({"ingest", "--model", "tiny", Path("books")}).out, Not(HasSubstr("skipped")));
  EXPECT_FALSE(fs::exists(memory_));
  const ProgramResult result = Ingest({"--recursive", Path("books")});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.json()["documents"], SizeIs(2));
}

TEST_F(CommandTest, WhatIsLeftOutOfAFolderIsSaid) {
  fs::create_directories(folder_ / "files/.git");
  Write("files/a.txt", kOtter);
  Write("files/main.py", "print('otter')\n");
  Write("files/README", "Read me.\n");
  Write("files/a.png", "\x89PNG\r\n\x1A\n" + std::string(9, '\0'));
  Write("files/b.dat", "\x89PNG\r\n\x1A\n" + std::string(9, '\0'));
  Write("files/c.bin", std::string("a\0b", 3));
  Write("files/__init__.py", "");
  Write("files/.git/config", "text");
  fs::create_directory_symlink(folder_, folder_ / "files/up");
  const ProgramResult result = Ingest({"--recursive", Path("files")});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.json()["documents"], SizeIs(3));
  EXPECT_EQ(
      result.json()["skipped"],
      Json::parse(R"([{"kind":"PNG image","files":2,"first":")" + Path("files/a.png") +
                  R"("},{"kind":"empty file","files":1,"first":")" + Path("files/__init__.py") +
                  R"("},{"kind":".bin file, not text","files":1,"first":")" + Path("files/c.bin") +
                  R"("},{"kind":"link to a folder","files":1,"first":")" + Path("files/up") +
                  R"("}])"));
  EXPECT_THAT(Command({"ingest", "--recursive", Path("files")}).out,
              HasSubstr("; 5 files skipped: 2 × PNG image; 1 × empty file; 1 × .bin file, not "
                        "text; 1 × link to a folder\n"));
  EXPECT_THAT(Command({"ingest", "--dry-run", "--recursive", Path("files")}).out,
              HasSubstr("would be: 3 unchanged; 5 files skipped: 2 × PNG"));
  // What is named itself is an error, and says what it is.
  const ProgramResult named = Ingest({Path("files/a.png"), Path("files/__init__.py")});
  EXPECT_EQ(named.code, 1);
  EXPECT_THAT(named.err, HasSubstr("a.png: no text, but a file of this kind: PNG image: what is "
                                   "written in pictures needs text recognition (OCR)"));
  EXPECT_THAT(named.err, HasSubstr("__init__.py: empty: nothing to store"));
}

TEST_F(CommandTest, DocumentsWithoutTextAreSkippedInFoldersAndErrorsWhereTheyAreNamed) {
  fs::create_directories(folder_ / "files");
  Write("files/a.txt", kOtter);
  const std::string page = Write("files/page.html", "<p hidden>x</p>");
  const std::string letter = Write(
      "files/letter.docx",
      MakeZip({{"word/document.xml",
                "<w:document xmlns:w=\"http://schemas.openxmlformats.org/wordprocessingml/2006/"
                "main\"><w:body><w:p/></w:body></w:document>"}}));
  const ProgramResult result = Ingest({"--recursive", Path("files")});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.json()["documents"], SizeIs(1));
  EXPECT_EQ(
      result.json()["skipped"],
      Json::parse(R"([{"kind":"DOCX without text","files":1,"first":")" + letter +
                  R"("},{"kind":"HTML page without text","files":1,"first":")" + page + R"("}])"));
  const ProgramResult named = Ingest({letter, page});
  EXPECT_EQ(named.code, 1);
  EXPECT_THAT(named.err, HasSubstr("letter.docx: empty: nothing to store (DOCX without text)"));
  EXPECT_THAT(named.err, HasSubstr("page.html: empty: nothing to store (HTML page without text)"));
}

TEST_F(CommandTest, ThreadsThatNoProcessorIsForAreSaidAndNotStarted) {
  const ProgramResult result = Ingest({"--threads", "250", otter_});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("fovea: --threads 250: more than the "));
  const ProgramResult quiet = Ingest({"--threads", "1", otter_});
  EXPECT_THAT(quiet.err, Not(HasSubstr("--threads")));
}

TEST_F(CommandTest, AFifoIsRefusedAtOnce) {
  const std::string fifo = Path("fifo.txt");
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  const ProgramResult result = Ingest({fifo, otter_});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("fifo.txt: a FIFO, want a regular file"));
  EXPECT_THAT(result.json()["documents"], SizeIs(2));
}

TEST_F(CommandTest, AFolderWithoutTextIsNoError) {
  fs::create_directories(folder_ / "files");
  Write("files/a.gz", std::string("\x1F\x8B\x08\0", 4));
  const ProgramResult result = Ingest({"--recursive", Path("files")});
  EXPECT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.json()["documents"], IsEmpty());
  EXPECT_EQ(result.json()["skipped"][0]["kind"], "gzip file");
}

TEST_F(CommandTest, AMemoryIsNotIngestedIntoItself) {
  fs::create_directories(folder_ / "files");
  Write("files/a.txt", kOtter);
  memory_ = Path("files/memory");
  ASSERT_EQ(Ingest({"--recursive", Path("files")}).code, 0);
  const ProgramResult again = Ingest({"--sync", Path("files")});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_THAT(again.json()["documents"], SizeIs(1));
  EXPECT_EQ(again.json()["skipped"][0]["kind"], "memory of fovea");
}

#ifdef FOVEA_PDF
TEST_F(CommandTest, PagesWithoutTextAreSaid) {
  const std::string cover = documents::PdfPage({"Annual report of the canal trust."});
  std::vector<documents::PdfStream> pages(10, "0 0 m 9 9 l S");
  pages[0] = cover;
  const std::string report = Write("report.pdf", documents::MakePdf(pages, ""));
  const ProgramResult result = Ingest({"--quiet", report});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.err, HasSubstr("report.pdf: 9 of 10 pages have no text"));
  const Json warnings = result.json()["warnings"];
  ASSERT_THAT(warnings, SizeIs(1));
  EXPECT_EQ(warnings[0]["source"], report);
  EXPECT_THAT(warnings[0]["warning"].get<std::string>(), StartsWith("9 of 10 pages"));
}
#endif

TEST_F(CommandTest, StandardInputIsADocument) {
  const Arguments arguments = {"ingest",       "--memory", memory_,   "--json", "--model", "tiny",
                               "--mem-layers", "1,2",      "--title", "Notes",  "-"};
  const ProgramResult result = Fovea(arguments, kOtter);
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.json()["documents"][0]["source"], "-");
  EXPECT_EQ(result.json()["documents"][0]["title"], "Notes");
  const ProgramResult empty = Fovea({"ingest", "--memory", memory_, "--json", "-"}, "");
  EXPECT_EQ(empty.code, 1);
  EXPECT_EQ(empty.json()["documents"][0]["status"], "failed");
}

TEST_F(CommandTest, AModelWithoutMemoryLayersEncodesNothing) {
  const ProgramResult result =
      Fovea({"ingest", "--memory", memory_, "--json", "--model", "tiny", otter_});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = result.json();
  EXPECT_GT(json["tokens"], 0);
  EXPECT_EQ(json["encoded_tokens"], 0);
  EXPECT_EQ(json["documents"][0]["encoded_windows"], 0);
  EXPECT_EQ(json["documents"][0]["status"], "added");
}

TEST_F(CommandTest, AskHasExactlyTheFieldsOfTheContract) {
  IngestBoth();
  const ProgramResult result =
      Command(Ask("Where does the otter live?", {"--json", "--audit", "--reread-memory", "on"}));
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(Lines(result.out), SizeIs(1));
  const Json json = result.json();
  EXPECT_THAT(Keys(json), ElementsAre("question", "answer", "finish_reason", "sources", "notes",
                                      "usage", "timing", "audit"));
  EXPECT_EQ(json["question"], "Where does the otter live?");
  EXPECT_THAT(json["finish_reason"].get<std::string>(), ::testing::AnyOf("stop", "length"));
  EXPECT_THAT(Keys(json["usage"]),
              ElementsAre("prompt_tokens", "completion_tokens", "memory_tokens"));
  EXPECT_THAT(Keys(json["timing"]), ElementsAre("open_ms", "prefill_ms", "decode_ms_per_token"));
  EXPECT_THAT(Keys(json["audit"]), ElementsAre("captured_mass", "needle_recall"));
  EXPECT_THAT(json["audit"]["captured_mass"], SizeIs(2));
  EXPECT_THAT(json["audit"]["needle_recall"], SizeIs(2));
  EXPECT_GT(json["timing"]["open_ms"].get<double>(), 0.0);
  ASSERT_THAT(json["sources"], Not(IsEmpty()));
  double total = 0.0;
  for (const Json& source : json["sources"]) {
    EXPECT_THAT(Keys(source),
                ElementsAre("document", "title", "source", "other_sources", "collection", "start",
                            "end", "mass", "reread", "text", "excerpt"));
    total += source["mass"].get<double>();
    // start and end are bytes of the document's text.
    const ProgramResult text = Command({"docs", "show", source["document"].get<std::string>()});
    const auto start = source["start"].get<size_t>();
    EXPECT_EQ(text.out.substr(start, source["end"].get<size_t>() - start), source["text"]);
  }
  EXPECT_LE(total, 1.0 + 1e-6);
}

TEST_F(CommandTest, MarksAreNamedWhereTheyWereAskedFor) {
  ASSERT_TRUE(memory::WriteTinyModel(folder_ / "home/models/tiny", 7, 2048, "lives ").ok());
  ASSERT_EQ(Ingest({otter_, "--collection", "animals"}).code, 0);
  ASSERT_EQ(Ingest({tools_, "--collection", "tools"}).code, 0);
  std::string collection = "animals";
  const auto ask = [&](const Arguments& more) {
    Arguments arguments =
        Ask("Where does the otter live?", {"--reread", "0", "--collection", collection});
    arguments.insert(arguments.end(), more.begin(), more.end());
    return Command(arguments);
  };
  const std::vector<std::string> keys = Keys(ask({"--json"}).json());
  const Json answer = ask({"--json", "--marks"}).json();
  std::vector<std::string> with_marks = keys;
  with_marks.emplace_back("marks");
  EXPECT_EQ(Keys(answer), with_marks);
  ASSERT_THAT(answer["marks"], SizeIs(1U));
  const Json& mark = answer["marks"][0];
  EXPECT_THAT(Keys(mark), ElementsAre("start", "end", "source"));
  const auto text = answer["answer"].get<std::string>();
  const auto start = mark["start"].get<size_t>();
  EXPECT_EQ(text.substr(start, mark["end"].get<size_t>() - start), "[1]");
  EXPECT_EQ(mark["source"], 1);
  EXPECT_THAT(ask({"--marks"}).out, HasSubstr("lives [1]"));
  // What was attended to as much but has no word of the answer.
  collection = "tools";
  const Json without = ask({"--json", "--marks"}).json();
  EXPECT_EQ(without["answer"], "lives");
  EXPECT_THAT(without["sources"], SizeIs(1U));
  EXPECT_THAT(without["marks"], IsEmpty());
}

TEST_F(CommandTest, AskPrintsTheAnswerAndItsSources) {
  IngestBoth();
  const ProgramResult result = Command(Ask("Where does the otter live?", {"--quiet"}));
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.out, AllOf(HasSubstr("Sources:\n[1] "), HasSubstr("bytes ")));
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(CommandTest, AModelWithoutAdapterIsHintedAtOnceAndOnStandardErrorOnly) {
  IngestBoth();
  const ProgramResult result = Command(Ask("Where does the otter live?", {"--json"}));
  ASSERT_EQ(result.code, 0);
  EXPECT_THAT(Lines(result.err), SizeIs(1));
  EXPECT_THAT(result.err, HasSubstr("adapter"));
  EXPECT_TRUE(result.json().is_object());
}

TEST_F(CommandTest, QuestionsFromStandardInputHaveAResultEach) {
  IngestBoth();
  const std::string questions =
      "\xEF\xBB\xBFWhere does the otter live?\n\n \t\r\nWhat cuts wood?\r\nlast\n\n";
  const ProgramResult json = Command(Ask("-", {"--json"}), questions);
  ASSERT_EQ(json.code, 0) << json.err;
  const auto lines = Lines(json.out);
  ASSERT_THAT(lines, SizeIs(3));
  EXPECT_EQ(Json::parse(lines[0])["question"], "Where does the otter live?");
  EXPECT_EQ(Json::parse(lines[1])["question"], "What cuts wood?");
  EXPECT_EQ(Json::parse(lines[2])["question"], "last");
  const ProgramResult text = Command(Ask("-"), questions);
  ASSERT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(Lines(text.out), SizeIs(3));
}

TEST_F(CommandTest, AQuestionThatFailsLeavesTheOthersAnswered) {
  IngestBoth();
  const ProgramResult result =
      Command(Ask("-", {"--json"}), "first\n" + std::string(5000, 'q') + "\nthird\n");
  EXPECT_EQ(result.code, 1);
  const auto lines = Lines(result.out);
  ASSERT_THAT(lines, SizeIs(3));
  EXPECT_TRUE(Json::parse(lines[0]).contains("answer"));
  EXPECT_TRUE(Json::parse(lines[1]).contains("error"));
  EXPECT_TRUE(Json::parse(lines[2]).contains("answer"));
  EXPECT_THAT(result.err, HasSubstr("line 2"));
}

TEST_F(CommandTest, ABatchOfQuestionsGetsTheAnswersThatTheyGetOneByOne) {
  IngestBoth();
  std::string questions;
  for (int i = 0; i < 11; ++i) questions += StrCat("What does number ", i, " cut?\n\n");
  questions += std::string(5000, 'q') + "\nWhere does the otter live?";
  const auto results = [&](const std::string& batch) {
    const ProgramResult result =
        Command(Ask("-", {"--json", "--batch", batch, "--reread-memory", "on"}), questions);
    EXPECT_EQ(result.code, 1);
    EXPECT_THAT(result.err, HasSubstr("line 23: "));
    std::vector<Json> lines;
    for (const std::string& line : Lines(result.out)) {
      Json& json = lines.emplace_back(Json::parse(line));
      json.erase("timing");
    }
    return lines;
  };
  const std::vector<Json> one_by_one = results("1");
  EXPECT_THAT(one_by_one, SizeIs(13));
  EXPECT_EQ(results("2"), one_by_one);
  EXPECT_EQ(results("8"), one_by_one);
  EXPECT_EQ(results("64"), one_by_one);
  EXPECT_EQ(Command(Ask("-", {"--batch", "0"}), questions).code, 2);
}

TEST_F(CommandTest, NoQuestionsNoResults) {
  IngestBoth();
  const ProgramResult result = Command(Ask("-", {"--json"}), "");
  EXPECT_EQ(result.code, 0);
  EXPECT_THAT(result.out, IsEmpty());
}

TEST_F(CommandTest, AnEmptyQuestionIsRefused) {
  IngestBoth();
  const ProgramResult result = Command(Ask(" "));
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, HasSubstr("question is empty"));
}

TEST_F(CommandTest, UnknownCollectionsAndDocumentsAreNamed) {
  IngestBoth();
  const ProgramResult collection = Command(Ask("Q", {"--collection", "attic"}));
  EXPECT_EQ(collection.code, 1);
  EXPECT_THAT(collection.err, HasSubstr("attic"));
  const ProgramResult document = Command(Ask("Q", {"--document", "ffffffffffff"}));
  EXPECT_EQ(document.code, 1);
  EXPECT_THAT(document.err, HasSubstr("ffffffffffff"));
  EXPECT_EQ(Command({"docs", "list", "--collection", "attic"}).code, 1);
  EXPECT_EQ(Command({"docs", "show", "ffffffffffff"}).code, 1);
  EXPECT_EQ(Command({"docs", "delete", "ffffffffffff"}).code, 1);
}

TEST_F(CommandTest, RepeatedCollectionsDoNotSwallowTheQuestion) {
  IngestBoth();
  const ProgramResult result =
      Fovea({"ask", "--memory", memory_, "--max-tokens", "2", "--json", "--collection", "default",
             "--collection", "default", "What", "cuts", "wood?"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.json()["question"], "What cuts wood?");
}

TEST_F(CommandTest, TheMemoryCanComeFromTheEnvironment) {
  IngestBoth();
  environment_["FOVEA_MEMORY"] = memory_;
  const ProgramResult result = Fovea({"stats", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.json()["documents"], 2);
}

TEST_F(CommandTest, TheModelCanComeFromTheEnvironmentButTheMemoryRemembersItsOwn) {
  environment_["FOVEA_MODEL"] = "tiny";
  ASSERT_EQ(Fovea({"ingest", "--memory", memory_, otter_}).code, 0);
  environment_["FOVEA_MODEL"] = "huge";
  EXPECT_EQ(Fovea({"ingest", "--memory", memory_, tools_}).code, 0);
  EXPECT_EQ(Command(Ask("Q")).code, 0);
}

TEST_F(CommandTest, AnotherModelIsRefusedWithBothFingerprints) {
  IngestBoth();
  ASSERT_TRUE(memory::WriteTinyModel(folder_ / "home/models/other", /*seed=*/8, 2048).ok());
  const std::string own = Command({"stats", "--json"}).json()["fingerprint"];
  const ProgramResult result = Ingest({"--model", "other", otter_});
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, AllOf(HasSubstr(own), HasSubstr("rebuild --reencode")));
  // It may be the adapter that is another one.
  const ProgramResult without = Command(Ask("Q", {"--adapter", "none"}));
  EXPECT_EQ(without.code, 1);
  EXPECT_THAT(without.err, AllOf(HasSubstr(own), HasSubstr("--model PATH, --adapter DIR or none")));
}

TEST_F(CommandTest, SourcesReferToDocuments) {
  const fs::path files = folder_ / "files";
  fs::create_directories(files / "old");
  const auto write = [&](const std::string& name, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(files / name, text).ok());
  };
  const auto sources = [&] {
    std::map<std::string, std::string> texts;
    for (const std::string& line : Lines(Command({"docs", "list", "--json"}).out)) {
      const Json json = Json::parse(line);
      const std::string text = Command({"docs", "show", json["id"].get<std::string>()}).out;
      for (const Json& source : json["sources"]) {
        texts[fs::path(source["source"].get<std::string>()).lexically_relative(files)] = text;
      }
    }
    return texts;
  };
  using Texts = std::map<std::string, std::string>;
  const auto sync = [&](Arguments options = {}) {
    Arguments arguments = {"--sync", files.string()};
    arguments.insert(arguments.end(), options.begin(), options.end());
    return Ingest(arguments);
  };
  // Two names of one text, one of them edited.
  write("a.txt", "Week one.");
  write("b.txt", "Week one.");
  ASSERT_EQ(sync().code, 0);
  write("a.txt", "Week two.");
  ASSERT_EQ(sync().code, 0);
  EXPECT_EQ(sources(), (Texts{{"a.txt", "Week two."}, {"b.txt", "Week one."}}));
  EXPECT_THAT(Command({"docs", "list"}).out, HasSubstr((files / "b.txt").string()));
  // Archived, and a new text under the name; nothing is encoded that was stored.
  fs::rename(files / "b.txt", files / "old/b.txt");
  fs::rename(files / "a.txt", files / "b.txt");
  EXPECT_THAT(Command({"ingest", "--dry-run", otter_}).out, Not(HasSubstr("token")));
  const ProgramResult dry = sync({"--dry-run"});
  ASSERT_EQ(dry.code, 0) << dry.err;
  EXPECT_EQ(dry.json()["dry_run"], true);
  EXPECT_EQ(sources(), (Texts{{"a.txt", "Week two."}, {"b.txt", "Week one."}}));
  const ProgramResult moved = sync();
  ASSERT_EQ(moved.code, 0) << moved.err;
  EXPECT_EQ(moved.json()["encoded_tokens"], 0);
  EXPECT_EQ(sources(), (Texts{{"b.txt", "Week two."}, {"old/b.txt", "Week one."}}));
  const auto statuses = [](const Json& json) {
    std::multiset<std::string> found;
    for (const Json& document : json["documents"]) found.insert(document["status"]);
    return found;
  };
  EXPECT_EQ(statuses(dry.json()), statuses(moved.json()));
  // A file that cannot be read is not one that is gone.
  write("old/b.txt", std::string("no text: ") + '\0');
  EXPECT_EQ(sync().code, 1);
  EXPECT_EQ(sources(), (Texts{{"b.txt", "Week two."}, {"old/b.txt", "Week one."}}));
  // One that has no text any more is.
  write("old/b.txt", "");
  write("b.txt", "\x89PNG\r\n\x1a\n");
  write("c.txt", "Week three.");
  EXPECT_EQ(sync().code, 0);
  EXPECT_EQ(sources(), (Texts{{"c.txt", "Week three."}}));
  EXPECT_EQ(Command({"verify"}).code, 0);
}

// A record without an id has the number of its line in its name.
TEST_F(CommandTest, TwoTextsOfOneNameAreNotOne) {
  const fs::path files = folder_ / "records";
  fs::create_directories(files);
  std::ofstream(files / "a.jsonl") << "{\"id\": \"2\", \"text\": \"The miller is Jan.\"}\n"
                                      "{\"text\": \"The smith is Eva.\"}\n"
                                      "{\"id\": \"x\", \"text\": \"The cook is Ann.\"}\n"
                                      "{\"id\": \"x\", \"text\": \"The cook is Bea.\"}\n"
                                      "{\"id\": \"x\", \"text\": \"The cook is Ann.\"}\n";
  std::ofstream(files / "a.jsonl#x") << "The baker is Tom.";
  for (const bool is_dry : {true, false, false}) {
    Arguments arguments = {"--sync", files.string()};
    if (is_dry) arguments.insert(arguments.begin(), "--dry-run");
    const ProgramResult result = Ingest(arguments);
    EXPECT_EQ(result.code, 1);
    for (const char* name : {"a.jsonl#2: another text", "a.jsonl#x: another text"}) {
      EXPECT_THAT(result.err, HasSubstr(name));
    }
    std::multiset<std::string> statuses;
    const Json json = result.json();
    for (const Json& document : json["documents"]) statuses.insert(document["status"]);
    EXPECT_EQ(statuses.count("failed"), 3u) << result.out;
    EXPECT_EQ(statuses.count("replaced") + statuses.count("removed"), 0u) << result.out;
    if (!is_dry) {
      EXPECT_THAT(Lines(Command({"docs", "list"}).out), SizeIs(2));
    }
  }
}

TEST_F(CommandTest, DocumentsAreListedShownAndDeleted) {
  IngestBoth();
  const ProgramResult list = Command({"docs", "list", "--json"});
  ASSERT_EQ(list.code, 0) << list.err;
  const auto lines = Lines(list.out);
  ASSERT_THAT(lines, SizeIs(2));
  const std::string id = Json::parse(lines[0])["id"];
  EXPECT_EQ(Json::parse(lines[0])["source"], otter_);
  EXPECT_EQ(Command({"docs", "show", id}).out, kOtter);
  EXPECT_EQ(Command({"docs", "show", id.substr(0, 8), "--json"}).json()["text"], kOtter);
  const ProgramResult deleted = Command({"docs", "delete", id, "--json"});
  ASSERT_EQ(deleted.code, 0) << deleted.err;
  EXPECT_EQ(deleted.json()["deleted"][0]["id"], id);
  EXPECT_THAT(Lines(Command({"docs", "list"}).out), SizeIs(1));
  EXPECT_EQ(Command({"docs", "show", id}).code, 1);
  EXPECT_EQ(Command({"verify"}).code, 0);
}

TEST_F(CommandTest, DeletingACollectionKeepsWhatIsInAnother) {
  ASSERT_EQ(Ingest({"--collection", "a", otter_, tools_}).code, 0);
  ASSERT_EQ(Ingest({"--collection", "b", tools_}).code, 0);
  EXPECT_THAT(Lines(Command({"docs", "list", "--collection", "a"}).out), SizeIs(2));
  EXPECT_THAT(Lines(Command({"docs", "list", "--collection", "b"}).out), SizeIs(1));
  const ProgramResult deleted = Command({"docs", "delete", "--collection", "a", "--json"});
  ASSERT_EQ(deleted.code, 0) << deleted.err;
  EXPECT_THAT(deleted.json()["deleted"], SizeIs(1));
  const ProgramResult stats = Command({"stats", "--json"});
  EXPECT_EQ(stats.json()["collections"].dump(), R"({"b":1})");
}

TEST_F(CommandTest, StatsHasExactlyTheFieldsOfTheContract) {
  IngestBoth();
  const ProgramResult result = Command({"stats", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  const Json json = result.json();
  EXPECT_THAT(Keys(json), ElementsAre("documents", "collections", "tokens", "slots",
                                      "deleted_slots", "unfinished", "bytes", "segments", "model",
                                      "fingerprint", "format_version", "faiss"));
  EXPECT_THAT(json["faiss"].get<std::string>(), HasSubstr("."));  // its version and its parts
  EXPECT_THAT(Keys(json["unfinished"]), ElementsAre("documents", "tokens"));
  EXPECT_THAT(Keys(json["bytes"]), ElementsAre("text", "blocks", "index"));
  for (const Json& segment : json["segments"]) {
    EXPECT_THAT(Keys(segment),
                ElementsAre("tokens", "index", "state", "needle_recall", "candidates"));
  }
  EXPECT_EQ(json["model"], "tiny");
  EXPECT_EQ(Command({"stats"}).code, 0);
}

TEST_F(CommandTest, VerifyFindsDamageAndRepairsIt) {
  IngestBoth();
  const ProgramResult sound = Command({"verify", "--json"});
  ASSERT_EQ(sound.code, 0) << sound.err;
  EXPECT_THAT(Keys(sound.json()), ElementsAre("ok", "checked", "damaged", "repaired", "notes"));
  EXPECT_THAT(Keys(sound.json()["checked"]), ElementsAre("documents", "blocks", "index_files"));
  EXPECT_EQ(sound.json()["checked"]["documents"], 2);
  EXPECT_EQ(sound.json()["ok"], true);

  fs::path text_index;
  for (const auto& entry : fs::recursive_directory_iterator(memory_)) {
    if (entry.path().extension() == ".sqlite") text_index = entry.path();
  }
  ASSERT_FALSE(text_index.empty());
  std::ofstream(text_index, std::ios::binary | std::ios::trunc) << "not a database at all";
  const ProgramResult damaged = Command({"verify", "--json"});
  EXPECT_EQ(damaged.code, 3) << damaged.err;
  ASSERT_EQ(damaged.json()["ok"], false) << damaged.out;
  ASSERT_THAT(damaged.json()["damaged"], Not(IsEmpty()));
  EXPECT_THAT(Keys(damaged.json()["damaged"][0]), ElementsAre("kind", "document", "what"));
  // The model is not needed for this: a model that is gone does not matter.
  fs::rename(folder_ / "home/models/tiny", folder_ / "away");
  const ProgramResult repaired = Command({"verify", "--repair", "--json"});
  EXPECT_EQ(repaired.code, 0) << repaired.err << repaired.out;
  EXPECT_EQ(Command({"verify"}).code, 0);
}

TEST_F(CommandTest, RebuildKeepsTheMemoryAsItWas) {
  IngestBoth();
  const ProgramResult result = Command({"rebuild", "--index", "exact", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(Keys(result.json()), ElementsAre("generation", "segments_built", "segments_resumed",
                                               "segments", "seconds"));
  EXPECT_EQ(Command({"stats", "--json"}).json()["documents"], 2);
  EXPECT_EQ(Command({"verify"}).code, 0);
  const ProgramResult wrong = Command({"rebuild", "--index", "PIZZA42"});
  EXPECT_EQ(wrong.code, 1);
  EXPECT_THAT(wrong.err, HasSubstr("PIZZA42"));
}

TEST_F(CommandTest, ReencodingMovesTheMemoryToAnotherModel) {
  IngestBoth();
  ASSERT_TRUE(memory::WriteTinyModel(folder_ / "home/models/other", /*seed=*/8, 2048).ok());
  const std::string before = Command({"stats", "--json"}).json()["fingerprint"];
  const ProgramResult result =
      Command({"rebuild", "--reencode", "--model", "other", "--mem-layers", "1,2", "--json"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_EQ(result.json()["documents"], 2);
  const Json stats = Command({"stats", "--json"}).json();
  EXPECT_EQ(stats["model"], "other");
  EXPECT_NE(stats["fingerprint"], before);
  EXPECT_EQ(Command(Ask("Q")).code, 0);
}

TEST_F(CommandTest, ChatAnswersALineAtATime) {
  IngestBoth();
  const ProgramResult result =
      Command({"chat", "--json", "--max-tokens", "4"}, "Hello\n\n/reset\nHello\n/quit\nnever\n");
  ASSERT_EQ(result.code, 0) << result.err;
  const auto lines = Lines(result.out);
  ASSERT_THAT(lines, SizeIs(2));
  EXPECT_EQ(Json::parse(lines[0])["answer"], Json::parse(lines[1])["answer"]);
  const ProgramResult text = Command({"chat", "--quiet", "--max-tokens", "4"}, "Hello\n");
  EXPECT_EQ(text.code, 0) << text.err;
  EXPECT_THAT(text.out, HasSubstr("Sources:"));
}

TEST_F(CommandTest, SystemMessagesStopTextsAndTopPAreHeeded) {
  IngestBoth();
  const auto ask = [&](const Arguments& more) {
    Arguments arguments = {"ask",    "Where does the otter live?",
                           "--json", "--max-tokens",
                           "40",     "--temperature",
                           "1",      "--seed",
                           "3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const ProgramResult result = Command(arguments);
    EXPECT_EQ(result.code, 0) << result.err;
    return result.json();
  };
  const Json plain = ask({});
  const Json told = ask({"--system", "Answer in one word."});
  EXPECT_GT(told["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"]);
  EXPECT_EQ(ask({"--system", ""})["usage"]["prompt_tokens"], plain["usage"]["prompt_tokens"]);

  const std::string text = plain["answer"];
  const auto letter = std::find_if(text.begin() + 1, text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  });
  ASSERT_NE(letter, text.end()) << text;
  const Json cut = ask({"--stop", "no such text", "--stop", std::string(1, *letter)});
  EXPECT_EQ(cut["finish_reason"], "stop");
  EXPECT_EQ(std::string(cut["answer"]).find(*letter), std::string::npos);
  EXPECT_TRUE(text.starts_with(std::string(cut["answer"])));

  EXPECT_NE(ask({"--top-p", "0.2"})["answer"], plain["answer"]);
  EXPECT_EQ(ask({"--top-p", "1"})["answer"], plain["answer"]);
}

TEST_F(CommandTest, TheModelAloneNeedsNoMemory) {
  const ProgramResult result =
      Fovea({"ask", "--no-memory", "--model", "tiny", "--max-tokens", "3", "--json", "Hello"});
  ASSERT_EQ(result.code, 0) << result.err;
  EXPECT_THAT(result.json()["sources"], IsEmpty());
  EXPECT_EQ(result.json()["usage"]["memory_tokens"], 0);
}

TEST_F(CommandTest, TokenizeGoesThereAndBack) {
  const std::string text = "Hello, world\n  two  spaces\n\ngr\xC3\xBC\xC3\x9F <|end|>\n";
  const ProgramResult ids = Fovea({"tokenize", "--model", "tiny"}, text);
  ASSERT_EQ(ids.code, 0) << ids.err;
  const auto lines = Lines(ids.out);
  ASSERT_THAT(lines, SizeIs(4));
  EXPECT_EQ(lines[2], "[]");
  EXPECT_EQ(Json::parse(lines[0]).size(), std::string("Hello, world").size());
  const ProgramResult back = Fovea({"tokenize", "--model", "tiny", "--decode"}, ids.out);
  ASSERT_EQ(back.code, 0) << back.err;
  EXPECT_EQ(back.out, text);

  const ProgramResult special = Fovea({"tokenize", "--model", "tiny", "--special"}, "a<|end|>\n");
  EXPECT_EQ(Json::parse(special.out, nullptr, false), Json::parse("[97, 256]"));
  EXPECT_EQ(Fovea({"tokenize", "--model", "tiny", "--decode"}, special.out).out, "a\n");
  EXPECT_EQ(Fovea({"tokenize", "--model", "tiny", "--decode", "--special"}, special.out).out,
            "a<|end|>\n");
  const ProgramResult wrong = Fovea({"tokenize", "--model", "tiny", "--decode"}, "[1]\nhello\n");
  EXPECT_EQ(wrong.code, 1);
  EXPECT_THAT(wrong.err, HasSubstr("line 2"));
  EXPECT_THAT(Fovea({"tokenize", "--model", "tiny"}, "").out, IsEmpty());
}

TEST_F(CommandTest, ModelsAreListedAndDescribed) {
  const ProgramResult list = Fovea({"model", "list", "--json"});
  ASSERT_EQ(list.code, 0) << list.err;
  const Json json = list.json();
  ASSERT_THAT(json["models"], SizeIs(2));
  EXPECT_EQ(json["models"][0]["name"], "smollm2");
  EXPECT_EQ(json["models"][0]["installed"], false);
  EXPECT_EQ(json["models"][1]["name"], "tiny");
  const ProgramResult info = Fovea({"model", "info", "tiny", "--json"});
  ASSERT_EQ(info.code, 0) << info.err;
  EXPECT_EQ(info.json()["architecture"], "llama");
  EXPECT_EQ(info.json()["n_layers"], memory::kTinyLayers);
  EXPECT_THAT(info.json()["fingerprint"].get<std::string>(), SizeIs(32));
  EXPECT_TRUE(info.json()["adapter"].is_null());
  EXPECT_THAT(Fovea({"model", "info", "tiny", "--tensors"}).out,
              HasSubstr("model.embed_tokens.weight"));
  const ProgramResult unknown = Fovea({"model", "pull", "nonesuch"});
  EXPECT_EQ(unknown.code, 1);
  EXPECT_THAT(unknown.err, HasSubstr("smollm2"));
}

TEST_F(CommandTest, DocumentsDoNotCommandTheTerminal) {
  const std::string hostile = Write("evil\x1B[31m.txt", "The \x1B]0;owned\x07 otter.\n");
  const ProgramResult ingest =
      Fovea({"ingest", "--memory", memory_, "--model", "tiny", "--mem-layers", "1,2", hostile});
  EXPECT_THAT(ingest.out + ingest.err, Not(HasSubstr("\x1B")));
  ASSERT_EQ(ingest.code, 0) << ingest.err;
  const ProgramResult ask = Command(Ask("otter"));
  ASSERT_EQ(ask.code, 0) << ask.err;
  EXPECT_THAT(ask.out + ask.err, Not(HasSubstr("\x1B")));
  EXPECT_THAT(Command({"docs", "list"}).out, Not(HasSubstr("\x1B")));
}

TEST_F(CommandTest, AClosedPipeEndsTheAnswerQuietly) {
  IngestBoth();
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  close(ends[0]);  // nobody reads
  const int stdin_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
  Program program({"ask", "--memory", memory_, "--quiet", "--max-tokens", "50", "Q"}, environment_,
                  stdin_fd, "/dev/null", folder_ / "stderr", ends[1]);
  close(stdin_fd);
  close(ends[1]);
  const ProgramResult result = program.Wait();
  EXPECT_EQ(result.code, 1);
  EXPECT_THAT(result.err, IsEmpty());
}

TEST_F(CommandTest, MessagesNeverGoIntoFilesOfTheMemory) {
  IngestBoth();
  const std::string id = Lines(Command({"docs", "list"}).out)[0].substr(0, 12);
  confinement_.closed = {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO};
  EXPECT_EQ(Command({"docs", "delete", id}).code, 1);  // done, but nobody was told
  confinement_.closed.clear();
  for (const auto& entry : fs::recursive_directory_iterator(memory_)) {
    if (!entry.is_regular_file()) continue;
    EXPECT_THAT(Slurp(entry.path()), Not(HasSubstr("deleted "))) << entry.path();
  }
  EXPECT_EQ(Command({"stats", "--json"}).json()["documents"], 1);
  EXPECT_EQ(Command({"verify"}).code, 0);
}

TEST_F(CommandTest, AClosedStandardDescriptorIsAnError) {
  IngestBoth();
  confinement_.closed = {STDOUT_FILENO};
  for (const Arguments& arguments : {Arguments{"docs", "list"}, {"stats"}, Ask("otter")}) {
    const ProgramResult result = Command(arguments);
    EXPECT_EQ(result.code, 1) << arguments[0];
    EXPECT_THAT(result.err, HasSubstr("standard output: results cannot be written"));
  }
  EXPECT_EQ(Fovea({"--help"}).code, 1);
  confinement_.closed = {STDIN_FILENO};
  const ProgramResult ask = Command(Ask("-"));
  EXPECT_EQ(ask.code, 1);
  EXPECT_THAT(ask.err, HasSubstr("standard input"));
}

TEST_F(CommandTest, AnAnswerBesideAnIngestSaysWhyItTakesLonger) {
  IngestBoth();
  // Standard input stays open, so that the program waits for it with the memory in its hands.
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Program program({"ingest", "--memory", memory_, "-"}, environment_, ends[0], folder_ / "stdout",
                  folder_ / "stderr");
  close(ends[0]);
  const auto notes = [&] {
    const ProgramResult result = Command(Ask("Where does the otter live?", {"--json"}));
    EXPECT_EQ(result.code, 0) << result.err;
    return result.json()["notes"].dump();
  };
  std::string beside;
  for (int i = 0; i < 200 && beside.find("is writing") == std::string::npos; ++i) beside = notes();
  EXPECT_THAT(beside, HasSubstr("is writing to this memory"));
  const ProgramResult text = Command(Ask("Where does the otter live?"));
  EXPECT_THAT(text.err, HasSubstr("is writing to this memory"));
  program.Signal(SIGINT);
  program.Wait();
  close(ends[1]);
  EXPECT_THAT(notes(), Not(HasSubstr("is writing")));
}

TEST_F(CommandTest, AnInterruptedIngestGoesOn) {
  // Standard input stays open, so that the program waits for it when the signal comes.
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  Program program(
      {"ingest", "--memory", memory_, "--model", "tiny", "--mem-layers", "1,2", otter_, "-"},
      environment_, ends[0], folder_ / "stdout", folder_ / "stderr");
  close(ends[0]);
  // The program handles signals long before it makes the memory.
  while (!fs::exists(memory_)) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  program.Signal(SIGINT);
  const ProgramResult interrupted = program.Wait();
  close(ends[1]);
  EXPECT_EQ(interrupted.code, 1);
  EXPECT_THAT(interrupted.err, HasSubstr("interrupted"));
  const ProgramResult again = Fovea(
      {"ingest", "--memory", memory_, "--model", "tiny", "--mem-layers", "1,2", "--json", otter_});
  ASSERT_EQ(again.code, 0) << again.err;
  EXPECT_EQ(Command({"verify"}).code, 0);
  EXPECT_EQ(Command({"stats", "--json"}).json()["documents"], 1);
}

TEST_F(CommandTest, WhatAKilledIngestHasLeftIsToldAndARebuildDropsIt) {
  IngestBoth();
  const std::string long_text = Write("long.txt", Words(5, 4 << 20));
  const int empty = open("/dev/null", O_RDONLY | O_CLOEXEC);
  Program program({"ingest", "--memory", memory_, long_text}, environment_, empty,
                  folder_ / "killed-out", folder_ / "killed-err");
  close(empty);
  const auto unfinished = [&] { return Command({"stats", "--json"}).json()["unfinished"]; };
  while (program.IsRunning() && unfinished()["tokens"] == 0) {
  }
  program.Signal(SIGKILL);
  ASSERT_EQ(program.Wait().code, 128 + SIGKILL) << "it had ended before";
  EXPECT_EQ(unfinished()["documents"], 1);
  EXPECT_THAT(Command({"stats"}).out, HasSubstr("unfinished   1 document"));
  EXPECT_EQ(Command({"verify"}).code, 0);
  const ProgramResult rebuilt = Command({"rebuild"});
  ASSERT_EQ(rebuilt.code, 0) << rebuilt.err;
  EXPECT_EQ(unfinished().dump(), R"({"documents":0,"tokens":0})");
  EXPECT_THAT(Command({"stats"}).out, Not(HasSubstr("unfinished")));
  EXPECT_EQ(Command({"stats", "--json"}).json()["documents"], 2);
  EXPECT_EQ(Command({"verify"}).code, 0);
  EXPECT_THAT(Command(Ask("Where does the otter live?")).out, HasSubstr("otter.txt"));
}

TEST_F(CommandTest, CollectionsAreNamedByOneLineOfText) {
  const std::string records = Write("records.jsonl", R"({"text": "One.", "collection": "a\nb"})"
                                                     "\n"
                                                     R"({"text": "Two."})"
                                                     "\n");
  for (const char* name : {"", " ", "a\nb", "a\\b", "caf\xE9"}) {
    const ProgramResult refused = Ingest({"--collection", name, otter_});
    EXPECT_EQ(refused.code, 2) << name;
    EXPECT_THAT(refused.err, HasSubstr("--collection"));
    EXPECT_FALSE(fs::exists(memory_));
  }
  const ProgramResult result = Ingest({"--collection", "Zoë's letters", records});
  EXPECT_EQ(result.code, 1);  // the first record
  EXPECT_THAT(result.json()["documents"][0]["error"].get<std::string>(),
              HasSubstr("field \"collection\": collection \"a\\x0Ab\""));
  EXPECT_EQ(Command({"stats", "--json"}).json()["collections"].dump(), R"({"Zoë's letters":1})");
}

}  // namespace
}  // namespace fovea::cli
