#include "answer/fovea.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/memory/tiny_model.h"

namespace fovea::answer {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class FoveaTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "fovea-facade-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
    ASSERT_TRUE(memory::WriteTinyModel(folder_ / "model", /*seed=*/7, 2048).ok());
    options_.memory = folder_ / "memory";
    options_.model = folder_ / "model";
    options_.adapter = "layers:1,2";
    options_.n_threads = 2;
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path folder_;
  FoveaOptions options_;
};

TEST_F(FoveaTest, StoresAsksAndRemembersItsModel) {
  {
    auto fovea = Fovea::Open(options_);
    ASSERT_TRUE(fovea.ok()) << fovea.status();
    fs::create_directories(folder_ / "texts/deep");
    std::ofstream(folder_ / "texts/otter.txt") << "The otter lives by the river.\n";
    std::ofstream(folder_ / "texts/deep/tools.txt") << "A chisel cuts wood.\n";
    const auto documents = (*fovea)->IngestFile(folder_ / "texts", "nature");
    ASSERT_TRUE(documents.ok()) << documents.status();
    EXPECT_THAT(*documents, SizeIs(2));
  }
  FoveaOptions later;
  later.memory = options_.memory;
  later.read_only = true;
  auto fovea = Fovea::Open(later);
  ASSERT_TRUE(fovea.ok()) << fovea.status();
  AskOptions ask;
  ask.max_tokens = 4;
  std::string streamed;
  const auto answer =
      (*fovea)->Ask("Where does the otter live?", ask, [&streamed](std::string_view piece) {
        streamed += piece;
        return true;
      });
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_THAT(streamed, ::testing::StartsWith(answer->text));
  ASSERT_THAT(answer->reread, SizeIs(1));
  EXPECT_EQ(answer->reread[0].collection, "nature");
}

TEST_F(FoveaTest, ATextWithAKnownTitleReplacesTheFirstOne) {
  auto fovea = Fovea::Open(options_);
  ASSERT_TRUE(fovea.ok()) << fovea.status();
  const auto first = (*fovea)->IngestText("note", "The key is in the attic.\n");
  ASSERT_TRUE(first.ok()) << first.status();
  EXPECT_EQ(first->status, memory::IngestStatus::kAdded);
  const auto same = (*fovea)->IngestText("note", "The key is in the attic.\n");
  ASSERT_TRUE(same.ok()) << same.status();
  EXPECT_EQ(same->status, memory::IngestStatus::kUnchanged);
  const auto second = (*fovea)->IngestText("note", "The key is in the cellar.\n");
  ASSERT_TRUE(second.ok()) << second.status();
  EXPECT_EQ(second->status, memory::IngestStatus::kReplaced);
  EXPECT_THAT((*fovea)->memory().Current()->documents, SizeIs(1));
  const auto empty = (*fovea)->IngestText("nothing", "");
  EXPECT_EQ(empty.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST_F(FoveaTest, AnEmptyMemoryCannotBeOpenedForReading) {
  { ASSERT_TRUE(Fovea::Open(options_).ok()); }
  options_.read_only = true;
  const auto fovea = Fovea::Open(options_);
  EXPECT_EQ(fovea.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(fovea.status().message()), HasSubstr("this memory is empty"));
}

TEST_F(FoveaTest, AMemoryIsNotMadeForReadingNorForAModelThatDoesNotLoad) {
  FoveaOptions options = options_;
  options.read_only = true;
  EXPECT_EQ(Fovea::Open(options).status().code(), absl::StatusCode::kNotFound);
  options = options_;
  options.model = folder_ / "nowhere";
  EXPECT_EQ(Fovea::Open(options).status().code(), absl::StatusCode::kNotFound);
  EXPECT_FALSE(fs::exists(options_.memory));
}

TEST_F(FoveaTest, AnIngestOfFilesAndTextsIsSummedUp) {
  auto fovea = Fovea::Open(options_);
  ASSERT_TRUE(fovea.ok()) << fovea.status();
  fs::create_directories(folder_ / "texts");
  std::ofstream(folder_ / "texts/otter.txt") << "The otter lives by the river.\n";
  std::ofstream(folder_ / "texts/picture.png") << "\x89PNG\r\n\x1a\n0123456789";
  IngestRequest request;
  request.paths = {folder_ / "texts"};
  request.texts = {{"note", "A chisel cuts wood.\n"}, {"copy", "A chisel cuts wood.\n"}};
  const auto summary = (*fovea)->Ingest(request);
  ASSERT_TRUE(summary.ok()) << summary.status();
  EXPECT_THAT(summary->documents, SizeIs(3));
  EXPECT_THAT(summary->ids, SizeIs(2));
  EXPECT_EQ(summary->encoded_tokens, summary->tokens);
  ASSERT_THAT(summary->skipped, SizeIs(1));
  EXPECT_EQ(summary->skipped[0].n_files, 1);

  request.texts = {{"later", "A hammer drives nails.\n"}};
  request.paths = {folder_ / "texts", folder_ / "nothing"};
  const auto missing = (*fovea)->Ingest(request);
  EXPECT_EQ(missing.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.status().message()), HasSubstr("nothing: there is no such"));
  EXPECT_THAT((*fovea)->memory().Current()->documents, SizeIs(2));
}

}  // namespace
}  // namespace fovea::answer
