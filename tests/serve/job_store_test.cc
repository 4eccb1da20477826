#include "serve/job_store.h"

#include <unistd.h>

#include <cstdlib>
#include <fstream>

#include "base/file.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::serve {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class JobStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "fovea-jobs-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  std::unique_ptr<JobStore> Open() {
    auto store = JobStore::Open(folder_);
    EXPECT_TRUE(store.ok()) << store.status();
    return store.ok() ? *std::move(store) : nullptr;
  }
  // A job with one file, as it was accepted.
  static Job AddIngest(JobStore* store, const std::string& text) {
    auto file = store->CreateUpload("Letter.TXT");
    EXPECT_TRUE(file.ok() && file->Write(text).ok() && file->Close().ok());
    Job job;
    job.collection = "letters";
    job.uploads.push_back(
        {.file = file->name(), .name = "Letter.TXT", .is_text = false, .size_bytes = 5});
    std::vector<UploadFile> files;
    files.push_back(*std::move(file));
    auto added = store->Add(job, std::move(files));
    EXPECT_TRUE(added.ok()) << added.status();
    return *added;
  }
  size_t n_uploads() const {
    return static_cast<size_t>(
        std::distance(fs::directory_iterator(folder_ / "jobs/uploads"), fs::directory_iterator()));
  }

  fs::path folder_;
};

TEST_F(JobStoreTest, WhatWasAcceptedIsThereInTheNextProcess) {
  Job job;
  {
    const auto store = Open();
    job = AddIngest(store.get(), "Dear");
    EXPECT_TRUE(store->UploadPath(job.uploads[0]).native().ends_with(".txt"));
  }
  const auto store = Open();
  const auto found = store->NextWaiting();
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->id, job.id);
  EXPECT_EQ(found->collection, "letters");
  EXPECT_EQ(*ReadFile(store->UploadPath(found->uploads[0])), "Dear");
}

TEST_F(JobStoreTest, WhatRanWhenAProcessEndedWaitsAgain) {
  {
    const auto store = Open();
    Job job = AddIngest(store.get(), "a");
    job.state = JobState::kRunning;
    ASSERT_TRUE(store->Update(job).ok());
    EXPECT_FALSE(store->NextWaiting().has_value());
  }
  EXPECT_TRUE(Open()->NextWaiting().has_value());
}

TEST_F(JobStoreTest, FilesGoWithTheEndOfTheirJob) {
  const auto store = Open();
  Job job = AddIngest(store.get(), "a");
  EXPECT_EQ(n_uploads(), 1);
  job.state = JobState::kDone;
  ASSERT_TRUE(store->Update(job).ok());
  EXPECT_EQ(n_uploads(), 0);
}

TEST_F(JobStoreTest, FilesThatNoJobTookAreRemoved) {
  {
    const auto store = Open();
    { auto dropped = store->CreateUpload("a.txt"); }
    EXPECT_EQ(n_uploads(), 0);
    // As a process that was killed while it received one, and after the end of a job.
    std::ofstream(folder_ / "jobs/uploads/77.txt") << "part";
    Job job = AddIngest(store.get(), "a");
    job.state = JobState::kDone;
    ASSERT_TRUE(store->Update(job).ok());
    std::ofstream(store->UploadPath(job.uploads[0])) << "again";
    std::ofstream(folder_ / "jobs/9.job.tmp1234") << "part";
  }
  const auto store = Open();
  EXPECT_EQ(n_uploads(), 0);
  EXPECT_FALSE(fs::exists(folder_ / "jobs/9.job.tmp1234"));
  EXPECT_EQ(store->CreateUpload("b.txt")->name(), "78.txt");  // never a name that was used
}

TEST_F(JobStoreTest, IdsAreNeverUsedAgain) {
  uint64_t id = 0;
  {
    const auto store = Open();
    AddIngest(store.get(), "a");
    id = AddIngest(store.get(), "b").id;
  }
  WriteFileAtomic(folder_ / "jobs" / StrCat(id, ".job"), "nonsense").IgnoreError();
  const auto store = Open();
  EXPECT_THAT(store->List(), SizeIs(1));
  EXPECT_GT(AddIngest(store.get(), "c").id, id);
}

TEST_F(JobStoreTest, EveryFlippedBitOfARecordIsFound) {
  Job job;
  job.id = 7;
  job.collection = "letters";
  job.uploads.push_back({.file = "1.txt", .name = "a", .is_text = true, .size_bytes = 3});
  job.documents.push_back(
      {.id = "12", .title = "t", .source = "s", .is_new_source = true, .error = "e"});
  job.warnings = {"w"};
  const std::string bytes = EncodeJob(job);
  const auto decoded = DecodeJob(bytes, "record");
  ASSERT_TRUE(decoded.ok()) << decoded.status();
  EXPECT_EQ(EncodeJob(*decoded), bytes);
  for (size_t i = 0; i < bytes.size() * 8; ++i) {
    std::string flipped = bytes;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << (i % 8)));
    EXPECT_EQ(DecodeJob(flipped, "record").status().code(), absl::StatusCode::kDataLoss) << i;
  }
  for (size_t n = 0; n < bytes.size(); ++n) {
    EXPECT_FALSE(DecodeJob(std::string_view(bytes).substr(0, n), "record").ok()) << n;
  }
}

TEST_F(JobStoreTest, ADamagedRecordIsSetAsideAndItsFilesStay) {
  {
    const auto store = Open();
    AddIngest(store.get(), "a");
    AddIngest(store.get(), "b");
  }
  const fs::path record = folder_ / "jobs/1.job";
  std::string bytes = *ReadFile(record);
  bytes[10] ^= 1;
  ASSERT_TRUE(WriteFileAtomic(record, bytes).ok());
  const auto store = Open();
  ASSERT_THAT(store->damages(), SizeIs(1));
  EXPECT_THAT(store->damages()[0], HasSubstr("1.job"));
  EXPECT_TRUE(fs::exists(folder_ / "jobs/1.job.damaged"));
  EXPECT_EQ(n_uploads(), 2);
  EXPECT_EQ(store->NextWaiting()->id, 2);
}

TEST_F(JobStoreTest, AClientsNameGivesNothingButAPlainExtension) {
  const auto store = Open();
  for (const auto& [name, extension] :
       std::vector<std::pair<std::string, std::string>>{{"a.PDF", ".pdf"},
                                                        {"../../x.md", ".md"},
                                                        {"a.t/../../b", ""},
                                                        {"a.", ""},
                                                        {"a", ""},
                                                        {std::string("a.t\0t", 5), ""},
                                                        {"a.verylongextension", ""},
                                                        {"a.t\xC3\xA9", ""}}) {
    const auto file = store->CreateUpload(name);
    ASSERT_TRUE(file.ok()) << name;
    EXPECT_EQ(fs::path(file->name()).extension(), extension) << name;
    EXPECT_EQ(file->name().find('/'), std::string::npos);
  }
}

}  // namespace
}  // namespace fovea::serve
