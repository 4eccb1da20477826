#include <sys/stat.h>
#include <unistd.h>

#include "tests/documents/document_files.h"

namespace fovea::documents {
namespace {

using ::testing::ElementsAre;

class ListDocumentsTest : public DocumentFilesTest {};

TEST_F(ListDocumentsTest, ListsWhatHasAReaderSorted) {
  for (const char* name : {"b.txt", "a.pdf", "sub/z.JSONL", "sub/deeper/page.htm", "c.markdown",
                           "skip.png", "none", ".hidden.txt", ".git/x.txt", "sub/.h/y.md"}) {
    Write(name, "x");
  }
  const auto files = ListDocuments(folder_, /*recursive=*/true);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(*files, ElementsAre(folder_ / "a.pdf", folder_ / "b.txt", folder_ / "c.markdown",
                                  folder_ / "sub/deeper/page.htm", folder_ / "sub/z.JSONL"));
}

TEST_F(ListDocumentsTest, FollowsLinksToFilesButNotToFolders) {
  const auto file = Write("real/a.txt", "x");
  std::filesystem::create_symlink(file, folder_ / "link.txt");
  std::filesystem::create_directory_symlink(folder_, folder_ / "real" / "loop");
  std::filesystem::create_symlink(folder_ / "gone", folder_ / "broken.txt");
  const auto files = ListDocuments(folder_, true);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(*files, ElementsAre(folder_ / "broken.txt", folder_ / "link.txt", file));
  EXPECT_THAT(OpenError(folder_ / "broken.txt"),
              IsStatus(absl::StatusCode::kNotFound, "broken.txt"));
}

TEST_F(ListDocumentsTest, WantsRecursiveForAFolder) {
  Write("a.txt", "x");
  EXPECT_THAT(ListDocuments(folder_, false).status(),
              IsStatus(absl::StatusCode::kInvalidArgument, "pass --recursive"));
}

TEST_F(ListDocumentsTest, SaysThatAFolderHoldsNoDocuments) {
  Write("a.png", "x");
  EXPECT_THAT(ListDocuments(folder_, true).status(),
              IsStatus(absl::StatusCode::kNotFound, "no documents in this folder"));
}

TEST_F(ListDocumentsTest, GivesAnythingElseBack) {
  EXPECT_THAT(*ListDocuments(folder_ / "none.xyz", false), ElementsAre(folder_ / "none.xyz"));
}

TEST_F(ListDocumentsTest, ListsAFolderThatCannotBeReadSoThatItIsReported) {
  Write("a.txt", "x");
  const auto locked = Write("locked/b.txt", "x").parent_path();
  ASSERT_EQ(chmod(locked.c_str(), 0), 0);
  const Unprivileged unprivileged;
  if (!unprivileged.ok()) GTEST_SKIP() << "this user may read every file, and not become another";
  const auto files = ListDocuments(folder_, true);
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_THAT(*files, ElementsAre(folder_ / "a.txt", locked));
  EXPECT_THAT(OpenError(locked), IsStatus(absl::StatusCode::kPermissionDenied, "locked"));
}

}  // namespace
}  // namespace fovea::documents
