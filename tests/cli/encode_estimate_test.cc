#include "cli/encode_estimate.h"

#include "gtest/gtest.h"

namespace fovea::cli {
namespace {

storage::DocumentRecord Stored(const std::string& source, int64_t unix_s) {
  storage::DocumentRecord record;
  record.sources = {{.source = source}};
  record.ingested_unix_s = unix_s;
  return record;
}

memory::IngestedDocument Done(const std::string& source, uint64_t tokens, uint64_t encoded) {
  memory::IngestedDocument document;
  document.source = source;
  document.tokens = tokens;
  document.encoded_tokens = encoded;
  return document;
}

TEST(EncodeEstimateTest, CountsFilesThatAreNewOrWereWrittenSince) {
  const storage::DocumentRecord stored[] = {Stored("/a.txt", 100), Stored("/b.txt", 100),
                                            Stored("/c.jsonl#1", 100), Stored("/c.jsonl#x#2", 200)};
  EncodeEstimate estimate(stored);
  EXPECT_EQ(estimate.tokens(), 1);
  estimate.AddFile("/a.txt", 4200, 99);
  estimate.AddFile("/c.jsonl", 4200, 199);
  EXPECT_EQ(estimate.tokens(), 1);
  estimate.AddFile("/b.txt", 4200, 100);  // in the same second: it may have changed
  EXPECT_EQ(estimate.tokens(), 1000);
  estimate.AddFile("/new.txt", 420, 5);
  EXPECT_EQ(estimate.tokens(), 1100);
}

TEST(EncodeEstimateTest, LearnsFromWhatWasDone) {
  const storage::DocumentRecord stored[] = {Stored("/a.txt", 100)};
  EncodeEstimate estimate(stored);
  estimate.AddFile("/a.txt", 4200, 50);
  estimate.AddFile("/b.txt", 4200, 200);
  estimate.AddFile("/c.jsonl", 4200, 200);
  EXPECT_EQ(estimate.tokens(), 2000);
  estimate.Report(Done("/b.txt", 900, 100));  // most of its windows were stored
  EXPECT_EQ(estimate.tokens(), 1100);
  estimate.Report(Done("/c.jsonl#3", 500, 0));  // unchanged
  EXPECT_EQ(estimate.tokens(), 600);
  estimate.Report(Done("/a.txt", 1000, 0));  // as it was expected
  EXPECT_EQ(estimate.tokens(), 600);
  estimate.Report(Done("/a.txt", 1000, 200));  // not as it was expected
  EXPECT_EQ(estimate.tokens(), 800);
  estimate.AddFile("/d.png", 42000, 200);
  EXPECT_EQ(estimate.tokens(), 10800);
  estimate.Skip("/d.png");
  EXPECT_EQ(estimate.tokens(), 800);
}

TEST(EncodeEstimateTest, KnowsNothingOfAPipe) {
  EncodeEstimate estimate;
  estimate.AddFile("/a.txt", 4200, 50);
  estimate.AddUnknown();
  EXPECT_EQ(estimate.tokens(), 0);
}

}  // namespace
}  // namespace fovea::cli
