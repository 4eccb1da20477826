#include "texts/record_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <zlib.h>
#include <zstd.h>

#include <filesystem>
#include <fstream>

namespace fovea::texts {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kBook[] = R"({"text": "Once.", "title": "Tales"})";
constexpr char kQuestion[] =
    R"({"context": "It rains.", "question": "What does it do?", "answers": ["It rains", "rain"]})";
constexpr char kShortQuestion[] = R"({"context": "c", "question": "q", "answer": "a"})";

class RecordFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (std::filesystem::temp_directory_path() / "fovea-texts-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }
  std::filesystem::path Write(const std::string& name, const std::string& text) const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return folder_ / name;
  }
  static std::string Pack(const std::string& plain) {
    std::string packed(ZSTD_compressBound(plain.size()), '\0');
    packed.resize(ZSTD_compress(packed.data(), packed.size(), plain.data(), plain.size(), 3));
    return packed;
  }
  static absl::StatusOr<std::vector<Record>> Read(const std::filesystem::path& file,
                                                  size_t most = 1000000) {
    std::vector<Record> records;
    RETURN_IF_ERROR(ReadRecords(file, [&](Record record) -> absl::StatusOr<bool> {
      records.push_back(std::move(record));
      return records.size() < most;
    }));
    return records;
  }

  std::filesystem::path folder_;
};

TEST_F(RecordFileTest, ReadsBothKindsOfRecords) {
  const auto records =
      Read(Write("a.jsonl", StrCat(kBook, "\n \r\n", kQuestion, "\n", kShortQuestion)));
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 3u);
  EXPECT_EQ((*records)[0].text, "Once.");
  EXPECT_EQ((*records)[0].title, "Tales");
  EXPECT_EQ((*records)[1].context, "It rains.");
  EXPECT_THAT((*records)[1].answers, ElementsAre("It rains", "rain"));
  EXPECT_THAT((*records)[2].answers, ElementsAre("a"));
}

TEST_F(RecordFileTest, CompressedFilesAreTheSame) {
  std::string plain;
  for (int i = 0; i < 20000; ++i) plain += StrCat("{\"text\": \"", i, "\"}\n");
  const auto records = Read(Write("a.jsonl.zst", Pack(plain) + Pack("{\"text\": \"last\"}")));
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 20001u);
  EXPECT_EQ((*records)[19999].text, "19999");
  EXPECT_EQ(records->back().text, "last");
}

TEST_F(RecordFileTest, GzipFilesAreTheSame) {
  std::string plain;
  for (int i = 0; i < 200000; ++i) plain += StrCat("{\"text\": \"", i, "\"}\n");
  const std::filesystem::path path = folder_ / "a.jsonl.gz";
  for (const char* mode : {"wb", "ab"}) {  // two members
    const gzFile file = gzopen(path.c_str(), mode);
    ASSERT_EQ(gzwrite(file, plain.data(), static_cast<unsigned>(plain.size())),
              static_cast<int>(plain.size()));
    ASSERT_EQ(gzclose(file), Z_OK);
  }
  const auto records = Read(path);
  ASSERT_TRUE(records.ok()) << records.status();
  ASSERT_EQ(records->size(), 400000u);
  EXPECT_EQ((*records)[199999].text, "199999");
  EXPECT_EQ(records->back().text, "199999");
  std::filesystem::resize_file(path, std::filesystem::file_size(path) - 20);
  EXPECT_TRUE(absl::IsDataLoss(Read(path).status())) << Read(path).status();
  EXPECT_TRUE(absl::IsDataLoss(Read(Write("wrong.gz", "no member")).status()));
}

TEST_F(RecordFileTest, StopsWhereTheVisitorHasEnough) {
  // What is wrong behind that place is not looked at.
  const auto records = Read(Write("a.jsonl", StrCat(kBook, "\n", kBook, "\nnothing\n")), 2);
  ASSERT_TRUE(records.ok()) << records.status();
  EXPECT_EQ(records->size(), 2u);
}

TEST_F(RecordFileTest, SaysWhatIsWrongWhere) {
  for (const auto& [text, word] :
       {std::pair{std::string(), "no records"},
        {StrCat(kBook, "\n{\"text\": 3}\n"), "line 2"},
        {std::string("[1]\n"), "line 1"},
        {std::string("{\"text\": \"a\""), "not a JSON object"},
        {std::string(R"({"context": "a", "question": "b"})"), "answers"}}) {
    const absl::Status status = Read(Write("wrong.jsonl", text)).status();
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), AllOf(HasSubstr("wrong.jsonl"), HasSubstr(word)));
  }
  const std::string packed = Pack(kBook);
  for (const std::string& wrong : {packed.substr(0, packed.size() / 2), "no frame" + packed}) {
    const absl::Status status = Read(Write("wrong.zst", wrong)).status();
    EXPECT_TRUE(absl::IsDataLoss(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("wrong.zst"));
  }
  EXPECT_TRUE(absl::IsNotFound(Read(folder_ / "none.jsonl").status()));
}

}  // namespace
}  // namespace fovea::texts
