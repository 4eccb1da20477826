#include "answer/answerer.h"

#include <atomic>
#include <cmath>
#include <limits>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/answer/tiny_memory.h"
#include "tests/storage/fault_file_system.h"

namespace fovea::answer {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

class AnswererTest : public TinyMemoryTest {
 protected:
  // A memory of two documents in two collections.
  void MakeMemory(bool with_memory_layers = true) {
    LoadModel(with_memory_layers);
    OpenMemory();
    IngestText("animals", "The otter lives by the river.\n\nThe badger digs at night.\n", "nature");
    IngestText("tools", "A hammer drives nails.\n\nA chisel cuts wood.\n", "workshop");
  }
  std::unique_ptr<Answerer> MakeAnswerer() {
    auto answerer = Answerer::Create(device_.get(), model_.get(), memory_.get());
    EXPECT_TRUE(answerer.ok()) << answerer.status();
    return answerer.ok() ? *std::move(answerer) : nullptr;
  }
  static AskOptions Brief() {
    AskOptions options;
    options.max_tokens = 6;
    return options;
  }
};

TEST_F(AnswererTest, NamesSourcesWhoseMassesSumToAtMostOne) {
  MakeMemory();
  const auto answer = MakeAnswerer()->Ask("Where does the otter live?", Brief(), nullptr, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->question, "Where does the otter live?");
  ASSERT_THAT(answer->sources, ::testing::Not(IsEmpty()));
  double total = 0.0;
  for (const memory::Passage& source : answer->sources) {
    EXPECT_GE(source.mass, 0.0);
    total += source.mass;
    EXPECT_LT(source.start, source.end);
    EXPECT_EQ(source.text.size(), source.end - source.start);
  }
  EXPECT_LE(total, 1.0 + 1e-6);
  EXPECT_GT(answer->usage.memory_tokens, 80u);
  EXPECT_GT(answer->usage.prompt_tokens, 0);
  EXPECT_LE(answer->usage.completion_tokens, 6);
  EXPECT_GT(answer->timing.prefill_ms, 0.0);
}

TEST_F(AnswererTest, AnUntrainedModelIsGivenTheWordsPassageAndSaysSo) {
  MakeMemory();
  const auto answerer = MakeAnswerer();
  const auto answer = answerer->Ask("Where does the otter live?", Brief(), nullptr, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->reread, SizeIs(1));
  EXPECT_THAT(answer->reread[0].text, HasSubstr("otter"));
  EXPECT_EQ(answer->reread[0].title, "animals");
  EXPECT_THAT(answerer->Hint({}), HasSubstr("adapter"));
}

TEST_F(AnswererTest, ReReadingMakesThePromptLongerByThePassage) {
  MakeMemory();
  const auto answerer = MakeAnswerer();
  AskOptions off = Brief();
  off.reread = 0;
  const auto bare = answerer->Ask("Where does the otter live?", off, nullptr, {});
  const auto reread = answerer->Ask("Where does the otter live?", Brief(), nullptr, {});
  ASSERT_TRUE(bare.ok()) << bare.status();
  ASSERT_TRUE(reread.ok()) << reread.status();
  EXPECT_THAT(bare->reread, IsEmpty());
  // One token a byte, and the empty line.
  const std::string passage = "The otter lives by the river.\n\nThe badger digs at night.";
  EXPECT_EQ(reread->reread[0].text, passage + "\n");
  EXPECT_EQ(reread->usage.prompt_tokens,
            bare->usage.prompt_tokens + static_cast<int64_t>(passage.size()) + 2);
}

TEST_F(AnswererTest, WhatWasReReadIsNamedFirst) {
  MakeMemory();
  for (const bool with_memory : {false, true}) {
    for (const RereadBy by : {RereadBy::kBm25, RereadBy::kBoth}) {
      AskOptions options = Brief();
      options.reread = 2;
      options.reread_by = by;
      options.reread_memory = with_memory;
      options.n_sources = 10;
      const auto answer = MakeAnswerer()->Ask("Where does the otter live, and what cuts wood?",
                                              options, nullptr, {});
      ASSERT_TRUE(answer.ok()) << answer.status();
      ASSERT_THAT(answer->reread, SizeIs(2));
      ASSERT_GE(answer->sources.size(), 2u);
      for (size_t i = 0; i < answer->sources.size(); ++i) {
        EXPECT_EQ(answer->sources[i].reread, i < 2);
        EXPECT_FALSE(answer->sources[i].source.empty());
      }
      EXPECT_EQ(answer->sources[0].slot_begin, answer->reread[0].slot_begin);
      if (!with_memory) {
        EXPECT_THAT(answer->sources, SizeIs(2));
      }
    }
  }
}

TEST_F(AnswererTest, AMemoryWithoutDocumentsIsSaidNotAnswered) {
  MakeMemory();
  std::vector<storage::DocumentNumber> all;
  for (const auto& document : memory_->Current()->documents) all.push_back(document.number);
  ASSERT_TRUE(memory_->DeleteDocuments(all).ok());
  const auto answerer = MakeAnswerer();
  const auto answer = answerer->Ask("Where does the otter live?", Brief(), nullptr, {});
  ASSERT_EQ(answer.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("no documents"));
  AskOptions alone = Brief();
  alone.use_memory = false;
  EXPECT_TRUE(answerer->Ask("Where does the otter live?", alone, nullptr, {}).ok());
}

TEST_F(AnswererTest, ALongLimitOfTheAnswerDropsNoPassage) {
  MakeMemory();
  AskOptions options = Brief();
  const auto brief = MakeAnswerer()->Ask("Where does the otter live?", options, nullptr, {});
  options.max_tokens = 100000;
  // Only the prompt is of interest.
  const auto stop = [](std::string_view) { return false; };
  const auto long_one = MakeAnswerer()->Ask("Where does the otter live?", options, stop, {});
  ASSERT_TRUE(brief.ok() && long_one.ok()) << brief.status() << long_one.status();
  EXPECT_EQ(brief->usage.prompt_tokens, long_one->usage.prompt_tokens);
  EXPECT_THAT(long_one->reread, SizeIs(1));
}

TEST_F(AnswererTest, FusedRanksContainWhatWordsFind) {
  MakeMemory();
  AskOptions options = Brief();
  options.reread = 2;
  options.reread_by = RereadBy::kBoth;
  const auto answer = MakeAnswerer()->Ask("chisel wood", options, nullptr, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->reread, ::testing::Not(IsEmpty()));
  bool found = false;
  for (const memory::Passage& passage : answer->reread) {
    found |= passage.text.find("chisel") != std::string::npos;
  }
  EXPECT_TRUE(found);
}

TEST_F(AnswererTest, AttentionFindsPassagesToo) {
  MakeMemory();
  AskOptions options = Brief();
  options.reread = 1;
  options.reread_by = RereadBy::kAttention;
  const auto answer = MakeAnswerer()->Ask("chisel wood", options, nullptr, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->reread, SizeIs(1));
  EXPECT_GT(answer->reread[0].mass, 0.0);
}

TEST_F(AnswererTest, AModelWithoutMemoryLayersNamesWhatItReRead) {
  MakeMemory(/*with_memory_layers=*/false);
  const auto answer = MakeAnswerer()->Ask("What cuts wood?", Brief(), nullptr, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->sources, SizeIs(1));
  EXPECT_EQ(answer->sources[0].title, "tools");
}

TEST_F(AnswererTest, TheScopeHidesOtherCollections) {
  MakeMemory();
  AskOptions options = Brief();
  options.scope.collections = {"workshop"};
  options.n_sources = 10;
  const auto answer = MakeAnswerer()->Ask("Where does the otter live?", options, nullptr, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  for (const memory::Passage& source : answer->sources) EXPECT_EQ(source.title, "tools");
  for (const memory::Passage& passage : answer->reread) EXPECT_EQ(passage.title, "tools");
  options.scope.collections = {"nowhere"};
  EXPECT_EQ(MakeAnswerer()->Ask("x", options, nullptr, {}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(AnswererTest, EachQuestionSeesTheMemoryAsItIsThen) {
  MakeMemory();
  const auto answerer = MakeAnswerer();
  const auto before = answerer->Ask("zebra stripes", Brief(), nullptr, {});
  ASSERT_TRUE(before.ok()) << before.status();
  IngestText("more", "The zebra has stripes.\n");
  const auto after = answerer->Ask("zebra stripes", Brief(), nullptr, {});
  ASSERT_TRUE(after.ok()) << after.status();
  EXPECT_GT(after->usage.memory_tokens, before->usage.memory_tokens);
  ASSERT_THAT(after->reread, SizeIs(1));
  EXPECT_EQ(after->reread[0].title, "more");
}

TEST_F(AnswererTest, TheSameQuestionHasTheSameAnswer) {
  MakeMemory();
  const auto answerer = MakeAnswerer();
  AskOptions options = Brief();
  options.max_tokens = 24;
  const auto first = answerer->Ask("Where does the otter live?", options, nullptr, {});
  const auto other = answerer->Ask("What cuts wood?", options, nullptr, {});
  const auto again = answerer->Ask("Where does the otter live?", options, nullptr, {});
  ASSERT_TRUE(first.ok() && other.ok() && again.ok());
  EXPECT_EQ(first->text, again->text);
}

TEST_F(AnswererTest, WhatIsStreamedIsTheAnswer) {
  MakeMemory();
  std::string streamed;
  AskOptions options = Brief();
  options.raw = true;
  options.max_tokens = 20;
  const auto answer = MakeAnswerer()->Ask("Once upon a time", options,
                                          [&streamed](std::string_view piece) {
                                            streamed += piece;
                                            return true;
                                          },
                                          {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(streamed, answer->text);
}

TEST_F(AnswererTest, AReceiverCanStopTheAnswer) {
  MakeMemory();
  AskOptions options = Brief();
  options.raw = true;
  options.max_tokens = 200;
  const auto answer =
      MakeAnswerer()->Ask("Once upon a time", options, [](std::string_view) { return false; }, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(answer->finish_reason == "cancelled" || answer->text.empty());
  EXPECT_LT(answer->usage.completion_tokens, 200);
}

TEST_F(AnswererTest, ACancelledQuestionIsAnAnswerThatSaysSo) {
  MakeMemory();
  const std::atomic<bool> cancelled{true};
  const auto answer =
      MakeAnswerer()->Ask("Where?", Brief(), nullptr, Progress(nullptr, &cancelled));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->finish_reason, "cancelled");
  EXPECT_EQ(answer->text, "");
}

TEST_F(AnswererTest, WithoutMemoryNothingOfItIsSeen) {
  MakeMemory();
  const auto with_memory = MakeAnswerer();
  const auto alone = Answerer::Create(device_.get(), model_.get(), nullptr);
  ASSERT_TRUE(alone.ok()) << alone.status();
  AskOptions options = Brief();
  options.use_memory = false;
  options.max_tokens = 16;
  const auto off = with_memory->Ask("Where does the otter live?", options, nullptr, {});
  const auto none = (*alone)->Ask("Where does the otter live?", options, nullptr, {});
  ASSERT_TRUE(off.ok()) << off.status();
  ASSERT_TRUE(none.ok()) << none.status();
  EXPECT_EQ(off->text, none->text);
  EXPECT_THAT(off->sources, IsEmpty());
  EXPECT_EQ(off->usage.memory_tokens, 0u);
}

TEST_F(AnswererTest, WordsCanBeReReadWithTheMemoryOff) {
  MakeMemory();
  AskOptions options = Brief();
  options.use_memory = false;
  options.reread = 1;
  const auto answer = MakeAnswerer()->Ask("Where does the otter live?", options, nullptr, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->reread, SizeIs(1));
  EXPECT_EQ(answer->sources.size(), 1u);
}

TEST_F(AnswererTest, AuditComesOnlyWhenAskedFor) {
  MakeMemory();
  AskOptions options = Brief();
  const auto answerer = MakeAnswerer();
  const auto plain = answerer->Ask("Where?", options, nullptr, {});
  ASSERT_TRUE(plain.ok()) << plain.status();
  EXPECT_FALSE(plain->audit.has_value());
  options.audit = true;
  const auto audited = answerer->Ask("Where?", options, nullptr, {});
  ASSERT_TRUE(audited.ok()) << audited.status();
  ASSERT_TRUE(audited->audit.has_value());
  EXPECT_THAT(audited->audit->captured_mass, SizeIs(2));
  EXPECT_THAT(audited->audit->needle_recall, SizeIs(2));
}

TEST_F(AnswererTest, OnlyASearchThatWasMadeIsAudited) {
  MakeMemory();
  const auto answerer = MakeAnswerer();
  for (const bool searches : {false, true}) {
    AskOptions options = Brief();
    options.audit = true;
    options.reread = 1;
    options.reread_memory = searches;
    const auto answer = answerer->Ask("Where does the otter live?", options, nullptr, {});
    ASSERT_TRUE(answer.ok()) << answer.status();
    ASSERT_THAT(answer->reread, SizeIs(1));
    EXPECT_EQ(answer->audit.has_value(), searches);
    EXPECT_EQ(answer->notes.size(), searches ? 0u : 1u);
  }
}

TEST_F(AnswererTest, TheHintSaysWhatIsRead) {
  for (const bool has_layers : {true, false}) {
    LoadModel(has_layers);
    const auto answerer = MakeAnswerer();
    AskOptions options;
    EXPECT_THAT(answerer->Hint(options), HasSubstr("found by their words (BM25)"));
    options.reread = 0;
    EXPECT_THAT(answerer->Hint(options), HasSubstr("no passage is read"));
    options.reread = 1;
    options.reread_by = RereadBy::kAttention;
    if (has_layers) {
      EXPECT_THAT(answerer->Hint(options), HasSubstr("found by its attention"));
    }
  }
}

TEST_F(AnswererTest, ALongQuestionShortensTheAnswerAndATooLongOneIsRefused) {
  MakeMemory();
  AskOptions options;
  options.max_tokens = 256;
  const auto answerer = MakeAnswerer();
  const auto answer = answerer->Ask(std::string(500, 'q'), options, nullptr, {});
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_LE(answer->usage.prompt_tokens + answer->usage.completion_tokens, kMaxPositions);
  const auto refused = answerer->Ask(std::string(600, 'q'), options, nullptr, {});
  EXPECT_EQ(refused.status().code(), absl::StatusCode::kOutOfRange);
  // The answerer is as good as before.
  EXPECT_TRUE(answerer->Ask("Where?", Brief(), nullptr, {}).ok());
}

TEST_F(AnswererTest, AMemoryOfAnotherModelIsRefused) {
  MakeMemory();
  ASSERT_TRUE(memory::WriteTinyModel(folder_ / "model", /*seed=*/8, kMaxPositions).ok());
  LoadModel();
  const auto answerer = Answerer::Create(device_.get(), model_.get(), memory_.get());
  EXPECT_EQ(answerer.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(answerer.status().message()), HasSubstr(model_->fingerprint()));
}

TEST_F(AnswererTest, OptionsThatMakeNoSenseAreRefused) {
  MakeMemory();
  const auto answerer = MakeAnswerer();
  const auto code = [&](auto change) {
    AskOptions options = Brief();
    change(options);
    return answerer->Ask("Where?", options, nullptr, {}).status().code();
  };
  constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
  EXPECT_EQ(code([](AskOptions& options) { options.top_k = -1; }), kInvalid);
  EXPECT_EQ(code([](AskOptions& options) { options.max_tokens = -1; }), kInvalid);
  EXPECT_EQ(code([](AskOptions& options) { options.temperature = -1.0f; }), kInvalid);
  EXPECT_EQ(code([](AskOptions& options) {
              options.temperature = std::numeric_limits<float>::quiet_NaN();
            }),
            kInvalid);
  EXPECT_EQ(code([](AskOptions& options) { options.n_sources = -1; }), kInvalid);
  EXPECT_EQ(answerer->Ask(" \n", Brief(), nullptr, {}).status().code(), kInvalid);
}

TEST_F(AnswererTest, AQuestionWhoseDocumentsAreDeletedMeanwhileBeginsAnew) {
  // Long enough for keys and values to lie in files of their own.
  window_ = 400;
  std::string text;
  for (int i = 0; text.size() < 2000; ++i) text += StrCat("otter number ", i, " swims.\n");
  LoadModel();
  OpenMemory();
  IngestText("animals", text);
  IngestText("tools", "A hammer drives nails.\n\nA chisel cuts wood.\n");
  const std::string animals = memory_->Current()->documents[0].id;
  memory_.reset();
  storage::FaultFileSystem disk;
  auto reader = memory::Memory::Open(folder_ / "memory", {.file_system = disk.file_system()});
  ASSERT_TRUE(reader.ok()) << reader.status();
  auto answerer = Answerer::Create(device_.get(), model_.get(), reader->get());
  ASSERT_TRUE(answerer.ok()) << answerer.status();
  bool deleted = false;
  const auto delete_animals = [&] {
    auto writer = memory::Memory::Open(folder_ / "memory", {.mode = storage::OpenMode::kWrite});
    ASSERT_TRUE(writer.ok()) << writer.status();
    ASSERT_EQ((*writer)->Current()->documents[0].id, animals);
    const auto number = (*writer)->Current()->documents[0].number;
    ASSERT_TRUE((*writer)->DeleteDocuments({number}).ok());
    ASSERT_TRUE((*writer)->store().Compact().ok());
    deleted = true;
  };
  disk.CallBeforeOpen(".blob", delete_animals);
  AskOptions options = Brief();
  options.reread_memory = true;
  const auto answer = (*answerer)->Ask("Where does the otter live?", options, nullptr, {});
  ASSERT_TRUE(deleted);
  ASSERT_TRUE(answer.ok()) << answer.status();
  ASSERT_THAT(answer->sources, ::testing::Not(IsEmpty()));
  for (const memory::Passage& source : answer->sources) EXPECT_EQ(source.title, "tools");
  EXPECT_LT(answer->usage.memory_tokens, 100u);
}

TEST_F(AnswererTest, AnErrorThatNoWriterCausedIsReported) {
  MakeMemory();
  memory_.reset();
  storage::FaultFileSystem disk;
  auto reader = memory::Memory::Open(folder_ / "memory", {.file_system = disk.file_system()});
  ASSERT_TRUE(reader.ok()) << reader.status();
  auto answerer = Answerer::Create(device_.get(), model_.get(), reader->get());
  ASSERT_TRUE(answerer.ok()) << answerer.status();
  disk.FailAt(storage::FileOperation::kRead, 1, storage::FileFailure::kIoError, /*lasting=*/true,
              ".sst");
  // Keys are read with the first question; texts may have been when the memory was opened.
  AskOptions options = Brief();
  options.reread = 0;
  const auto answer = (*answerer)->Ask("Where does the otter live?", options, nullptr, {});
  ASSERT_FALSE(answer.ok());
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("injected"));
}

}  // namespace
}  // namespace fovea::answer
