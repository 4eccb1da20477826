#include "cli/output.h"

#include "cli/text_format.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace fovea::cli {
namespace {

TEST(JsonLineTest, IsOneLineWhateverTheText) {
  const std::string line = JsonLine({{"text", "a\nb\t\"c\"\\\x01"}});
  EXPECT_EQ(line, "{\"text\":\"a\\nb\\t\\\"c\\\"\\\\\\u0001\"}\n");
}

TEST(JsonLineTest, InvalidUtf8IsReplaced) {
  const std::string line = JsonLine({{"text", "a\xFF z\xC3"}});
  const Json parsed = Json::parse(line, nullptr, false);
  ASSERT_TRUE(parsed.is_object());
  EXPECT_EQ(parsed["text"], "a\xEF\xBF\xBD z\xEF\xBF\xBD");
}

TEST(JsonLineTest, KeepsTheOrderOfFields) {
  EXPECT_EQ(JsonLine({{"z", 1}, {"a", 2}}), "{\"z\":1,\"a\":2}\n");
}

TEST(IngestJsonTest, RateCountsWhatWasEncoded) {
  IngestSummary summary;
  summary.tokens = 1000;
  summary.encoded_tokens = 500;
  summary.seconds = 2.0;
  EXPECT_DOUBLE_EQ(ToJson(summary)["tokens_per_second"].get<double>(), 250.0);
  EXPECT_DOUBLE_EQ(ToJson(IngestSummary())["tokens_per_second"].get<double>(), 0.0);
}

TEST(AnswerJsonTest, AuditIsNullUnlessAskedFor) {
  answer::Answer answer;
  EXPECT_TRUE(ToJson(answer, 1.0)["audit"].is_null());
  answer.audit.emplace();
  answer.audit->captured_mass = {0.5, 1.0};
  answer.audit->needle_recall = {1.0, 1.0};
  answer.audit->n_confident = {3, 4};
  EXPECT_EQ(ToJson(answer, 1.0)["audit"].dump(),
            R"({"captured_mass":[0.5,1.0],"needle_recall":[1.0,1.0]})");
}

TEST(VerifyJsonTest, NamesWhatIsDamaged) {
  memory::VerifyReport report;
  report.ok = false;
  report.documents = 2;
  report.damaged.push_back({"block", "abc", "checksum"});
  EXPECT_EQ(JsonLine(ToJson(report)),
            "{\"ok\":false,\"checked\":{\"documents\":2,\"blocks\":0,\"index_files\":0},"
            "\"damaged\":[{\"kind\":\"block\",\"document\":\"abc\",\"what\":\"checksum\"}],"
            "\"repaired\":[],\"notes\":[]}\n");
}

TEST(StatsJsonTest, CollectionsAreNamesWithNumbersOfDocuments) {
  memory::Stats stats;
  stats.collections = {{"default", 2}, {"letters", 1}};
  const Json json = ToJson(stats, storage::StoreSettings());
  EXPECT_EQ(json["collections"].dump(), R"({"default":2,"letters":1})");
}

TEST(SearchStatsTest, SayWhatLiesWhere) {
  memory::SearchStats stats;
  stats.by = "indexes";
  stats.faiss = "1.7.3, CPU";
  EXPECT_EQ(FormatSearchStats(stats),
            "search       by indexes on the host\nFAISS        1.7.3, CPU\n");
  stats.note = "dense attention";
  EXPECT_EQ(FormatSearchStats(stats),
            "search       by indexes on the host: dense attention\nFAISS        1.7.3, CPU\n");
  stats.is_on_gpu = true;
  stats.by = "codes";
  stats.gpu_code_bytes = 2'000'000;
  stats.gpu_key_bytes = 8'000'000;
  stats.pinned_value_bytes = 9'000'000;
  EXPECT_EQ(FormatSearchStats(stats),
            StrCat("search       by codes on the GPU: keys ", FormatBytes(8'000'000), ", codes ",
                   FormatBytes(2'000'000), "; in pinned host memory: values ",
                   FormatBytes(9'000'000), "\nFAISS        1.7.3, CPU\n"));
  std::swap(stats.pinned_value_bytes, stats.stored_value_bytes);
  EXPECT_THAT(FormatSearchStats(stats), testing::HasSubstr(StrCat("; read from the store: values ",
                                                                  FormatBytes(9'000'000), "\n")));
  EXPECT_EQ(ToJson(stats)["stored_bytes"]["values"], 9'000'000);
  std::swap(stats.pinned_value_bytes, stats.stored_value_bytes);
  EXPECT_EQ(ToJson(stats).dump(),
            R"({"on":"gpu","by":"codes","gpu_bytes":{"keys":8000000,"codes":2000000,"indexes":0,)"
            R"("values":0},"pinned_bytes":{"keys":0,"values":9000000},)"
            R"("stored_bytes":{"values":0},"note":"dense attention"})");
}

}  // namespace
}  // namespace fovea::cli
